//! Handlers of the operations on tenants.

use std::sync::Arc;

use heddle_actors::privacy::security::SecuritySignal;
use heddle_actors::privacy::tenant_deletion;
use heddle_actors::tenant::configuration::TenantsError;
use heddle_actors::tenant::quota;
use heddle_api::content::{Lines, List};
use heddle_api::problem::ErrorKind;
use heddle_api::tenants::{
    ApplyTenant, CompareTenant, Configuration, DeleteTenant, DisconnectChannel, ExportTenant, ListDeletions,
    ListTenants, ShowDeletion, ShowTenant, ShowUsage,
};
use heddle_api::usage::Usage;
use heddle_api::{Input, Operation};
use heddle_schemas::id::TenantId;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::tenant::changes::TenantChanges;
use heddle_schemas::tenant_deletion::DeletionRecord;

use super::{Call, Handler, OperationError, Operations, Subject};
use crate::usage;

impl Handler for ListTenants {
    type Subject = ();

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        (): (),
    ) -> Result<List<Tenant>, OperationError> {
        let tenants = operations.tenants.list();
        Ok(List { items: tenants.iter().map(|tenant| (**tenant).clone()).collect() })
    }
}

impl Handler for ShowTenant {
    type Subject = Arc<Tenant>;

    async fn run(
        _: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<Tenant, OperationError> {
        Ok((*tenant).clone())
    }
}

/// Configuration that may be applied.
pub struct Applicable;

impl<O: Operation<Body = Configuration>> Subject<O> for Applicable {
    async fn find(operations: &Operations, input: &mut Input<O>) -> Result<Self, OperationError> {
        let named = input.tenant().cloned();
        let Configuration(tenant) = &mut input.body;
        if let Some(id) = named
            && id != tenant.id
        {
            let why = format!("the path names tenant {id} and the body {}", tenant.id);
            return Err(OperationError::invalid("two_tenants", why));
        }
        // An invalid configuration must not begin an audit log.
        operations.tenants.complete(tenant)?;
        if let Some(faults) = redacted(tenant) {
            return Err(OperationError::invalid("redacted_secret", faults));
        }
        match tenant_deletion::find(&operations.ports, &tenant.id).await? {
            Some(_) => Err(deleted(&tenant.id)),
            None => Ok(Self),
        }
    }
}

/// Returns a fault for each secret that is the placeholder of a shown configuration. The stored secret is not kept
/// instead: with another `api_base` it would be sent to another server.
pub(crate) fn redacted(tenant: &mut Tenant) -> Option<String> {
    let placeholders = tenant.secrets_mut().into_iter().filter(|(_, secret)| secret.expose() == "[redacted]");
    let faults: Vec<_> = placeholders
        .map(|(place, _)| {
            format!("{place}: is \"[redacted]\", the placeholder of a shown configuration; write the secret itself")
        })
        .collect();
    (!faults.is_empty()).then(|| faults.join("\n"))
}

/// Creates the error of a tenant that is deleted or being deleted.
pub(super) fn deleted(tenant: &TenantId) -> OperationError {
    let why =
        format!("tenant {tenant} was deleted, and its id cannot be used again: apply it under another id");
    OperationError::new(ErrorKind::Conflict, "tenant_deleted", why)
}

impl Handler for CompareTenant {
    type Subject = Applicable;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        _: Applicable,
    ) -> Result<TenantChanges, OperationError> {
        let Configuration(tenant) = input.body;
        // Another node may have applied it just now.
        operations.tenants.catch_up().await?;
        Ok(match operations.tenants.get(&tenant.id) {
            Some(present) => TenantChanges { is_new: false, changes: present.changes(&tenant) },
            None => TenantChanges { is_new: true, changes: Vec::new() },
        })
    }
}

