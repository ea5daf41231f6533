//! Usage of a tenant in a month.

use std::collections::BTreeMap;

use heddle_schemas::id::TenantId;
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::zone::{Date, Month};
use serde::Serialize;

use super::amounts::{Amounts, Totals};
use super::lease_cache::ChunkOf;
use super::{Quotas, journal};
use crate::ports::Ports;

/// Use of a tenant in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The month, in the tenant's time zone.
    pub month: Month,
    /// Limit; of money, millionths.
    pub limit: Amounts,
    /// The largest limit that the month has had while something was granted; `None` where that is not known.
    pub granted: Option<Amounts>,
    /// Amounts that count as spent.
    pub spent: Amounts,
    /// Messages of that which a dead node may have sent or not.
    pub lost_messages: u64,
    /// Amounts that nodes have leased beside that for turns to come.
    pub set_aside: Amounts,
    /// Use by the tenant's date.
    pub days: BTreeMap<Date, Totals>,
}

impl Usage {
    /// Returns the use of the month.
    #[must_use]
    pub fn total(&self) -> Totals {
        self.days.values().fold(Totals::default(), |sum, day| sum.plus(*day))
    }
}

/// Returns a tenant's use in a month, including that of quota leases that are not closed yet. Closes those of dead
/// nodes.
///
/// # Errors
/// [`StoreError`].
pub async fn usage(ports: &Ports, tenant: &Tenant, month: Month) -> Result<Usage, StoreError> {
    let limit = Amounts::limit(&tenant.quota);
    Ok(Usage { limit, ..usage_of(ports, &tenant.id, month).await? })
}

/// Returns the use by turns in a month, of a tenant that may have no configuration any more.
///
/// # Errors
/// [`StoreError`].
pub async fn used(ports: &Ports, tenant: &TenantId, month: Month) -> Result<Totals, StoreError> {
    Ok(usage_of(ports, tenant, month).await?.total())
}

pub(super) async fn usage_of(ports: &Ports, tenant: &TenantId, month: Month) -> Result<Usage, StoreError> {
    let quotas = Quotas::new(ports.clone());
    let key = Key::quota(tenant, &month.to_string());
    let ledger = loop {
        let ledger = quotas.ledger(&key).await?;
        match ledger.overdue(ports.clock.now()) {
            Some(dead) => {
                let dead = ChunkOf { id: dead.id, month };
                quotas.close_dead(tenant, dead).await?;
            }
            None => break ledger,
        }
    };
    let (mut days, mut spent, mut set_aside) = (ledger.days.clone(), ledger.spent, Amounts::NONE);
    for open in &ledger.open {
        let used = journal::sum(ports, tenant, open.id).await?;
        let mut of_chunk = Amounts::NONE;
        for (day, totals) in used {
            let sum = days.entry(day).or_default();
            *sum = sum.plus(totals);
            of_chunk = of_chunk.plus(totals.amounts());
        }
        spent = spent.plus(of_chunk);
        set_aside = set_aside.plus(open.size.minus(of_chunk));
    }
    let limit = Amounts::NONE;
    let (granted, lost_messages) = (ledger.granted, ledger.lost);
    Ok(Usage { month, limit, granted, spent, lost_messages, set_aside, days })
}
