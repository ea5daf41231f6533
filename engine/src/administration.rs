//! What an operator may do with a node: tenants and their documents, dead letters.
//!
//! One set of operations behind the admin API and behind commands on a folder that no process has open, so
//! that both answer alike.

use std::sync::Arc;

use heddle_actors::tenants::{Tenants, TenantsError};
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Knowledge, KnowledgeError, Passage};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::tenant::Tenant;

use crate::dead_letters::{DeadLetters, DeadLettersError};

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
}

impl AdministrationError {
    /// Whether the same may work later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Tenants(TenantsError::Store(error))
            | Self::Knowledge(KnowledgeError::Store(error))
            | Self::DeadLetters(DeadLettersError::Store(error)) => {
                error.is_transient() || matches!(error, StoreError::Closed)
            }
            _ => false,
        }
    }
}

/// The operations.
#[derive(Clone)]
pub struct Administration {
    tenants: Arc<Tenants>,
    knowledge: Arc<dyn Knowledge>,
    /// What could not be processed.
    pub dead_letters: DeadLetters,
}

impl Administration {
    /// Over these tenants, their documents and these dead letters.
    #[must_use]
    pub fn new(tenants: Arc<Tenants>, knowledge: Arc<dyn Knowledge>, dead_letters: DeadLetters) -> Self {
        Self { tenants, knowledge, dead_letters }
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
        Ok(self.knowledge.put(id, document).await?)
    }

    /// Removes a document.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn remove(&self, id: &TenantId, document: &str) -> Result<(), AdministrationError> {
        self.tenant(id)?;
        Ok(self.knowledge.remove(id, document).await?)
    }

    /// A tenant's documents, by id.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn documents(&self, id: &TenantId) -> Result<Vec<DocumentSummary>, AdministrationError> {
        self.tenant(id)?;
        Ok(self.knowledge.list(id).await?)
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
        Ok(self.knowledge.search(id, query, limit).await?)
    }
}
