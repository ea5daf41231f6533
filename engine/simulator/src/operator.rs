//! Operator of the node under test: gives it the tenants and documents that a scenario needs.
//!
//! The simulator and the crates on it know no way to a node themselves; who runs them brings one.

use std::future::Future;

use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::Document;
use heddle_schemas::tenant::Tenant;

/// A way to configure the node under test.
pub trait Operator: Sync {
    /// Why the node did not do it.
    type Error: Send;

    /// Makes a configuration the tenant's own.
    ///
    /// # Errors
    /// What the node says.
    fn apply(&self, tenant: Tenant) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Adds a document to a tenant's knowledge.
    ///
    /// # Errors
    /// What the node says.
    fn add(
        &self,
        tenant: &TenantId,
        document: Document,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
