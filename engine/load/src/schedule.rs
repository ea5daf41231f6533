//! Due times of message bodies at a fixed rate: a pure function of a body's number.
//!
//! The times do not depend on the engine's speed. A body that is sent late, because all connections are busy, keeps
//! its due time, and latencies count from there; otherwise a slow engine would be asked less and look fast
//! (coordinated omission).

use std::num::NonZeroU32;
use std::time::Duration;

const NANOS: u128 = 1_000_000_000;

/// Schedule of bodies with a fixed number of messages at a fixed rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    rate: NonZeroU32,
    batch: NonZeroU32,
}

impl Schedule {
    /// Creates a schedule of `rate` messages a second, `batch` of them in a body.
    pub(crate) fn new(rate: NonZeroU32, batch: NonZeroU32) -> Self {
        Self { rate, batch }
    }

    /// Returns the due time of the body with this number, from 0, since the start.
    pub(crate) fn due(self, body: u64) -> Duration {
        let nanos = u128::from(body) * u128::from(self.batch.get()) * NANOS / u128::from(self.rate.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Returns the number of bodies due before this time.
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
