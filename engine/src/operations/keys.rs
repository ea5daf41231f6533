//! Handlers of the operations on master keys.

use heddle_api::Input;
use heddle_api::keys::{KeysStatus, RotateKeys, Rotated, ShowKeys};
use heddle_schemas::id::TenantId;
use heddle_schemas::table::Key;

use super::{Call, Handler, OperationError, Operations};
use crate::rotation;

impl Operations {
    /// Everything that has a key: the engine, and every tenant there is by now, also one that was applied on another
    /// node a moment ago.
    async fn keyed(&self) -> Result<Vec<TenantId>, OperationError> {
        self.tenants.catch_up().await?;
        let mut ids: Vec<_> = self.tenants.list().iter().map(|tenant| tenant.id.clone()).collect();
        // It is in no list of tenants, and has a key as they have, once its own audit log has begun.
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
