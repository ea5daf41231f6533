//! Deletion of a tenant: its progress, and the receipt that is left of it.
//!
//! The tenant stops first: no node serves it any more, nothing of it is accepted or sent. Then its key is destroyed,
//! and with it all that was sealed under it or under a key below it, in rows, topics and backups alike. Then its rows
//! are counted, and walked over again and again until none is found. What stays is this receipt, with the id and times: an
//! id is not given out twice. What it used goes into totals of all deleted tenants ([`Totals`]), which name none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::erasure::DEADLINE;
use crate::id::{MessageKey, TenantId};
use crate::money::Money;
use crate::time::Timestamp;
use crate::zone::Month;

/// Longest time after the destruction of its key in which work of a tenant may still be under way: a node may have kept
/// the key for a minute, a turn may wait for an answer, a reservation of its quota may not be returned.
pub const SETTLES: Duration = Duration::from_secs(300);

/// Deletion of a tenant, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletionRecord {
    /// The tenant.
    pub tenant: TenantId,
    /// Time of the request, microseconds since 1970.
    pub requested_at: Timestamp,
    /// Time by which it has to be complete.
    pub deadline: Timestamp,
    /// The entry that names the caller and the reason, in the audit log of no tenant.
    pub entry: u64,
    /// Time of the destruction of its key: nothing that it sealed can be read from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_destroyed_at: Option<Timestamp>,
    /// The number of rows of each table, once they are counted. Expired rows are not among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<BTreeMap<String, u64>>,
    /// Usage by month, until the deletion is complete: then it is in the totals of all deleted tenants, and no longer here.
    #[serde(default)]
    pub usage: BTreeMap<Month, Used>,
    /// Random name under which the usage is being added to the totals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adding: Option<MessageKey>,
    /// The walk over its rows that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<Stand>,
    /// Time at which a walk found no row any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

/// Usage of a month's turns. It names no person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Used {
    /// Turns that were decided.
    pub turns: u64,
    /// Messages of the turns.
    pub messages: u64,
    /// Tokens sent to language models, and received.
    pub tokens: u64,
    /// The cost of the tokens.
    pub money: Money,
}

impl Used {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let money = Money::from_micros(self.money.as_micros().saturating_add(other.money.as_micros()));
        Self {
            turns: self.turns.saturating_add(other.turns),
            messages: self.messages.saturating_add(other.messages),
            tokens: self.tokens.saturating_add(other.tokens),
            money,
        }
    }
}

/// Usage of all deleted tenants in a month. It names none of them, and no number of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The sum.
    pub used: Used,
    /// Random names of what was added a moment ago, so that a repetition adds nothing. Each is removed, and is random, so
    /// that it leads to no tenant.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub adding: BTreeSet<MessageKey>,
}

/// Progress of a walk over the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stand {
    /// Time of its beginning.
    pub began_at: Timestamp,
    /// The number of rows found so far, by table.
    #[serde(default)]
    pub found: BTreeMap<String, u64>,
    /// Place behind which it goes on, in hexadecimal digits; none at the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl DeletionRecord {
    /// Creates a deletion that is requested now.
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
            adding: None,
            walk: None,
            completed_at: None,
        }
    }

    /// Returns whether it is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.completed_at.is_some()
    }

    /// Returns whether the deadline has passed before it is complete.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        !self.is_complete() && now > self.deadline
    }

    /// Returns whether no work of the tenant can be under way any more.
    #[must_use]
    pub fn has_settled(&self, at: Timestamp) -> bool {
        self.key_destroyed_at.is_some_and(|destroyed| at.since(destroyed) >= SETTLES)
    }

    /// Returns the walk under way, or one that begins now.
    pub fn walking(&mut self, now: Timestamp) -> &mut Stand {
        self.walk.get_or_insert(Stand { began_at: now, found: BTreeMap::new(), after: None })
    }

    /// Ends a walk. The first one counts the rows. The last is one that began when no work could be under way any more,
    /// and found nothing.
    pub fn walked(&mut self, now: Timestamp) {
        let Some(Stand { began_at, found, .. }) = self.walk.take() else { return };
        if self.rows.is_none() {
            self.rows = Some(found);
        } else if found.is_empty() && self.has_settled(began_at) {
            self.completed_at = Some(now);
        }
    }

    /// Returns the number of rows; `None` until they are counted.
    #[must_use]
    pub fn counted(&self) -> Option<u64> {
        self.rows.as_ref().map(|rows| rows.values().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_767_225_600);

    fn deletion() -> DeletionRecord {
        let new = DeletionRecord::new("acme".parse().unwrap(), START, 7);
        DeletionRecord { key_destroyed_at: Some(START), ..new }
    }

    fn walk(deletion: &mut DeletionRecord, began: Timestamp, found: u64) {
        deletion.walking(began);
        if found > 0 {
            deletion.walking(began).found.insert("head".into(), found);
        }
        deletion.walked(began.after(Duration::from_secs(1)));
    }

    #[test]
    fn the_first_walk_counts_and_only_one_that_finds_nothing_ends_it() {
        let mut deletion = deletion();
        let late = START.after(SETTLES);
        walk(&mut deletion, late, 3);
        assert_eq!((deletion.counted(), deletion.is_complete()), (Some(3), false));
        walk(&mut deletion, late, 1);
        assert_eq!(
            (deletion.counted(), deletion.is_complete()),
            (Some(3), false),
            "what was left is not counted twice"
        );
        walk(&mut deletion, late, 0);
        assert!(deletion.is_complete());
    }

    #[test]
    fn a_tenant_without_rows_is_walked_over_twice_all_the_same() {
        let mut deletion = deletion();
        let late = START.after(SETTLES);
        walk(&mut deletion, late, 0);
        assert!(!deletion.is_complete(), "what came while it was counted is not missed");
        walk(&mut deletion, late, 0);
        assert!(deletion.is_complete());
    }

    #[test]
    fn a_walk_that_began_while_something_could_be_under_way_ends_nothing() {
        let mut deletion = deletion();
        let early = Timestamp::from_micros(START.after(SETTLES).as_micros() - 1);
        walk(&mut deletion, early, 0);
        walk(&mut deletion, early, 0);
        assert!(!deletion.is_complete());
        walk(&mut deletion, START.after(SETTLES), 0);
        assert!(deletion.is_complete());
    }
}
