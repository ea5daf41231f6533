//! Handlers of the operations on master keys.

use heddle_api::Input;
use heddle_api::keys::{KeysStatus, RotateKeys, Rotated, ShowKeys};
use heddle_schemas::id::TenantId;
use heddle_schemas::table::Key;

use super::{Call, Handler, OperationError, Operations};
use crate::rotation;

impl Operations {
    /// Returns every owner of a key: the engine, and every current tenant, including one that was just applied on
    /// another node.
    async fn keyed(&self) -> Result<Vec<TenantId>, OperationError> {
        self.tenants.catch_up().await?;
        let mut ids: Vec<_> = self.tenants.list().iter().map(|tenant| tenant.id.clone()).collect();
        // The engine is not in the list of tenants, but has a key as they do once its own audit log has begun.
        let engine = TenantId::engine();
        if self.ports.state.get(&Key::tenant_key(&engine)).await?.is_some() {
            ids.push(engine);
            ids.sort();
        }
        Ok(ids)
    }
}

impl Handler for ShowKeys {
    type Subject = ();

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        (): (),
    ) -> Result<KeysStatus, OperationError> {
        Ok(rotation::status(&operations.keys, operations.keyed().await?).await?)
    }
}

impl Handler for RotateKeys {
    type Subject = ();

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        (): (),
    ) -> Result<Rotated, OperationError> {
        Ok(rotation::rotate(&operations.keys, operations.keyed().await?, &input.body).await?)
    }
}
