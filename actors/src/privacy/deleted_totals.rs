//! Totals of deleted tenants: a tenant's usage, added up where nothing leads to it.
//!
//! Contract: the usage of a deletion is added exactly once, whatever dies in between, and then neither the deletion's
//! receipt nor the totals say whose it was. The deletion takes a random name first; each month's total remembers the names
//! that were added to it until the receipt has lost its usage.

use heddle_schemas::id::{MessageKey, TenantId};
use heddle_schemas::ports::state::{Scan, StoreError, Swap};
use heddle_schemas::ports::update::Change;
use heddle_schemas::record::encode;
use heddle_schemas::table::{Key, Partition, REMOVAL_TOTALS};
use heddle_schemas::tenant_deletion::{DeletionRecord, Totals, Used};
use heddle_schemas::zone::Month;

use crate::partition::commit::read;
use crate::partition::pages::Pages;
use crate::partition::update::update;
use crate::ports::Ports;

/// Months that are read at once.
const PAGE: usize = 256;

/// Moves the usage of a complete deletion into the totals.
pub(super) async fn unlink(ports: &Ports, tenant: &TenantId) -> Result<(), StoreError> {
    loop {
        let key = Key::removal(tenant);
        let Some(stored) = read(&ports.metrics, || ports.state.get(&key)).await? else { return Ok(()) };
        let removal: DeletionRecord = parsed(&key, &stored)?;
        if removal.usage.is_empty() {
            return Ok(());
        }
        let Some(name) = removal.adding else {
            let adding = Some(MessageKey::from_bytes((ports.random)()));
            let named = encode(&DeletionRecord { adding, ..removal });
            // Another leader may have been faster: the row says.
            ports.state.compare_and_set(&key, Some(stored), Some(named), None).await?;
            continue;
        };
        for (month, used) in &removal.usage {
            add(ports, *month, *used, name).await?;
        }
        let months: Vec<_> = removal.usage.keys().copied().collect();
        let cleared = encode(&DeletionRecord { usage: Default::default(), adding: None, ..removal });
        if ports.state.compare_and_set(&key, Some(stored), Some(cleared), None).await? == Swap::Done {
            for month in months {
                forget(ports, month, name).await?;
            }
            return Ok(());
        }
    }
}

async fn add(ports: &Ports, month: Month, used: Used, name: MessageKey) -> Result<(), StoreError> {
    let key = Key::removal_totals(&month.to_string());
    update(ports, &key, |found| {
        let mut totals = found.map_or_else(|| Ok(Totals::default()), |found| parsed(&key, found))?;
        if !totals.adding.insert(name) {
            return Ok::<_, StoreError>(Change::Keep(()));
        }
        totals.used = totals.used.plus(used);
        Ok(Change::put(encode(&totals), ()))
    })
    .await
}

async fn forget(ports: &Ports, month: Month, name: MessageKey) -> Result<(), StoreError> {
    let key = Key::removal_totals(&month.to_string());
    update(ports, &key, |found| {
        let mut totals = found.map_or_else(|| Ok(Totals::default()), |found| parsed(&key, found))?;
        match totals.adding.remove(&name) {
            true => Ok::<_, StoreError>(Change::put(encode(&totals), ())),
            false => Ok(Change::Keep(())),
        }
    })
    .await
}

/// The totals of all deleted tenants, by month.
///
/// # Errors
/// [`StoreError`].
pub async fn list(ports: &Ports) -> Result<Vec<(String, Used)>, StoreError> {
    let scan = Scan {
        from: vec![REMOVAL_TOTALS].into(),
        to: Some(vec![REMOVAL_TOTALS + 1].into()),
        ..Scan::first(Partition::removals(), PAGE)
    };
    let (mut pages, mut months) = (Pages::new(ports, scan), Vec::new());
    while let Some(page) = pages.next().await? {
        for (key, stored) in page {
            let month = String::from_utf8_lossy(&key.row()[1..]).into_owned();
            months.push((month, parsed::<Totals>(&key, &stored)?.used));
        }
    }
    Ok(months)
}

fn parsed<T: serde::de::DeserializeOwned>(key: &Key, stored: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(stored)
        .map_err(|error| StoreError::Corrupt { detail: format!("{key:?}: {:?}", error.classify()) })
}
