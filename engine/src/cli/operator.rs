//! Operator of a scenario that uses the admin API.

use heddle_api::Nothing;
use heddle_api::operation::NoParameters;
use heddle_api::tenants::{DeleteTenant, OfTenant};
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::Document;
use heddle_schemas::tenant::Tenant;
use heddle_simulator::operator::Operator;

use super::Failure;
use super::admin::Admin;

impl Operator for Admin {
    type Error = Failure;

    async fn apply(&self, tenant: Tenant) -> Result<(), Failure> {
        Self::apply(self, tenant).await.map(drop)
    }

    async fn remove(&self, tenant: &TenantId) -> Result<(), Failure> {
        let path = OfTenant { tenant: tenant.clone() };
        self.call(DeleteTenant, path, NoParameters {}, Nothing).await.map(drop)
    }

    async fn add(&self, tenant: &TenantId, document: Document) -> Result<(), Failure> {
        Self::add(self, tenant, document).await.map(drop)
    }
}
