//! What an operator may do with a node: tenants and their documents, dead letters.
//!
//! One set of operations behind the admin API and behind commands on a folder that no process has open, so
//! that both answer alike.

use std::sync::Arc;

use heddle_actors::ports::Ports;
use heddle_actors::tenants::{Tenants, TenantsError};
use heddle_actors::{publish, quota};
use heddle_connectors::keys::EnvelopeKeys;
use heddle_connectors::knowledge::extract::File;
use heddle_connectors::knowledge::extract::process::{Extractor, Place};
use heddle_schemas::id::{ConversationId, MessageKey, TenantId};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, KnowledgeError, Passage};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::record::V;
use heddle_schemas::record::inbound::{Handler, Handling, InboundEvent, InboundRecord};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::zone::Month;

use crate::dead_letters::{DeadLetters, DeadLettersError};
use crate::rotation::{self, KeysStatus, Rotate, Rotated};
use crate::usage::Usage;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdministrationError {
    /// There is no such tenant.
    #[error("there is no tenant {0}; `heddle tenant list` shows those there are")]
    UnknownTenant(TenantId),
    /// The tenant's configuration.
    #[error(transparent)]
    Tenants(#[from] TenantsError),
    /// The tenant's documents.
    #[error(transparent)]
    Knowledge(#[from] KnowledgeError),
    /// Dead letters.
    #[error(transparent)]
    DeadLetters(#[from] DeadLettersError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Log or state.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdministrationError {
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
    keys: Arc<EnvelopeKeys>,
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
        keys: Arc<EnvelopeKeys>,
        files: Arc<Extractor>,
        dead_letters: DeadLetters,
    ) -> Self {
        Self { tenants, ports, keys, files, dead_letters }
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

    /// Wraps the keys of tenants by the present master key, those of one page.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn rotate(&self, asked: &Rotate) -> Result<Rotated, AdministrationError> {
        Ok(rotation::rotate(&self.keys, self.ids().await?, asked).await?)
    }

    /// Which master keys wrap what.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn keys(&self) -> Result<KeysStatus, AdministrationError> {
        Ok(rotation::status(&self.keys, self.ids().await?).await?)
    }

    /// Every tenant there is by now, also if it was applied on another node a moment ago.
    async fn ids(&self) -> Result<Vec<TenantId>, AdministrationError> {
        self.tenants.catch_up().await?;
        Ok(self.tenants.list().iter().map(|tenant| tenant.id.clone()).collect())
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
