//! Lease cache: a node's quota leases of a tenant, one to take from, and those from which nothing more is taken.
//!
//! Pure. A reserved amount is held until its turn is settled. One that is never settled counts as spent: its turn may
//! have been decided.

use std::time::Duration;

use heddle_schemas::id::ChunkId;
use heddle_schemas::time::Timestamp;
use heddle_schemas::zone::Month;
use serde::{Deserialize, Serialize};

use super::amounts::Amounts;

/// Lifetime of a quota lease.
pub(super) const LIFE: Duration = Duration::from_secs(600);
/// Time before its end from which nothing more is taken: longer than any turn under way takes.
pub(super) const LAST_CALL: Duration = Duration::from_secs(120);
/// Time without use after which a quota lease is given back.
const IDLE: Duration = Duration::from_secs(60);
/// The same where little is left, for which others may wait.
const IDLE_WHERE_SCARCE: Duration = Duration::from_secs(1);
/// Number of turns that a quota lease is sized for at first, and at most.
const STRIDES: (u64, u64) = (32, 4_096);
/// Time within which a used-up quota lease makes the next one larger; one that lasts longer than half its lifetime
/// makes it smaller.
const FAST: Duration = Duration::from_secs(30);

/// Quota lease, and the month whose ledger it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkOf {
    /// Id of the quota lease.
    pub id: ChunkId,
    /// Month of the ledger.
    pub month: Month,
}

/// Quota lease in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) of: ChunkOf,
    left: Amounts,
    until: Timestamp,
    since: Timestamp,
    used_at: Timestamp,
    scarce: bool,
    in_work: u64,
    /// Amounts that turns have spent of it: those that are settled, and messages of those that never were.
    spent: Amounts,
    /// Messages that were reserved and never settled.
    pub(super) unsettled: u64,
}

/// Lease cache.
#[derive(Debug, Default)]
pub(super) struct LeaseCache {
    current: Option<Held>,
    retired: Vec<Held>,
    stride: u64,
}

impl LeaseCache {
    /// Reserves this much, if the quota lease of this month has it.
    pub(super) fn take(&mut self, need: Amounts, month: Month, now: Timestamp) -> Option<ChunkOf> {
        if !self.has(need, month, now) {
            self.retire();
            return None;
        }
        let held = self.current.as_mut()?;
        held.left = held.left.minus(need);
        held.in_work += 1;
        held.used_at = now;
        Some(held.of)
    }

    /// Returns true when the quota lease of this month has this much.
    pub(super) fn has(&self, need: Amounts, month: Month, now: Timestamp) -> bool {
        self.current.as_ref().is_some_and(|held| {
            held.of.month == month && held.left.short_of(need).is_none() && held.until > now.after(LAST_CALL)
        })
    }

    /// Returns the size of a new quota lease for turns that need this much.
    pub(super) fn wanted(&self, need: Amounts) -> Amounts {
        need.times(self.stride.clamp(STRIDES.0, STRIDES.1))
    }

    /// Adds a new quota lease. The previous one is retired.
    pub(super) fn put(&mut self, of: ChunkOf, size: Amounts, wanted: Amounts, now: Timestamp) {
        if let Some(before) = &self.current {
            let lasted = now.since(before.since);
            let stride = self.stride.clamp(STRIDES.0, STRIDES.1);
            self.stride = match () {
                () if lasted < FAST => stride * 2,
                () if lasted > LIFE / 2 => stride / 2,
                () => stride,
            };
        }
        self.retire();
        self.current = Some(Held {
            of,
            left: size,
            until: now.after(LIFE),
            since: now,
            used_at: now,
            scarce: size.short_of(wanted).is_some(),
            in_work: 0,
            spent: Amounts::NONE,
            unsettled: 0,
        });
    }

    /// Settles a turn: of its reservation it used this much, and the rest comes back.
    pub(super) fn settle(&mut self, of: ChunkOf, taken: Amounts, used: Amounts) {
        if let Some(held) = self.held(of) {
            held.in_work = held.in_work.saturating_sub(1);
            held.left = held.left.plus(taken.minus(used));
            held.spent = held.spent.plus(used);
        }
    }

    /// Drops the reservation of a turn that ended unsettled.
    pub(super) fn abandon(&mut self, of: ChunkOf, messages: u64) {
        if let Some(held) = self.held(of) {
            held.in_work = held.in_work.saturating_sub(1);
            held.unsettled += messages;
            held.spent.messages = held.spent.messages.saturating_add(messages);
        }
    }

    /// Returns the amounts that turns have spent of a month's quota leases, without those that are only reserved.
    pub(super) fn spent(&self, month: Month) -> Amounts {
        let held = self.current.iter().chain(&self.retired).filter(|held| held.of.month == month);
        held.fold(Amounts::NONE, |sum, held| sum.plus(held.spent))
    }

