//! Fixture of a run: the tenants with their secrets and their document, the customers, their questions, and the
//! reference codes by which a reply names its question.
//!
//! Tenants, accounts and secrets are of one run: their ids name it, and the secrets derive from random bytes, so that
//! nobody else can sign a webhook for a tenant that a run leaves behind. Customers and questions follow from the options
//! and the seed. The messages of a conversation are numbered; number `n` asks about thing `n mod 64`, and the one passage
//! of the document about that thing holds its code. The code also names the run, which distinguishes replies decided
//! in an earlier run.

use heddle_connectors::channels::whatsapp::{ACCESS_TOKEN, APP_SECRET, VERIFY_TOKEN};
use heddle_schemas::consent::words::ConsentWords;
use heddle_schemas::hours::Hours;
use heddle_schemas::id::{AccountId, ChannelKind, TenantId};
use heddle_schemas::ports::channel::Credentials;
use heddle_schemas::ports::knowledge::{Document, DocumentFormat};
use heddle_schemas::retention::Retention;
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::{Agent, ChannelAccount, KnowledgeBase, Llm, Privacy, Quota, Tenant, Tools};
use sha2::{Digest, Sha256};

use crate::options::Options;

/// Number of things to ask about.
pub(crate) const THINGS: u32 = 64;
/// Prefix of a reference code.
const CODE_PREFIX: &str = "ref-";
/// Prefix of a customer's phone number. 555 is not an area code, so these numbers are unassigned.
const PREFIX: &str = "1555";

/// Parts of the things' names: invented, so that they match no word of any language.
const BEGINNINGS: [&str; 8] = ["ba", "ke", "di", "fo", "gu", "la", "mi", "no"];
const ENDINGS: [&str; 8] = ["bork", "dunt", "fimp", "galk", "hont", "lirk", "mund", "pask"];

/// Tenants, customers and questions of one run.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    tenants: u32,
    conversations: u32,
    /// Random bytes that the secrets derive from.
    salt: [u8; 32],
    /// Number of the run, in the accounts.
    number: u32,
    /// Id of the run: six hexadecimal digits.
    run: String,
}

impl Fixture {
    /// Creates the fixture of these options; `moment` distinguishes this run from others.
    pub(crate) fn new(options: &Options, moment: u64, salt: [u8; 32]) -> Self {
        let number = u32::try_from(moment & 0xff_ffff).unwrap_or_default();
        Self {
            tenants: options.tenants.get(),
            conversations: options.conversations.get(),
            salt,
            number,
            run: format!("{number:06x}"),
        }
    }

    /// Returns the id of a tenant, by its number from 0.
    pub(crate) fn tenant_id(&self, tenant: u32) -> TenantId {
        format!("load-{}-{:04}", self.run, tenant + 1).parse().expect("digits are allowed in an id")
    }

    /// Returns the WhatsApp account of a tenant.
    pub(crate) fn account(&self, tenant: u32) -> AccountId {
        format!("99{:08}{:07}", self.number, tenant + 1).parse().expect("digits are allowed in an id")
    }

    /// Returns the tenant's token or secret.
    pub(crate) fn secret(&self, what: &str, tenant: u32) -> Secret {
        let digest =
            Sha256::new().chain_update(self.salt).chain_update(format!("{what}/{tenant}")).finalize();
        Secret::new(hex::encode(digest))
    }

    /// Returns a tenant's configuration, with its channel at this address.
    pub(crate) fn tenant(&self, tenant: u32, api_base: &str, options: &Options) -> Tenant {
        Tenant {
            id: self.tenant_id(tenant),
            name: format!("Load {:04}", tenant + 1),
            region: "eu".into(),
            agent: Agent { settle: options.settle, ..Agent::default() },
            channels: vec![ChannelAccount {
                kind: ChannelKind::Whatsapp,
                account: self.account(tenant),
                api_base: api_base.to_owned(),
                messages_per_second: Some(options.per_number),
                credentials: Credentials::from_iter([
                    (ACCESS_TOKEN, self.secret("token", tenant)),
                    (APP_SECRET, self.secret("secret", tenant)),
                    (VERIFY_TOKEN, self.secret("verify", tenant)),
                ]),
            }],
            disconnected: Vec::new(),
            llm: Llm::default(),
            // A quota must not limit the load.
            hours: Hours::default(),
            calendar: None,
            tools: Tools::default(),
            quota: Quota {
                messages_per_month: 1_000_000_000_000,
                tokens_per_month: 1_000_000_000_000,
                ..Quota::default()
            },
            retention: Retention::default(),
            knowledge: KnowledgeBase::default(),
            consent: ConsentWords::default(),
            privacy: Privacy::default(),
        }
    }

