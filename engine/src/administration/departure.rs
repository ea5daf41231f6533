//! What is done when a tenant leaves: it is deleted, and what is left is a receipt.

use heddle_actors::privacy::tenant_deletion::{self, RemovalError};
use heddle_schemas::audit::{Outcome, What};
use heddle_schemas::id::TenantId;
use heddle_schemas::removal::Removal;

use super::{Administration, AdministrationError};

impl From<RemovalError> for AdministrationError {
    fn from(error: RemovalError) -> Self {
        match error {
            RemovalError::Store(error) => Self::Store(error),
            RemovalError::Keys(error) => Self::Keys(error),
            RemovalError::Tenants(error) => Self::Tenants(error),
            RemovalError::Knowledge(error) => Self::Knowledge(error),
            RemovalError::Audit(error) => Self::Audit(error),
        }
    }
}

impl Administration {
    /// Deletes a tenant: it has stopped, and its key is destroyed, when this returns; its rows are under way. That it
    /// began, and later that it is done, stands in the audit log of no tenant. Asking again changes nothing, and shows
    /// how far it has come.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn delete(&self, id: &TenantId) -> Result<Removal, AdministrationError> {
        if let Some(removal) = tenant_deletion::find(&self.ports, id).await? {
            return Ok(removal);
        }
        // It may have been applied on another node a moment ago.
        self.tenants.catch_up().await?;
        self.tenant(id)?;
        let what = What::TenantErase { tenant: id.clone() };
        let began = self.record(None, what.clone(), Outcome::Begun).await?.body.number;
        let asked = tenant_deletion::ask(&self.ports, &self.tenants, id, began).await;
        let asked = asked.map_err(AdministrationError::from);
        if let Err(error) = &asked
            && let Err(unwritten) = self.record_of(None, what, error.outcome(), Some(began)).await
        {
            tracing::error!(error = %unwritten, number = began, "the outcome of an operation is not in the audit log");
        }
        asked
    }

    /// Every deletion of a tenant, by id.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn deletions(&self) -> Result<Vec<Removal>, AdministrationError> {
        Ok(tenant_deletion::list(&self.ports).await?)
    }

    /// How far the deletion of a tenant has come; complete, it is the receipt.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn deletion(&self, id: &TenantId) -> Result<Removal, AdministrationError> {
        let found = tenant_deletion::find(&self.ports, id).await?;
        found.ok_or_else(|| AdministrationError::NotDeleted(id.clone()))
    }

    /// That a tenant of this id may be applied.
    pub(super) async fn may_be_applied(&self, id: &TenantId) -> Result<(), AdministrationError> {
        match tenant_deletion::find(&self.ports, id).await? {
            Some(_) => Err(AdministrationError::Deleted(id.clone())),
            None => Ok(()),
        }
    }
}
