//! Builder of a tenant's configuration from its file's form, so that tests use the form that operators write.

use std::fmt::Write as _;

use heddle_schemas::tenant::Tenant;

/// Builder of a tenant: no accounts, fallback `f`, no settle delay.
#[derive(Debug, Clone)]
pub struct TenantBuilder {
    id: String,
    settle: String,
    fallback: String,
    agent: String,
    channels: String,
    more: String,
}

impl TenantBuilder {
    /// Returns the builder of a tenant with this id.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            settle: "0s".to_owned(),
            fallback: "f".to_owned(),
            agent: String::new(),
            channels: String::new(),
            more: String::new(),
        }
    }

    /// Adds a WhatsApp account with secrets named after the tenant.
    #[must_use]
    pub fn account(mut self, account: &str) -> Self {
        let id = &self.id;
        write!(
            self.channels,
            "[[channels]]\nkind = \"whatsapp\"\naccount = \"{account}\"\naccess_token = \"token-of-{id}\"\n\
             app_secret = \"secret-of-{id}\"\nverify_token = \"verify-of-{id}\"\n"
        )
        .unwrap();
        self
    }

    /// Sets the settle delay, for example `100ms`.
    #[must_use]
    pub fn settle(mut self, settle: &str) -> Self {
        settle.clone_into(&mut self.settle);
        self
    }

    /// Sets the fallback text.
    #[must_use]
    pub fn fallback(mut self, fallback: &str) -> Self {
        fallback.clone_into(&mut self.fallback);
        self
    }

    /// Adds lines to the section `[agent]`.
    #[must_use]
    pub fn agent(mut self, lines: &str) -> Self {
        writeln!(self.agent, "{lines}").unwrap();
        self
    }

    /// Adds further sections, as the file has them.
    #[must_use]
    pub fn more(mut self, sections: &str) -> Self {
        writeln!(self.more, "{sections}").unwrap();
        self
    }

    /// The tenant.
    ///
    /// # Panics
    /// When the file would be refused.
    #[must_use]
    pub fn build(&self) -> Tenant {
        let Self { id, settle, fallback, agent, channels, more } = self;
        let file = format!(
            "id = \"{id}\"\nname = \"{id}\"\n[agent]\nfallback = \"{fallback}\"\nsettle = \"{settle}\"\n{agent}\
             {channels}{more}"
        );
        Tenant::from_toml(&file).unwrap_or_else(|error| panic!("{error}\n{file}"))
    }
}