impl Handler for ApplyTenant {
    type Subject = Applicable;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        _: Applicable,
    ) -> Result<Tenant, OperationError> {
        let applied = operations.tenants.apply(input.body.0).await;
        if let Err(TenantsError::Taken { kind, account }) = &applied
            && let Some(owner) = operations.tenants.by_account(*kind, account)
        {
            operations.ports.security.saw(Some(&owner.id), SecuritySignal::CrossTenant);
        }
        Ok((*applied?).clone())
    }
}

/// Deletion of a tenant: one in progress or complete, or (`None`) one to begin.
pub struct Deletion(Option<DeletionRecord>);

impl Subject<DeleteTenant> for Deletion {
    async fn find(operations: &Operations, input: &mut Input<DeleteTenant>) -> Result<Self, OperationError> {
        let id = &input.path.tenant;
        let found = tenant_deletion::find(&operations.ports, id).await?;
        if found.is_none() {
            // Another node may have applied it just now.
            operations.tenants.catch_up().await?;
            operations.tenant(id)?;
        }
        Ok(Self(found))
    }

    fn is_settled(&self) -> bool {
        self.0.is_some()
    }
}

impl Handler for DeleteTenant {
    type Subject = Deletion;

    /// The tenant is stopped and its key is destroyed when this returns. The deletion of its rows goes on, and the node
    /// that removes the last one records the completion in the audit log of the installation.
    async fn run(
        operations: &Operations,
        call: Call<'_>,
        input: Input<Self>,
        Deletion(found): Deletion,
    ) -> Result<DeletionRecord, OperationError> {
        if let Some(deletion) = found {
            return Ok(deletion);
        }
        let began = call.began.unwrap_or_default();
        let Operations { ports, tenants, .. } = operations;
        Ok(tenant_deletion::ask(ports, tenants, &input.path.tenant, began).await?)
    }
}

impl Handler for ExportTenant {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        call: Call<'_>,
        _: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<Lines, OperationError> {
        Ok(Lines(operations.export_tenant(call, tenant)))
    }
}

impl Handler for ListDeletions {
    type Subject = ();

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        (): (),
    ) -> Result<List<DeletionRecord>, OperationError> {
        Ok(List { items: tenant_deletion::list(&operations.ports).await? })
    }
}

impl Handler for ShowDeletion {
    type Subject = ();

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        (): (),
    ) -> Result<DeletionRecord, OperationError> {
        let id = &input.path.tenant;
        let found = tenant_deletion::find(&operations.ports, id).await?;
        found.ok_or_else(|| OperationError::not_deleted(id))
    }
}

impl Handler for DisconnectChannel {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        _: Arc<Tenant>,
    ) -> Result<Tenant, OperationError> {
        Ok((*operations.tenants.disconnect(&input.path.key()).await?).clone())
    }
}

impl Handler for ShowUsage {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<Usage, OperationError> {
        let now = operations.ports.clock.now();
        let month = input.query.month.unwrap_or_else(|| tenant.hours.time_zone.month(now));
        Ok(usage::shown(&quota::usage(&operations.ports, &tenant, month).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        id = "acme"
        name = "Acme"
        [[channels]]
        kind = "whatsapp"
        account = "1001"
        access_token = "t0ken"
        app_secret = "s3cret"
        verify_token = "verify"
    "#;

    #[test]
    fn a_shown_configuration_is_refused_with_every_redacted_secret() {
        let mut tenant = Tenant::from_toml(FILE).unwrap();
        assert_eq!(redacted(&mut tenant), None);
        let mut shown = Tenant::from_toml(&toml::to_string(&tenant).unwrap()).unwrap();
        let faults = redacted(&mut shown).unwrap();
        for field in ["access_token", "app_secret", "verify_token"] {
            assert!(
                faults.contains(&format!("channels.whatsapp.1001.{field}: is \"[redacted]\"")),
                "{faults}"
            );
        }
        assert_eq!(faults.lines().count(), 3, "an empty secret is not redacted: {faults}");
    }
}
