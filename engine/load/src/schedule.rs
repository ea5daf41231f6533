//! When each body of messages is due at a fixed rate: a pure function of its number.
//!
//! The times do not depend on how the engine does. A body that leaves late, because everything is busy, keeps
//! the time at which it was due, and latencies count from there; otherwise a slow engine would be asked less
//! and look fast (coordinated omission).

use std::num::NonZeroU32;
use std::time::Duration;

const NANOS: u128 = 1_000_000_000;

/// Bodies of so many messages each, at so many messages a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    rate: NonZeroU32,
    batch: NonZeroU32,
}

impl Schedule {
    /// At `rate` messages a second, `batch` of them in a body.
    pub(crate) fn new(rate: NonZeroU32, batch: NonZeroU32) -> Self {
        Self { rate, batch }
    }

    /// How long after the start the body of this number, from 0, is due.
    pub(crate) fn due(self, body: u64) -> Duration {
        let nanos = u128::from(body) * u128::from(self.batch.get()) * NANOS / u128::from(self.rate.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many bodies are due before this time has passed.
    pub(crate) fn due_before(self, time: Duration) -> u64 {
        let ahead = time.as_nanos() * u128::from(self.rate.get());
        u64::try_from(ahead.div_ceil(u128::from(self.batch.get()) * NANOS)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: u32, batch: u32) -> Schedule {
        Schedule::new(NonZeroU32::new(rate).unwrap(), NonZeroU32::new(batch).unwrap())
    }

    #[test]
    fn the_rate_is_kept_over_a_day_whatever_does_not_divide() {
        let thirds = schedule(3, 1);
        assert_eq!(thirds.due(0), Duration::ZERO);
        assert_eq!(thirds.due(1), Duration::from_nanos(333_333_333));
        assert_eq!(thirds.due(3), Duration::from_secs(1));
        assert_eq!(thirds.due(3 * 86_400), Duration::from_secs(86_400));
    }

    #[test]
    fn bodies_of_several_messages_come_as_much_more_rarely() {
        assert_eq!(schedule(1000, 20).due(1), Duration::from_millis(20));
        assert_eq!(schedule(1000, 20).due_before(Duration::from_secs(1)), 50);
    }

    #[test]
    fn what_is_due_before_a_time_is_what_has_an_earlier_one() {
        for (rate, batch) in [(1, 1), (3, 1), (7, 2), (1000, 20), (9_999, 7)] {
            let schedule = schedule(rate, batch);
            for millis in [1, 999, 1000, 1001, 60_000] {
                let time = Duration::from_millis(millis);
                let due = schedule.due_before(time);
                assert!(schedule.due(due - 1) < time, "{rate} {batch} {millis}");
                assert!(schedule.due(due) >= time, "{rate} {batch} {millis}");
            }
        }
        assert_eq!(schedule(5, 1).due_before(Duration::ZERO), 0);
    }
}
