//! Ledger of a tenant's month: spent amounts, the nodes' quota leases, and the use by day.
//!
//! It is one row, changed by conditional update only. Contract: the spent and the leased amounts together are never
//! more than the limit under which a quota lease was granted. A quota lease is closed once, and its journal is added up
//! in the same step that removes it from the list.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heddle_schemas::id::ChunkId;
use heddle_schemas::lenient::Lenient;
use heddle_schemas::tenant::Resource;
use heddle_schemas::time::Timestamp;
use heddle_schemas::zone::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::amounts::{Amounts, Totals};

/// Largest part of the rest that one quota lease takes.
const PART: u64 = 8;
/// Time after its end at which an open quota lease is closed by others: clocks differ, and writes under way land.
const GRACE: Duration = Duration::from_secs(30);

/// Open quota lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Open {
    /// Id of the quota lease.
    pub(super) id: ChunkId,
    /// Amount of each resource.
    pub(super) size: Amounts,
    /// Time until which it may be used.
    pub(super) until: Timestamp,
    /// Its use is being added up; nothing more is recorded for it. Any node that finds it may finish that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) closing: Option<Closing>,
}

/// Way in which a quota lease is being closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Closing {
    /// By its holder, which knows the number of messages taken by turns that never settled.
    Own {
        /// Messages.
        unsettled: u64,
    },
    /// By another node, long after its end.
    Others,
}

impl Open {
    /// Returns true when its node must be dead: it has closed the lease neither in time nor a while after.
    #[must_use]
    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        self.until.after(GRACE) < now
    }
}

/// The ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Version of this form.
    pub(super) v: u16,
    /// Amounts spent for good.
    pub(super) spent: Amounts,
    /// Messages of quota leases whose node died: it is unknown of each whether it was sent, so they count as spent.
    #[serde(default)]
    pub(super) lost: u64,
    /// Open quota leases.
    #[serde(default)]
    pub(super) open: Vec<Open>,
    /// Use by the tenant's date.
    #[serde(default)]
    pub(super) days: BTreeMap<Date, Totals>,
    /// Resources of which the tenant has been warned.
    #[serde(default)]
    pub(super) warned: BTreeSet<Lenient<Resource>>,
    /// Resources that were reported as spent. Read by builds that do not know `spent_at`.
    #[serde(default)]
    pub(super) told: BTreeSet<Lenient<Resource>>,
    /// The limit at which each was reported as spent: once for each limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) spent_at: BTreeMap<Lenient<Resource>, u64>,
    /// The largest limit under which a quota lease was granted: a plan that is lowered below what was used breaks no promise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) granted: Option<Amounts>,
    /// Fields that this build does not know: a node of a later one, beside it, wrote them, and finds them again.
    #[serde(flatten)]
    pub(super) others: Map<String, Value>,
}

impl Ledger {
    /// The version that this build writes.
    pub(super) const VERSION: u16 = 1;

    /// Returns the ledger of a month without use.
    #[must_use]
    pub(super) fn new() -> Self {
        Self { v: Self::VERSION, ..Self::default() }
    }

    /// Returns the spent and the leased amounts.
    #[must_use]
    pub(super) fn taken(&self) -> Amounts {
        self.open.iter().fold(self.spent, |sum, open| sum.plus(open.size))
    }

    /// Grants a quota lease: at least `need`, and `wanted` where there is plenty. The less is left, the smaller it is,
    /// down to the need of a single turn.
    ///
    /// # Errors
    /// The resource of which less than the need is left.
    pub(super) fn grant(
        &mut self,
        limit: Amounts,
        need: Amounts,
        wanted: Amounts,
        id: ChunkId,
        until: Timestamp,
    ) -> Result<Amounts, Resource> {
        let free = limit.minus(self.taken());
        if let Some(short) = free.short_of(need) {
            return Err(short);
        }
        let size = need.most(wanted.least(free.part(PART)));
        self.open.push(Open { id, size, until, closing: None });
        self.granted = Some(self.granted.map_or(limit, |granted| granted.most(limit)));
        Ok(size)
    }

