//! How fast an account may send: messages a second of the number, and messages to one user.
//!
//! The limits are those of the channel's profile; a pair of account and user may borrow from the future. Both are the generic cell rate algorithm over the time since start, so neither is ever over its limit
//! in any window. A new owner starts with nothing saved up.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use heddle_schemas::id::ContactId;
use heddle_schemas::ports::channel::profile::PairLimit;

/// What is left unused of the limit, so that a network that bunches messages stays within it: 1 in 100.
const MARGIN: u32 = 100;
/// Pairs remembered before those that are free again are forgotten.
const PAIRS_SWEPT_AT: usize = 10_000;

/// The pace of a number.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    free_at: Duration,
}

impl Pace {
    /// Nothing saved up at `now`.
    #[must_use]
    pub fn new(messages_per_second: NonZeroU32, now: Duration) -> Self {
        let mut pace = Self { interval: Duration::ZERO, free_at: now };
        pace.set(messages_per_second);
        pace
    }

    /// The limit has changed.
    pub fn set(&mut self, messages_per_second: NonZeroU32) {
        let interval = Duration::from_secs(1) / messages_per_second.get();
        self.interval = interval + interval / MARGIN;
    }

    /// How long until the next message may leave; `None` for now.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.free_at.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// A message leaves.
    pub fn sent(&mut self, now: Duration) {
        self.free_at = self.free_at.max(now) + self.interval;
    }

    /// Messages have come in: they use the same limit, and cannot be held back.
    pub fn received(&mut self, messages: u64, now: Duration) {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        // Over the limit by itself, what comes in leaves nothing for a second, not for ever.
        let used = (self.interval * messages).min(Duration::from_secs(1));
        self.free_at = self.free_at.max(now) + used;
    }
}

/// The pace of each pair of this account and a user; without a limit every pair is free.
#[derive(Debug, Default)]
pub struct Pairs {
    limit: Option<PairLimit>,
    paid_at: BTreeMap<ContactId, Duration>,
}

impl Pairs {
    /// No pair has borrowed anything.
    #[must_use]
    pub fn new(limit: Option<PairLimit>) -> Self {
        Self { limit, paid_at: BTreeMap::new() }
    }

    /// From when on the next message to this user may leave.
    #[must_use]
    pub fn free_at(&self, contact: ContactId) -> Duration {
        let Some(limit) = self.limit else { return Duration::ZERO };
        let borrowed = limit.interval * (limit.burst.get() - 1);
        self.paid_at.get(&contact).map_or(Duration::ZERO, |paid_at| paid_at.saturating_sub(borrowed))
    }

    /// A message leaves.
    pub fn sent(&mut self, contact: ContactId, now: Duration) {
        let Some(limit) = self.limit else { return };
        if self.paid_at.len() >= PAIRS_SWEPT_AT {
            self.paid_at.retain(|_, paid_at| *paid_at > now);
        }
        let paid_at = self.paid_at.entry(contact).or_insert(now);
        *paid_at = (*paid_at).max(now) + limit.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(messages: u32) -> NonZeroU32 {
        NonZeroU32::new(messages).unwrap()
    }

    proptest! {
        /// Whenever somebody tries to send, and whatever comes in, no window of a second holds more
        /// messages than the limit, as long as what comes in alone does not.
        #[test]
        fn no_window_of_a_second_holds_more_than_the_limit(
            limit in 5_u32..100,
            steps in proptest::collection::vec((0_u64..40_000, prop::bool::weighted(0.1)), 1..400),
        ) {
            let mut pace = Pace::new(rate(limit), Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut sent = Vec::new();
            for (micros, comes_in) in steps {
                now += Duration::from_micros(micros);
                if comes_in {
                    pace.received(1, now);
                } else if pace.wait(now).is_none() {
                    pace.sent(now);
                    sent.push(now);
                }
            }
            for (index, start) in sent.iter().enumerate() {
                let end = *start + Duration::from_secs(1);
                let window = sent[index..].iter().take_while(|at| **at < end).count();
                prop_assert!(window <= limit as usize, "{window} in a second");
            }
        }
    }

    #[test]
    fn who_always_has_something_to_send_uses_97_percent() {
        let mut pace = Pace::new(rate(80), Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut sent = 0;
        while now < Duration::from_secs(10) {
            now += pace.wait(now).unwrap_or_default();
            pace.sent(now);
            sent += 1;
        }
        assert!((776..=800).contains(&sent), "{sent} of 800");
    }

    #[test]
    fn what_comes_in_is_left_out_of_the_budget() {
        let mut pace = Pace::new(rate(80), Duration::ZERO);
        pace.received(40, Duration::ZERO);
        let wait = pace.wait(Duration::ZERO).unwrap();
        assert!(wait >= Duration::from_millis(500), "half of the second is used: {wait:?}");
    }

    #[test]
    fn a_pair_borrows_45_and_then_waits_six_seconds_each() {
        let contact = ContactId::from_bytes([1; 16]);
        let burst = NonZeroU32::new(45).unwrap();
        let limit = PairLimit { interval: Duration::from_secs(6), burst, pause_base: 4 };
        let mut pairs = Pairs::new(Some(limit));
        let now = Duration::from_secs(1000);
        let mut burst = 0;
        while pairs.free_at(contact) <= now {
            pairs.sent(contact, now);
            burst += 1;
        }
        assert_eq!(burst, 45);
        assert_eq!(pairs.free_at(contact), now + Duration::from_secs(6));
        assert_eq!(pairs.free_at(ContactId::from_bytes([2; 16])), Duration::ZERO, "others are free");
    }

    #[test]
    fn a_channel_without_a_pair_limit_holds_no_pair_up() {
        let contact = ContactId::from_bytes([1; 16]);
        let mut pairs = Pairs::new(None);
        for _ in 0..1000 {
            pairs.sent(contact, Duration::from_secs(1));
        }
        assert_eq!(pairs.free_at(contact), Duration::ZERO);
        assert!(pairs.paid_at.is_empty());
    }
}
