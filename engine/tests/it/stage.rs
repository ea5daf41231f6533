//! Fixture of process tests: a faulty provider, a tenant, and things with prices.

use std::time::Duration;

use heddle_schemas::id::AccountId;
use heddle_schemas::sealed::Secret;
use heddle_simulator::fault::Faults;
use heddle_simulator::graph;

/// A tenant and the secrets of its accounts, each made of `word`.
pub(crate) struct Stage {
    pub(crate) tenant: &'static str,
    pub(crate) accounts: Vec<AccountId>,
    pub(crate) word: &'static str,
}

impl Stage {
    fn secret(&self, of: &str) -> String {
        format!("{}-{of}", self.word)
    }

    /// The secret that webhooks are signed with.
    pub(crate) fn app_secret(&self) -> Secret {
        Secret::new(self.secret("secret"))
    }

    /// A provider that is slow, fails, and loses answers, a little of each.
    pub(crate) fn provider(&self) -> graph::Options {
        let token = Secret::new(self.secret("token"));
        graph::Options {
            numbers: self.accounts.iter().map(|account| (account.clone(), token.clone())).collect(),
            faults: Faults {
                latency: Duration::from_millis(1)..Duration::from_millis(60),
                server_error: 0.01,
                taken_then_dropped: 0.01,
                dropped: 0.01,
                ..Faults::default()
            },
            ..graph::Options::default()
        }
    }

    /// The tenant's file.
    pub(crate) fn file(&self, api_base: &str) -> String {
        let mut text = format!(
            "id = \"{tenant}\"\nname = \"{tenant}\"\n[agent]\nsettle = \"100ms\"\n\
             fallback = \"A colleague will get back to you.\"\n",
            tenant = self.tenant,
        );
        for account in &self.accounts {
            text += &format!(
                "[[channels]]\nkind = \"whatsapp\"\naccount = \"{account}\"\napi_base = \"{api_base}\"\n\
                 access_token = \"{}\"\napp_secret = \"{}\"\nverify_token = \"{}\"\nmessages_per_second = 1000\n",
                self.secret("token"),
                self.secret("secret"),
                self.secret("verify"),
            );
        }
        text
    }
}

/// Things, each with a price of its own, and a document that says so.
pub(crate) fn catalogue() -> (String, Vec<(&'static str, String)>) {
    let things =
        ["lamp", "ladder", "kettle", "violin", "anchor", "basket", "hammer", "pillow", "mirror", "candle"];
    let priced: Vec<_> =
        things.into_iter().enumerate().map(|(n, thing)| (thing, format!("{}{n} crowns", n + 3))).collect();
    let entries = priced.iter().map(|(thing, price)| format!("\n## {thing}\n\nA {thing} costs {price}.\n"));
    (format!("# Catalogue\n{}", entries.collect::<String>()), priced)
}