    /// Returns the quota lease while it is open.
    #[must_use]
    pub(super) fn find(&self, id: ChunkId) -> Option<&Open> {
        self.open.iter().find(|open| open.id == id)
    }

    /// Marks a quota lease as closing: no more use may be recorded for it. Returns true if that is new.
    pub(super) fn begin_closing(&mut self, id: ChunkId, closing: Closing) -> bool {
        let found = self.open.iter_mut().find(|open| open.id == id && open.closing.is_none());
        found.map(|open| open.closing = Some(closing)).is_some()
    }

    /// Closes a quota lease of which this much is spent. Returns true if it was open.
    pub(super) fn close(&mut self, id: ChunkId, spent: Amounts, days: &BTreeMap<Date, Totals>) -> bool {
        let Some(at) = self.open.iter().position(|open| open.id == id) else { return false };
        self.open.remove(at);
        self.spent = self.spent.plus(spent);
        for (day, totals) in days {
            let sum = self.days.entry(*day).or_default();
            *sum = sum.plus(*totals);
        }
        true
    }

    /// Returns a quota lease whose node must be dead.
    #[must_use]
    pub(super) fn overdue(&self, now: Timestamp) -> Option<&Open> {
        self.open.iter().find(|open| open.is_overdue(now))
    }

    /// Returns the resources of which this percentage of the limit is spent and the tenant has not been warned.
    /// `unclosed` is the use of open quota leases; reservations for turns to come do not count.
    pub(super) fn warnings(
        &self,
        limit: Amounts,
        percent: u8,
        unclosed: Amounts,
    ) -> impl Iterator<Item = Resource> + use<> {
        let spent = self.spent.plus(unclosed);
        let over = move |resource: &Resource| {
            let (spent, limit) = (u128::from(spent.of(*resource)), u128::from(limit.of(*resource)));
            limit != u128::from(u64::MAX) && spent * 100 >= limit * u128::from(percent)
        };
        let warned = self.warned.clone();
        Resource::ALL
            .into_iter()
            .filter(move |resource| !warned.contains(&Lenient::Known(*resource)) && over(resource))
    }

    /// Returns true when a resource that is spent was reported at this limit.
    #[must_use]
    pub(super) fn is_reported(&self, resource: Resource, limit: u64) -> bool {
        match self.spent_at.get(&Lenient::Known(resource)) {
            Some(at) => *at == limit,
            // By a build that did not note the limit.
            None => self.told.contains(&Lenient::Known(resource)),
        }
    }

    /// Notes that a resource was reported as spent. Returns whether that is new.
    pub(super) fn report_spent(&mut self, resource: Resource, limit: u64) -> bool {
        let is_new = !self.is_reported(resource, limit);
        self.told.insert(resource.into());
        self.spent_at.insert(resource.into(), limit);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages(messages: u64) -> Amounts {
        Amounts { messages, ..Amounts::NONE }
    }

    fn id(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; 16])
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    #[test]
    fn what_a_later_build_wrote_outlives_a_change_by_this_one() {
        let stored = r#"{"v":1,"spent":{"messages":1,"tokens":0,"money":0},"warned":["joules","messages"],"told":["joules"],"carbon":{"grams":7}}"#;
        let mut ledger: Ledger = serde_json::from_str(stored).unwrap();
        ledger.warned.insert(Resource::Tokens.into());
        let written = serde_json::to_value(&ledger).unwrap();
        assert_eq!(written["warned"], serde_json::json!(["messages", "tokens", "joules"]));
        assert_eq!(written["told"], serde_json::json!(["joules"]));
        assert_eq!(written["carbon"]["grams"], 7);
    }

    #[test]
    fn chunks_shrink_to_one_near_the_limit() {
        let mut ledger = Ledger::new();
        let mut sizes = Vec::new();
        for number in 0.. {
            match ledger.grant(messages(100), messages(1), messages(32), id(number), at(60)) {
                Ok(size) => sizes.push(size.messages),
                Err(short) => {
                    assert_eq!(short, Resource::Messages);
                    break;
                }
            }
        }
        assert_eq!(sizes.iter().sum::<u64>(), 100, "all of it can be had");
        assert_eq!(sizes[..3], [12, 11, 9]);
        assert_eq!(sizes[sizes.len() - 8..], [1; 8]);
    }

