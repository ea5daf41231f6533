//! Operator of the node under test: applies the tenants and documents that a scenario needs.
//!
//! The simulator and the crates based on it cannot configure a node themselves; the caller supplies an operator.

use std::future::Future;

use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::Document;
use heddle_schemas::tenant::Tenant;

/// Port to configure the node under test.
pub trait Operator: Sync {
    /// Error of the node.
    type Error: Send;

    /// Applies a tenant's configuration.
    ///
    /// # Errors
    /// The node's error.
    fn apply(&self, tenant: Tenant) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Deletes a tenant.
    ///
    /// # Errors
    /// The node's error.
    fn remove(&self, tenant: &TenantId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Adds a document to a tenant's knowledge.
    ///
    /// # Errors
    /// The node's error.
    fn add(
        &self,
        tenant: &TenantId,
        document: Document,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
