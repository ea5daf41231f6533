//! Rotation of the master key for all tenants of a node, and the status of all master keys.
//!
//! A rotation works by pages in the order of the tenants' ids, so that a request ends in time and an interrupted
//! rotation can resume. The row by which the store checks its master key comes last, once no tenant's key is
//! wrapped with another: until then a node without the previous key refuses to start.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use heddle_api::keys::{Failed, KeysStatus, MasterStatus, Role, Rotate, Rotated};
use heddle_connectors::keys::{EnvelopeKeys, Rewrapped, WrappedBy};
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::keys::KeysError;

/// Number of tenants whose keys are rewrapped concurrently.
const AT_ONCE: usize = 16;
/// Maximum number of tenants of a request.
pub const MOST: usize = 500;

/// Rewraps the keys of a page of `tenants`, which must be sorted.
///
/// # Errors
/// When a new version cannot be created, or the state of the keys cannot be read.
pub async fn rotate(
    keys: &Arc<EnvelopeKeys>,
    tenants: Vec<TenantId>,
    asked: &Rotate,
) -> Result<Rotated, KeysError> {
    if asked.new_version {
        keys.masters().present().new_version().await?;
    }
    let limit = asked.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MOST).clamp(1, MOST);
    let mut left = tenants.iter().filter(|id| asked.after.as_ref().is_none_or(|after| *id > after));
    let page: Vec<_> = left.by_ref().take(limit).cloned().collect();
    let next = left.next().and(page.last()).cloned();
    let mut rotated = Rotated { next, ..Rotated::default() };
    let done = stream::iter(page).map(|id| async { (keys.rewrap_tenant(&id).await, id) });
    let mut done = done.buffer_unordered(AT_ONCE);
    while let Some((result, tenant)) = done.next().await {
        match result {
            Ok(Rewrapped::Done) => rotated.rewrapped += 1,
            Ok(Rewrapped::Already) => rotated.already += 1,
            Ok(Rewrapped::Erased) => rotated.erased += 1,
            Ok(Rewrapped::Missing) => rotated.missing += 1,
            Err(error) => rotated.failed.push(Failed { tenant, why: error.to_string() }),
        }
    }
    drop(done);
    rotated.failed.sort_by(|one, other| one.tenant.cmp(&other.tenant));
    if rotated.next.is_none() && rotated.failed.is_empty() {
        rotated.complete = finish(keys, tenants).await?;
    }
    Ok(rotated)
}

/// Rewraps the store's own row once no other key is left. Returns whether none is.
async fn finish(keys: &Arc<EnvelopeKeys>, tenants: Vec<TenantId>) -> Result<bool, KeysError> {
    let present = keys.masters().present().number();
    let wrapped = wrapped(keys, tenants).await;
    let is_present = |by: &WrappedBy| match by {
        WrappedBy::Master { number, .. } => *number == present,
        WrappedBy::Erased | WrappedBy::Missing => true,
    };
    if !wrapped.iter().all(|(_, by)| by.as_ref().is_ok_and(is_present)) {
        return Ok(false);
    }
    keys.rewrap_check().await?;
    let newest = keys.check_wrapped_by().await?;
    Ok(wrapped
        .iter()
        .filter_map(|(_, by)| by.as_ref().ok())
        .all(|by| matches!(by, WrappedBy::Erased | WrappedBy::Missing) || *by == newest))
}

/// Returns the status of all master keys.
///
/// # Errors
/// [`KeysError::Store`].
pub async fn status(keys: &Arc<EnvelopeKeys>, tenants: Vec<TenantId>) -> Result<KeysStatus, KeysError> {
    let mut status = KeysStatus { masters: Vec::new(), erased: 0, missing: 0, failed: Vec::new() };
    // By number and version: the number of tenants, and whether the store's own row is included.
    let mut counted: BTreeMap<(u32, Option<u32>), (u64, bool)> = BTreeMap::new();
    for (tenant, by) in wrapped(keys, tenants).await {
        match by {
            Ok(WrappedBy::Master { number, version }) => counted.entry((number, version)).or_default().0 += 1,
            Ok(WrappedBy::Erased) => status.erased += 1,
            Ok(WrappedBy::Missing) => status.missing += 1,
            Err(error) => status.failed.push(Failed { tenant, why: error.to_string() }),
        }
    }
    if let WrappedBy::Master { number, version } = keys.check_wrapped_by().await? {
        counted.entry((number, version)).or_default().1 = true;
    }
    for master in keys.masters().all() {
        if !counted.keys().any(|(number, _)| *number == master.number()) {
            counted.insert((master.number(), None), (0, false));
        }
    }
    let present = keys.masters().present().number();
    let masters = counted.into_iter().map(|((number, version), (tenants, store))| {
        let known = keys.masters().known(number);
        let role = match known {
            Some(_) if number == present => Role::Present,
            Some(_) => Role::Former,
            None => Role::Unknown,
        };
        let kept = known.map(|master| master.name().to_owned());
        MasterStatus { id: format!("{number:08x}"), version, role, kept, tenants, store }
    });
    status.masters = masters.collect();
    status.masters.sort_by_key(|master| master.role);
    Ok(status)
}

async fn wrapped(
    keys: &Arc<EnvelopeKeys>,
    tenants: Vec<TenantId>,
) -> Vec<(TenantId, Result<WrappedBy, KeysError>)> {
    let asked = stream::iter(tenants).map(|id| async { (keys.tenant_wrapped_by(&id).await, id) });
    let mut wrapped: Vec<_> = asked.buffer_unordered(AT_ONCE).map(|(by, id)| (id, by)).collect().await;
    wrapped.sort_by(|(one, _), (other, _)| one.cmp(other));
    wrapped
}
