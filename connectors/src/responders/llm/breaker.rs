//! Circuit breaker of a provider key: it opens after several failures in a row of the provider or the key. After the
//! pause one call goes through; its success closes the breaker. A refusal of one request, such as an unknown model or
//! filtered content, is an answer: it concerns the tenant or customer that asked.

use std::time::Duration;

use heddle_schemas::retry::RetryPolicy;

/// Failures in a row that are taken as bad luck.
const TOLERATED: u32 = 3;
/// Pauses after further failures.
const PAUSES: RetryPolicy = RetryPolicy::endless(Duration::from_secs(2), Duration::from_secs(60));

/// The breaker of a provider key.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// When it last opened: calls from before say nothing new.
    opened_at: Option<Duration>,
    open_until: Duration,
    probing: bool,
}

impl Breaker {
    /// Returns true if a call could be made now.
    pub(super) fn would_admit(&self, now: Duration) -> bool {
        self.failures <= TOLERATED || (now >= self.open_until && !self.probing)
    }

    /// Returns true if a call may be made now. The caller must report its outcome.
    pub(super) fn admits(&mut self, now: Duration) -> bool {
        let admits = self.would_admit(now);
        self.probing |= admits && self.failures > TOLERATED;
        admits
    }

    /// A call was answered, if only by a limit.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A call that says nothing about the provider has ended: it was given up here.
    pub(super) fn dropped(&mut self) {
        self.probing = false;
    }

    /// A call that began at `began` failed.
    pub(super) fn failed(&mut self, began: Duration, now: Duration) {
        if self.opened_at.is_some_and(|opened_at| began < opened_at) {
            return;
        }
        self.probing = false;
        self.failures = self.failures.saturating_add(1);
        if self.failures > TOLERATED {
            self.opened_at = Some(now);
            self.open_until = now + PAUSES.pause(self.failures - TOLERATED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_fail_together_open_it_once() {
        let (mut breaker, now) = (Breaker::default(), Duration::from_secs(100));
        for _ in 0..40 {
            breaker.failed(now - Duration::from_secs(1), now);
        }
        assert!(!breaker.would_admit(now + Duration::from_millis(1_999)));
        assert!(breaker.admits(now + Duration::from_secs(2)));
        breaker.dropped();
        assert!(
            breaker.admits(now + Duration::from_secs(2)),
            "a call that was given up leaves the test to another"
        );
    }

    #[test]
    fn repeated_failures_open_the_breaker_and_one_call_tests_it_after_a_pause() {
        let mut breaker = Breaker::default();
        let mut now = Duration::from_secs(100);
        for _ in 0..4 {
            assert!(breaker.admits(now));
            breaker.failed(now, now);
        }
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            assert!(!breaker.admits(now + Duration::from_secs(pause) - Duration::from_millis(1)));
            now += Duration::from_secs(pause);
            assert!(breaker.admits(now) && !breaker.admits(now), "one call finds out");
            breaker.failed(now, now);
        }
        now += PAUSES.longest;
        assert!(breaker.admits(now));
        breaker.answered();
        assert!(breaker.admits(now) && breaker.admits(now));
    }
}
