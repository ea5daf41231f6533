//! Journal of a quota lease: the highest possible cost of each attempt at a turn, written before the call outside, and
//! the turn's cost, written once it is decided.
//!
//! A row's key is quota lease, turn and attempt, so that writing it again changes nothing. Rows outlive their lease:
//! for a decided turn whose use may not be recorded, they still show it.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_schemas::id::{ChunkId, TenantId};
use heddle_schemas::ports::state::{Scan, State, StoreError, Write};
use heddle_schemas::record::encode;
use heddle_schemas::table::{Key, Partition, SpentBy};
use heddle_schemas::time::Timestamp;
use heddle_schemas::zone::{Date, Month};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::amounts::Totals;
use crate::partition::pages::Pages;
use crate::ports::Ports;

/// Retention of rows: longer after the end of their month than anything is delivered again.
pub(super) const KEPT: Duration = Duration::from_secs(45 * 86_400);
/// Rows read at once.
const PAGE: usize = 1_000;

/// Row of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Spend {
    /// The outside is about to be called for it. While nothing else is written, it counts as an interrupted attempt.
    Reserved {
        /// The tenant's date.
        day: Date,
        /// The most tokens.
        tokens: u64,
        /// The most money, in millionths.
        money: u64,
    },
    /// It is decided.
    Settled {
        /// The tenant's date.
        day: Date,
        /// Use of the turn.
        totals: Totals,
    },
    /// The quota lease was closed before: the use is recorded in this one.
    Moved {
        /// Id of the quota lease.
        chunk: ChunkId,
        /// Month of the quota lease.
        month: Month,
    },
    /// Row that a later build wrote, as it came. It counts by its `day` and `totals` where it has both, else with nothing.
    #[serde(untagged)]
    Unknown(Map<String, Value>),
}

impl Spend {
    /// Returns the use that it adds, with its day.
    pub(crate) fn counts(&self) -> Option<(Date, Totals)> {
        #[derive(Deserialize)]
        struct Use {
            day: Date,
            totals: Totals,
        }
        match *self {
            Self::Unknown(ref fields) => {
                let found = fields.values().find_map(|inside| Use::deserialize(inside).ok())?;
                Some((found.day, found.totals))
            }
            Self::Reserved { day, tokens, money } => {
                let (interrupted_tokens, interrupted_money) = (tokens, money);
                let totals =
                    Totals { interrupted: 1, interrupted_tokens, interrupted_money, ..Totals::default() };
                Some((day, totals))
            }
            Self::Settled { day, totals } => Some((day, totals)),
            // The use it was reserved with, where the quota lease was closed, has been counted there.
            Self::Moved { .. } => None,
        }
    }

    /// The write of it.
    pub(super) fn write(&self, tenant: &TenantId, chunk: ChunkId, by: &SpentBy, now: Timestamp) -> Write {
        Write::put_until(Key::spend(tenant, chunk, by), encode(self), now.after(KEPT))
    }

    fn read(key: &Key, stored: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(stored).map_err(|error| StoreError::Corrupt {
            detail: format!("{key:?}: the row of a chunk's journal does not parse: {:?}", error.classify()),
        })
    }

    /// The row, where there is one.
    pub(super) async fn get(
        state: &dyn State,
        tenant: &TenantId,
        chunk: ChunkId,
        by: &SpentBy,
    ) -> Result<Option<Self>, StoreError> {
        let key = Key::spend(tenant, chunk, by);
        state.get(&key).await?.map(|stored| Self::read(&key, &stored)).transpose()
    }
}

/// Sums up the journal of a quota lease, by day.
pub(super) async fn sum(
    ports: &Ports,
    tenant: &TenantId,
    chunk: ChunkId,
) -> Result<BTreeMap<Date, Totals>, StoreError> {
    let mut days = BTreeMap::<Date, Totals>::new();
    let mut pages = Pages::new(ports, Scan::first(Partition::spends(tenant, chunk), PAGE));
    while let Some(rows) = pages.next().await? {
        for (key, stored) in &rows {
            if let Some((day, totals)) = Spend::read(key, stored)?.counts() {
                let sum = days.entry(day).or_default();
                *sum = sum.plus(totals);
            }
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_a_later_build_is_kept_and_counts_by_its_totals() {
        let totals = Totals { turns: 1, messages: 2, ..Totals::default() };
        let day: Date = "2026-11-29".parse().unwrap();
        let stored = serde_json::json!({ "refunded": { "day": day, "totals": totals, "by": "ann" } });
        let spend: Spend = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(spend.counts(), Some((day, totals)));
        assert_eq!(serde_json::to_value(&spend).unwrap(), stored);
        let bare: Spend = serde_json::from_value(serde_json::json!({ "audited": {} })).unwrap();
        assert_eq!(bare.counts(), None);
        let settled = serde_json::to_value(Spend::Settled { day, totals }).unwrap();
        assert_eq!(serde_json::from_value::<Spend>(settled).unwrap(), Spend::Settled { day, totals });
    }
}
