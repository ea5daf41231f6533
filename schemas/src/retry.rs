//! Pauses between attempts: one policy type for everything that is retried.
//!
//! Pure: it computes how long to wait and when to stop. The caller waits, counts and logs.

use std::num::NonZeroU32;
use std::time::Duration;

/// Policy of retries: each pause is twice as long as the one before, up to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Pause after the first failure.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// Attempts in all; `None` for no end.
    pub attempts: Option<NonZeroU32>,
}

impl RetryPolicy {
    /// A policy that never stops.
    #[must_use]
    pub const fn endless(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: None }
    }

    /// A policy that stops after this number of attempts.
    #[must_use]
    pub const fn limited(first: Duration, longest: Duration, attempts: NonZeroU32) -> Self {
        Self { first, longest, attempts: Some(attempts) }
    }

    /// Returns the pause after this many failures in a row; none before the first.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// Begins a series of attempts.
    #[must_use]
    pub fn begin(self) -> Backoff {
        Backoff { policy: self, failures: 0 }
    }
}

/// A series of attempts under a policy.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: RetryPolicy,
    failures: u32,
}

impl Backoff {
    /// Counts a failure. Returns the pause before the next attempt; `None` when there is none.
    pub fn failed(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let over = self.policy.attempts.is_some_and(|attempts| self.failures >= attempts.get());
        (!over).then(|| self.policy.pause(self.failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let policy = RetryPolicy::endless(millis(10), millis(1_000));
        let mut backoff = policy.begin();
        let pauses: Vec<_> = (0..9).map(|_| backoff.failed().unwrap().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        assert_eq!(policy.pause(0), Duration::ZERO);
        for failures in [32, 33, 34, 1_000, u32::MAX] {
            assert_eq!(policy.pause(failures), millis(1_000), "{failures}");
        }
    }

    #[test]
    fn a_limited_policy_stops_after_its_attempts() {
        let policy = RetryPolicy::limited(millis(50), millis(400), NonZeroU32::new(4).unwrap());
        let mut backoff = policy.begin();
        let pauses: Vec<_> = (0..5).map(|_| backoff.failed()).collect();
        assert_eq!(pauses, [Some(millis(50)), Some(millis(100)), Some(millis(200)), None, None]);
    }
}