    fn held(&mut self, of: ChunkOf) -> Option<&mut Held> {
        self.current.iter_mut().chain(&mut self.retired).find(|held| held.of == of)
    }

    /// Ends taking from the current quota lease.
    pub(super) fn retire(&mut self) {
        self.retired.extend(self.current.take());
    }

    /// Retires the quota lease where it is idle, near its end, or of another month.
    pub(super) fn tidy(&mut self, month: Month, now: Timestamp) {
        let Some(held) = &self.current else { return };
        let idle = if held.scarce { IDLE_WHERE_SCARCE } else { IDLE };
        let is_idle = held.in_work == 0 && now.since(held.used_at) >= idle;
        if is_idle || held.of.month != month || held.until <= now.after(LAST_CALL) {
            self.retire();
        }
    }

    /// Removes and returns the leases that can be closed: no turn of them is in work.
    pub(super) fn closable(&mut self) -> Vec<Held> {
        self.retired.extract_if(.., |held| held.in_work == 0).collect()
    }

    /// Puts back a quota lease that could not be closed.
    pub(super) fn put_back(&mut self, held: Held) {
        self.retired.push(held);
    }

    /// Returns true when it holds no quota lease.
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.retired.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages(messages: u64) -> Amounts {
        Amounts { messages, ..Amounts::NONE }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(seconds))
    }

    fn month(text: &str) -> Month {
        text.parse().unwrap()
    }

    fn chunk(number: u8) -> ChunkOf {
        ChunkOf { id: ChunkId::from_bytes([number; 16]), month: month("1970-01") }
    }

    #[test]
    fn nothing_is_taken_near_the_end_or_in_another_month() {
        for (wrong_month, seconds) in [("1970-01", 480), ("1970-02", 1)] {
            let mut leases = LeaseCache::default();
            leases.put(chunk(1), messages(5), messages(5), at(0));
            assert_eq!(leases.take(messages(1), month("1970-01"), at(1)), Some(chunk(1)));
            assert_eq!(leases.take(messages(1), month(wrong_month), at(seconds)), None);
            assert!(leases.closable().is_empty(), "a turn of it is in work");
            leases.settle(chunk(1), messages(1), messages(1));
            assert_eq!(leases.closable().len(), 1);
            assert!(leases.is_empty());
        }
    }

    #[test]
    fn an_idle_chunk_goes_back_and_soon_where_little_is_left() {
        for (wanted, seconds) in [(5, 60), (32, 1)] {
            let mut leases = LeaseCache::default();
            leases.put(chunk(1), messages(5), messages(wanted), at(0));
            leases.tidy(month("1970-01"), at(seconds - 1));
            assert!(leases.closable().is_empty());
            leases.tidy(month("1970-01"), at(seconds));
            assert_eq!(leases.closable().len(), 1);
        }
    }

    #[test]
    fn leases_that_are_used_up_fast_grow() {
        let mut leases = LeaseCache::default();
        assert_eq!(leases.wanted(messages(1)), messages(32));
        leases.put(chunk(1), messages(32), messages(32), at(0));
        leases.put(chunk(2), messages(32), messages(32), at(1));
        assert_eq!(leases.wanted(messages(2)), messages(128));
        leases.put(chunk(3), messages(64), messages(64), at(450));
        assert_eq!(leases.wanted(messages(1)), messages(32));
    }

    proptest! {
        /// The amounts taken from a quota lease, settled or not, are never more than its size.
        #[test]
        fn no_more_is_taken_than_the_lease_holds(
            size in 0_u64..50,
            steps in proptest::collection::vec((0_u64..8, 0_u64..8, 0_u8..3), 1..80),
        ) {
            let mut leases = LeaseCache::default();
            leases.put(chunk(1), messages(size), messages(size), at(0));
            let mut holds: Vec<u64> = Vec::new();
            let mut spent = 0;
            for (need, used, step) in steps {
                match step {
                    0 => {
                        if leases.take(messages(need), month("1970-01"), at(1)).is_some() {
                            holds.push(need);
                        }
                    }
                    1 => if let Some(need) = holds.pop() {
                        let used = used.min(need);
                        leases.settle(chunk(1), messages(need), messages(used));
                        spent += used;
                    },
                    _ => if let Some(need) = holds.pop() {
                        leases.abandon(chunk(1), need);
                        spent += need;
                    },
                }
                prop_assert!(spent + holds.iter().sum::<u64>() <= size);
                prop_assert_eq!(leases.spent(month("1970-01")).messages, spent);
            }
        }
    }
}