    #[test]
    fn a_chunk_is_closed_once() {
        let mut ledger = Ledger::new();
        ledger.grant(messages(100), messages(1), messages(8), id(1), at(60)).unwrap();
        let day = "2026-11-26".parse().unwrap();
        let used = BTreeMap::from([(day, Totals { turns: 3, messages: 3, ..Totals::default() })]);
        assert!(ledger.close(id(1), messages(3), &used));
        assert!(!ledger.close(id(1), messages(3), &used));
        assert_eq!((ledger.spent, ledger.days[&day].turns), (messages(3), 3));
    }

    #[test]
    fn a_chunk_is_overdue_a_while_after_its_end() {
        let mut ledger = Ledger::new();
        ledger.grant(messages(100), messages(1), messages(8), id(1), at(60)).unwrap();
        assert_eq!(ledger.overdue(at(90)), None);
        assert_eq!(ledger.overdue(at(91)).map(|open| open.id), Some(id(1)));
    }

    #[test]
    fn a_tenant_near_the_limit_is_warned_once_and_one_without_a_limit_never() {
        let mut ledger =
            Ledger { spent: Amounts { messages: 80, tokens: 79, money: 1_000 }, ..Ledger::new() };
        let limit = Amounts { messages: 100, tokens: 100, money: u64::MAX };
        let warnings = |ledger: &Ledger| ledger.warnings(limit, 80, Amounts::NONE).collect::<Vec<_>>();
        assert_eq!(warnings(&ledger), [Resource::Messages]);
        ledger.warned.insert(Resource::Messages.into());
        assert_eq!(warnings(&ledger), []);
    }

    #[test]
    fn reservations_warn_of_nothing_and_their_spent_part_does() {
        let mut ledger = Ledger::new();
        ledger.grant(messages(100), messages(90), messages(90), id(1), at(60)).unwrap();
        let limit = Amounts { messages: 100, tokens: u64::MAX, money: u64::MAX };
        let warnings = |spent| ledger.warnings(limit, 80, messages(spent)).collect::<Vec<_>>();
        assert_eq!((warnings(2), warnings(79)), (vec![], vec![]));
        assert_eq!(warnings(80), [Resource::Messages]);
    }

    #[test]
    fn a_spent_resource_is_reported_once_for_each_limit() {
        let mut ledger = Ledger::new();
        assert!(ledger.report_spent(Resource::Messages, 100));
        // Some of it is given back, granted and spent again.
        ledger.grant(messages(100), messages(1), messages(1), id(1), at(60)).unwrap();
        assert!(!ledger.report_spent(Resource::Messages, 100));
        assert!(ledger.report_spent(Resource::Messages, 200), "the plan was raised");
        assert!(ledger.report_spent(Resource::Tokens, 100));
        let older = Ledger { told: [Resource::Messages.into()].into(), ..Ledger::new() };
        assert!(older.is_reported(Resource::Messages, 7));
    }

    proptest! {
        /// For grants and closings in any order: the taken amounts stay within the limit, and the use of each quota
        /// lease is counted once.
        #[test]
        fn no_more_is_taken_than_the_limit(
            limit in 0_u64..400,
            steps in proptest::collection::vec((any::<bool>(), 0_u64..20, 0_u64..64, any::<prop::sample::Index>()), 1..120),
        ) {
            let mut ledger = Ledger::new();
            let mut spent = 0;
            for (number, (grants, need, wanted, which)) in (0_u8..).zip(steps) {
                if grants {
                    let free = limit - ledger.taken().messages;
                    let granted = ledger.grant(messages(limit), messages(need), messages(wanted), id(number), at(0));
                    prop_assert_eq!(granted.is_ok(), need <= free);
                } else if !ledger.open.is_empty() {
                    let open = which.get(&ledger.open).clone();
                    let used = need.min(open.size.messages);
                    prop_assert!(ledger.close(open.id, messages(used), &BTreeMap::new()));
                    spent += used;
                }
                prop_assert!(ledger.taken().messages <= limit);
                prop_assert_eq!(ledger.spent.messages, spent);
            }
        }
    }
}
