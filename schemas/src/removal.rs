//! How far the deletion of a tenant has come, and what is left of it: a receipt.
//!
//! The tenant stops first: no node knows it any more, nothing of it is taken in or sent. Then its key is destroyed, and
//! with it all that was sealed under it or under a key below it, in rows, topics and backups alike. Then its rows are
//! counted, and walked over again and again until none is found. What stays is this: the id, times, and sums of which
//! no person can be told. An id is not given out twice.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::erasure::DEADLINE;
use crate::id::TenantId;
use crate::money::Money;
use crate::time::Timestamp;
use crate::zone::Month;

/// How long after its key is destroyed something of a tenant may still be under way: a node may have kept the key for
/// a minute, a turn may wait for an answer, a chunk of its quota may not be given back.
pub const SETTLES: Duration = Duration::from_secs(300);

/// The deletion of a tenant, as it is stored and told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removal {
    /// Which.
    pub tenant: TenantId,
    /// When it was asked for, microseconds since 1970.
    pub requested_at: Timestamp,
    /// When it has to be complete.
    pub deadline: Timestamp,
    /// The entry of the audit log of no tenant that tells who asked, and why.
    pub entry: u64,
    /// When its key was destroyed: nothing that it sealed can be read from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_destroyed_at: Option<Timestamp>,
    /// How many rows there were in each table, once they are counted; what has a time to live and was over it is not
    /// among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<BTreeMap<String, u64>>,
    /// What was used, by month. It is kept.
    #[serde(default)]
    pub usage: BTreeMap<Month, Used>,
    /// The walk over its rows that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<Stand>,
    /// When a walk found none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

/// What turns of a month have used. It names nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Used {
    /// Turns that were decided.
    pub turns: u64,
    /// Messages that they said.
    pub messages: u64,
    /// Tokens sent to language models, and received.
    pub tokens: u64,
    /// What they cost.
    pub money: Money,
}

/// Where a walk over the rows stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stand {
    /// When it began.
    pub began_at: Timestamp,
    /// How many rows it has found so far, by table.
    #[serde(default)]
    pub found: BTreeMap<String, u64>,
    /// Behind what it goes on, in hexadecimal digits; none at the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl Removal {
    /// One that is asked for now.
    #[must_use]
    pub fn new(tenant: TenantId, now: Timestamp, entry: u64) -> Self {
        Self {
            tenant,
            requested_at: now,
            deadline: now.after(DEADLINE),
            entry,
            key_destroyed_at: None,
            rows: None,
            usage: BTreeMap::new(),
            walk: None,
            completed_at: None,
        }
    }

    /// Whether all of it is done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.completed_at.is_some()
    }

    /// Whether it is not complete though it had to be by now.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        !self.is_complete() && now > self.deadline
    }

    /// Whether nothing of the tenant can be under way any more.
    #[must_use]
    pub fn has_settled(&self, at: Timestamp) -> bool {
        self.key_destroyed_at.is_some_and(|destroyed| at.since(destroyed) >= SETTLES)
    }

    /// The walk under way, or one that begins now.
    pub fn walking(&mut self, now: Timestamp) -> &mut Stand {
        self.walk.get_or_insert(Stand { began_at: now, found: BTreeMap::new(), after: None })
    }

    /// A walk has come to its end. The first one counts; one that began when nothing could be under way any more and
    /// found nothing is the last.
    pub fn walked(&mut self, now: Timestamp) {
        let Some(Stand { began_at, found, .. }) = self.walk.take() else { return };
        if self.rows.is_none() {
            self.rows = Some(found);
        } else if found.is_empty() && self.has_settled(began_at) {
            self.completed_at = Some(now);
        }
    }

    /// How many rows there were; `None` until they are counted.
    #[must_use]
    pub fn counted(&self) -> Option<u64> {
        self.rows.as_ref().map(|rows| rows.values().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_767_225_600);

    fn removal() -> Removal {
        let new = Removal::new("acme".parse().unwrap(), START, 7);
        Removal { key_destroyed_at: Some(START), ..new }
    }

    fn walk(removal: &mut Removal, began: Timestamp, found: u64) {
        removal.walking(began);
        if found > 0 {
            removal.walking(began).found.insert("head".into(), found);
        }
        removal.walked(began.after(Duration::from_secs(1)));
    }

    #[test]
    fn the_first_walk_counts_and_only_one_that_finds_nothing_ends_it() {
        let mut removal = removal();
        let late = START.after(SETTLES);
        walk(&mut removal, late, 3);
        assert_eq!((removal.counted(), removal.is_complete()), (Some(3), false));
        walk(&mut removal, late, 1);
        assert_eq!(
            (removal.counted(), removal.is_complete()),
            (Some(3), false),
            "what was left is not counted twice"
        );
        walk(&mut removal, late, 0);
        assert!(removal.is_complete());
    }

    #[test]
    fn a_tenant_without_rows_is_walked_over_twice_all_the_same() {
        let mut removal = removal();
        let late = START.after(SETTLES);
        walk(&mut removal, late, 0);
        assert!(!removal.is_complete(), "what came while it was counted is not missed");
        walk(&mut removal, late, 0);
        assert!(removal.is_complete());
    }

    #[test]
    fn a_walk_that_began_while_something_could_be_under_way_ends_nothing() {
        let mut removal = removal();
        let early = Timestamp::from_micros(START.after(SETTLES).as_micros() - 1);
        walk(&mut removal, early, 0);
        walk(&mut removal, early, 0);
        assert!(!removal.is_complete());
        walk(&mut removal, START.after(SETTLES), 0);
        assert!(removal.is_complete());
    }
}
