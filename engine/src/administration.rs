//! What an operator may do with a node: tenants and their documents, dead letters.
//!
//! One set of operations behind the admin API and behind commands on a folder that no process has open, so
//! that both answer alike.

use std::sync::Arc;

use heddle_actors::consent;
use heddle_actors::identity::{Identity, IdentityError};
use heddle_actors::ports::Ports;
use heddle_actors::tenants::{Tenants, TenantsError};
use heddle_actors::{publish, quota};
use heddle_connectors::knowledge::extract::File;
use heddle_connectors::knowledge::extract::process::{Extractor, Place};
use heddle_schemas::contact::ContactName;
use heddle_schemas::id::{ContactId, ConversationId, MessageKey, TenantId};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, KnowledgeError, Passage};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::record::V;
use heddle_schemas::record::inbound::{Handler, Handling, InboundEvent, InboundRecord};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::zone::Month;

use crate::consents::{Consents, Entry};
use crate::dead_letters::{DeadLetters, DeadLettersError};
use crate::usage::Usage;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdministrationError {
    /// There is no such tenant.
    #[error("there is no tenant {0}; `heddle tenant list` shows those there are")]
    UnknownTenant(TenantId),
    /// Nobody has been met under this name.
    #[error("tenant {0} has met nobody of this name; give the number or id as the channel shows it")]
    UnknownContact(TenantId),
    /// What is entered about a contact's consent is wrong.
    #[error("{0}")]
    Entry(String),
    /// The tenant's keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The tenant's configuration.
    #[error(transparent)]
    Tenants(#[from] TenantsError),
    /// The tenant's documents.
    #[error(transparent)]
    Knowledge(#[from] KnowledgeError),
    /// Dead letters.
    #[error(transparent)]
    DeadLetters(#[from] DeadLettersError),
    /// Log or state.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdministrationError {
    fn of(error: IdentityError, tenant: &TenantId) -> Self {
        match error {
            IdentityError::Nameless => Self::UnknownContact(tenant.clone()),
            IdentityError::Store(error) => Self::Store(error),
            IdentityError::Keys(error) => Self::Keys(error),
        }
    }

    /// Whether the same may work later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Tenants(TenantsError::Store(error))
            | Self::Knowledge(KnowledgeError::Store(error))
            | Self::DeadLetters(DeadLettersError::Store(error))
            | Self::Keys(KeysError::Store(error))
            | Self::Store(error) => error.is_transient() || matches!(error, StoreError::Closed),
            _ => false,
        }
    }
}

/// The operations.
#[derive(Clone)]
pub struct Administration {
    tenants: Arc<Tenants>,
    ports: Ports,
    identity: Arc<Identity>,
    /// What reads files.
    pub files: Arc<Extractor>,
    /// What could not be processed.
    pub dead_letters: DeadLetters,
}

impl Administration {
    /// Over these tenants, their documents and these dead letters.
    #[must_use]
    pub fn new(
        tenants: Arc<Tenants>,
        ports: Ports,
        files: Arc<Extractor>,
        dead_letters: DeadLetters,
    ) -> Self {
        let identity = Arc::new(Identity::new(ports.clone()));
        Self { tenants, ports, identity, files, dead_letters }
    }

    /// What a tenant has used in a month; without one, in the one that it is in the tenant's time zone.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn usage(&self, id: &TenantId, month: Option<Month>) -> Result<Usage, AdministrationError> {
        let tenant = self.tenant(id)?;
        let now = self.ports.clock.now();
        let month = month.unwrap_or_else(|| tenant.hours.time_zone.month(now));
        Ok(Usage::of(&quota::usage(&self.ports, &tenant, month).await?))
    }

    /// Says who answers in a conversation from now on. It is in force once what the conversation received before
    /// is worked off.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn handle(&self, conversation: ConversationId, by: Handler) -> Result<(), AdministrationError> {
        self.tenant(&conversation.tenant)?;
        let key = MessageKey::from_bytes((self.ports.random)());
        let event = InboundEvent::Handling(Handling { key, by });
        let record = InboundRecord { v: V, conversation, at: self.ports.clock.now(), event };
        self.ports.log.append(vec![publish::inbound(&self.ports, &record)]).await?;
        Ok(())
    }

    /// Makes a configuration, secrets resolved, the tenant's own.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn apply(&self, tenant: Tenant) -> Result<Arc<Tenant>, AdministrationError> {
        Ok(self.tenants.apply(tenant).await?)
    }

    /// Every tenant, by id.
    #[must_use]
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants.list()
    }

    /// One tenant.
    ///
    /// # Errors
    /// [`AdministrationError::UnknownTenant`].
    pub fn tenant(&self, id: &TenantId) -> Result<Arc<Tenant>, AdministrationError> {
        self.tenants.get(id).ok_or_else(|| AdministrationError::UnknownTenant(id.clone()))
    }

    /// The contact that people call so. Its own id is taken as it is, whether it was ever met or not.
    ///
    /// # Errors
    /// [`AdministrationError::UnknownTenant`], [`AdministrationError::UnknownContact`], and when log or state
    /// cannot be read.
    pub async fn contact(
        &self,
        id: &TenantId,
        named: &ContactName,
    ) -> Result<ContactId, AdministrationError> {
        self.tenant(id)?;
        match named {
            ContactName::Id(contact) => Ok(*contact),
            ContactName::Met(kind, address) => {
                let found = self.identity.find(id, *kind, address).await;
                let found = found.map_err(|error| AdministrationError::of(error, id))?;
                found.ok_or_else(|| AdministrationError::UnknownContact(id.clone()))
            }
        }
    }

    /// What holds for a contact.
    ///
    /// # Errors
    /// As [`Administration::contact`].
    pub async fn consents(
        &self,
        id: &TenantId,
        named: &ContactName,
    ) -> Result<Consents, AdministrationError> {
        let contact = self.contact(id, named).await?;
        self.consents_of(id, contact).await
    }

    async fn consents_of(&self, id: &TenantId, contact: ContactId) -> Result<Consents, AdministrationError> {
        let record = consent::load(&*self.ports.state, id, contact).await?;
        let cipher = self.ports.keys.tenant(id).await?;
        Ok(Consents::of(id, &*cipher, contact, &record)?)
    }

    /// Enters what a contact said. One who has never been met is made: an opt-out holds for who is written to first.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn enter(
        &self,
        id: &TenantId,
        named: &ContactName,
        entry: Entry,
    ) -> Result<Consents, AdministrationError> {
        self.tenant(id)?;
        let key = MessageKey::from_bytes((self.ports.random)());
        let statement = entry.statement(key, self.ports.clock.now()).map_err(AdministrationError::Entry)?;
        let contact = match named {
            ContactName::Id(contact) => *contact,
            ContactName::Met(kind, address) => self
                .identity
                .resolve(id, *kind, address)
                .await
                .map_err(|error| AdministrationError::of(error, id))?,
        };
        let cipher = self.ports.keys.tenant(id).await?;
        let told = consent::record(&self.ports, id, &*cipher, contact, &statement).await?;
        if !told.is_empty() {
            self.ports.log.append(told).await?;
        }
        self.consents_of(id, contact).await
    }

    /// Keeps a document.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn add(
        &self,
        id: &TenantId,
        document: Document,
    ) -> Result<DocumentSummary, AdministrationError> {
        self.tenant(id)?;
        Ok(self.ports.knowledge.put(id, document).await?)
    }

    /// Keeps what a file says; `place` is from [`Administration::files`].
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn add_file(
        &self,
        id: &TenantId,
        place: Place<'_>,
        file: File,
    ) -> Result<DocumentSummary, AdministrationError> {
        self.tenant(id)?;
        let document = self.files.document(place, file).await?;
        Ok(self.ports.knowledge.put(id, document).await?)
    }

    /// Removes a document.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn remove(&self, id: &TenantId, document: &str) -> Result<(), AdministrationError> {
        self.tenant(id)?;
        Ok(self.ports.knowledge.remove(id, document).await?)
    }

    /// A tenant's documents, by id.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn documents(&self, id: &TenantId) -> Result<Vec<DocumentSummary>, AdministrationError> {
        self.tenant(id)?;
        Ok(self.ports.knowledge.list(id).await?)
    }

    /// The passages that match best.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn search(
        &self,
        id: &TenantId,
        query: &str,
        limit: usize,
    ) -> Result<Vec<Passage>, AdministrationError> {
        self.tenant(id)?;
        Ok(self.ports.knowledge.search(id, query, limit).await?)
    }
}