    /// Returns the knowledge document of every tenant.
    pub(crate) fn document(&self) -> Document {
        let sections: Vec<_> = (0..THINGS)
            .map(|thing| {
                let name = name(thing);
                format!("## {name}\n\nThe {name} has the code {CODE_PREFIX}{}-{thing:03}.\n", self.run)
            })
            .collect();
        Document {
            id: "things.md".into(),
            title: "Things and their codes".into(),
            format: DocumentFormat::Markdown,
            text: sections.join("\n"),
        }
    }

    /// Returns the number of conversations.
    pub(crate) fn conversations(&self) -> u32 {
        self.conversations
    }

    /// Returns the tenant of a conversation.
    pub(crate) fn tenant_of(&self, conversation: u32) -> u32 {
        conversation % self.tenants
    }

    /// Returns the customer's phone number.
    pub(crate) fn phone(conversation: u32) -> String {
        format!("{PREFIX}{conversation:08}")
    }

    /// Returns the conversation of this phone number on this account, if it exists.
    pub(crate) fn conversation(&self, account: &AccountId, phone: &str) -> Option<u32> {
        let number = phone.strip_prefix(PREFIX).filter(|digits| digits.len() == 8)?;
        let number: u32 = number.parse().ok()?;
        let own = format!("99{:08}", self.number);
        let tenant: u32 = account.as_str().strip_prefix(&own)?.parse().ok()?;
        (number < self.conversations && tenant == self.tenant_of(number) + 1).then_some(number)
    }

    /// Returns the question about a thing.
    pub(crate) fn question(thing: u32) -> String {
        format!("Which code has the {}?", name(thing))
    }

    /// Returns the things that a reply names by codes of this run.
    pub(crate) fn things<'a>(&'a self, reply: &'a str) -> impl Iterator<Item = u32> + 'a {
        reply.split(CODE_PREFIX).skip(1).filter_map(|code| {
            let number = code.strip_prefix(self.run.as_str())?.strip_prefix('-')?.get(..3)?;
            number.parse().ok().filter(|thing| *thing < THINGS)
        })
    }
}

fn name(thing: u32) -> String {
    let thing = thing as usize;
    format!("{}{}", BEGINNINGS[thing / 8 % 8], ENDINGS[thing % 8])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn fixture(moment: u64) -> Fixture {
        Fixture::new(&Options::default(), moment, [7; 32])
    }

    #[test]
    fn tenants_are_valid_and_their_secrets_are_of_their_run() {
        let options = Options::default();
        let tenant = |number| fixture(1).tenant(number, "http://127.0.0.1:9/v21.0", &options);
        tenant(0).validate().unwrap();
        assert_eq!(tenant(0).id.as_str(), "load-000001-0001");
        assert_ne!(
            tenant(3).channels[0].account,
            fixture(2).account(3),
            "another run does not take its account"
        );
        let other = Fixture::new(&options, 1, [8; 32]);
        assert_ne!(fixture(1).secret("secret", 0), other.secret("secret", 0), "it cannot be computed");
        let secrets: BTreeSet<_> = (0..5)
            .flat_map(|number| ["token", "secret", "verify"].map(|what| fixture(1).secret(what, number)))
            .map(|secret| secret.expose().to_owned())
            .collect();
        assert_eq!(secrets.len(), 15);
    }

    #[test]
    fn a_passage_says_which_question_it_answers() {
        let fixture = fixture(0xabc);
        let text = fixture.document().text;
        for thing in 0..THINGS {
            assert_eq!(text.matches(&format!("## {}\n", name(thing))).count(), 1, "names differ");
            let passage = text.split("## ").find(|passage| passage.starts_with(&name(thing))).unwrap();
            assert_eq!(fixture.things(passage).collect::<Vec<_>>(), [thing]);
        }
        assert_eq!(fixture.things(&text).count(), 64);
        assert_eq!(fixture.things("A colleague will get back to you.").count(), 0);
        assert_eq!(fixture.things("ref-000abc-064 ref-000abc-1 ref-").count(), 0);
    }

    #[test]
    fn replies_of_an_earlier_run_are_none_of_this_one() {
        assert_eq!(fixture(2).things(&fixture(1).document().text).count(), 0);
    }

    #[test]
    fn a_conversation_is_found_by_its_number_on_its_own_account_only() {
        let fixture = fixture(1);
        for conversation in [0, 1, 19, 20, 9_999] {
            let account = fixture.account(fixture.tenant_of(conversation));
            let phone = Fixture::phone(conversation);
            assert_eq!(fixture.conversation(&account, &phone), Some(conversation));
            let other = fixture.account(fixture.tenant_of(conversation + 1));
            assert_eq!(fixture.conversation(&other, &phone), None);
        }
        assert_eq!(
            fixture.conversation(&fixture.account(0), &Fixture::phone(10_000)),
            None,
            "there are 10,000"
        );
        assert_eq!(fixture.conversation(&fixture.account(0), "16505551234"), None);
    }
}
