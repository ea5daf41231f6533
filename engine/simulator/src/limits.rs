//! Rate limits of the simulated API: the documented limits, as a pure state machine.
//!
//! - A number: a maximum of messages in any one second, in and out together. Incoming ones are counted
//!   and never refused.
//! - A pair of a number and a user: one message in an interval, with a burst borrowed from the
//!   future. The state is the time at which the pair will have repaid its burst (the generic cell rate
//!   algorithm).
//!
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/throughput>,
//! <https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput>.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use heddle_schemas::id::AccountId;

const SECOND: Duration = Duration::from_secs(1);

/// Limits of a number and of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Maximum messages of a number in any one second, in and out together. Documented: 80.
    pub per_second: NonZeroU32,
    /// Interval of one message of a pair. Documented: 6 s.
    pub pair_interval: Duration,
    /// Maximum burst of a pair. Documented: 45.
    pub pair_burst: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_second: const { NonZeroU32::new(80).unwrap() },
            pair_interval: Duration::from_secs(6),
            pair_burst: const { NonZeroU32::new(45).unwrap() },
        }
    }
}

/// Limit that a message exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// The number's.
    Number,
    /// The pair's.
    Pair,
}

/// Recent messages. Times are those of one monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    numbers: HashMap<AccountId, VecDeque<Duration>>,
    pairs: HashMap<AccountId, HashMap<String, Duration>>,
}

impl Pace {
    /// Admits an outgoing message, or returns the limit that it exceeds; a refused one is not counted.
    pub(crate) fn admit(
        &mut self,
        limits: &Limits,
        account: &AccountId,
        to: &str,
        now: Duration,
    ) -> Result<(), Over> {
        let number = self.recent(account, now);
        if number.len() >= limits.per_second.get() as usize {
            return Err(Over::Number);
        }
        let pairs = self.pairs.entry(account.clone()).or_default();
        let paid = pairs.get(to).copied().unwrap_or_default().max(now);
        let credit = limits.pair_interval.saturating_mul(limits.pair_burst.get() - 1);
        if paid > now + credit {
            return Err(Over::Pair);
        }
        pairs.insert(to.to_owned(), paid + limits.pair_interval);
        self.recent(account, now).push_back(now);
        Ok(())
    }

    /// Counts an incoming message.
    pub(crate) fn count_in(&mut self, account: &AccountId, now: Duration) {
        self.recent(account, now).push_back(now);
    }

    fn recent(&mut self, account: &AccountId, now: Duration) -> &mut VecDeque<Duration> {
        let times = self.numbers.entry(account.clone()).or_default();
        while times.front().is_some_and(|time| *time + SECOND <= now) {
            times.pop_front();
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> AccountId {
        "106540352242922".parse().unwrap()
    }

    #[test]
    fn eighty_in_a_second_and_not_one_more_in_and_out_together() {
        let (mut pace, limits, account) = (Pace::default(), Limits::default(), account());
        let at = |millis: u64| Duration::from_millis(10_000 + millis);
        for i in 0..50 {
            assert_eq!(pace.admit(&limits, &account, &i.to_string(), at(i)), Ok(()));
        }
        for i in 50..80 {
            pace.count_in(&account, at(i));
        }
        assert_eq!(pace.admit(&limits, &account, "late", at(999)), Err(Over::Number));
        // The first of the eighty leaves the window after a second, and one more fits.
        assert_eq!(pace.admit(&limits, &account, "late", at(1000)), Ok(()));
        assert_eq!(pace.admit(&limits, &account, "later", at(1000)), Err(Over::Number));
    }

    #[test]
    fn a_pair_borrows_forty_five_and_then_gets_one_in_six_seconds() {
        let (mut pace, limits, account) = (Pace::default(), Limits::default(), account());
        let start = Duration::from_secs(100);
        for _ in 0..45 {
            assert_eq!(pace.admit(&limits, &account, "a", start), Ok(()));
        }
        assert_eq!(pace.admit(&limits, &account, "a", start), Err(Over::Pair));
        assert_eq!(pace.admit(&limits, &account, "b", start), Ok(()), "another pair is free");
        assert_eq!(pace.admit(&limits, &account, "a", start + Duration::from_millis(5999)), Err(Over::Pair));
        assert_eq!(pace.admit(&limits, &account, "a", start + Duration::from_secs(6)), Ok(()));
        assert_eq!(pace.admit(&limits, &account, "a", start + Duration::from_secs(6)), Err(Over::Pair));
        // 46 messages are 276 s of the pair's time; after that the whole burst is there again.
        let rested = start + Duration::from_secs(276);
        let again = (0..50).filter(|_| pace.admit(&limits, &account, "a", rested).is_ok()).count();
        assert_eq!(again, 45);
    }
}
