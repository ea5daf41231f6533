//! When an account stops calling for a while: the circuit breaker of its channel.
//!
//! Passing trouble opens it for a growing pause; a limit that the channel names opens it for as long as
//! the channel says. After the pause one call goes through; its success closes the breaker.

use std::time::Duration;

/// Failures in a row that are taken as bad luck.
const TOLERATED: u32 = 2;
/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// The breaker of an account.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Duration,
}

impl Breaker {
    /// How long to wait before the next call may start; `None` for now.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.open_until.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// Whether only one call may be under way, to find out.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.failures > TOLERATED
    }

    /// A call came through.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A call met passing trouble.
    pub fn failed(&mut self, now: Duration) {
        self.failures += 1;
        if self.failures > TOLERATED {
            let pause = PAUSES.0 * 2_u32.saturating_pow((self.failures - TOLERATED - 1).min(16));
            self.open_until = self.open_until.max(now + pause.min(PAUSES.1));
        }
    }

    /// The channel said that it is too fast, and perhaps for how long.
    pub fn limited(&mut self, now: Duration, retry_after: Option<Duration>) {
        self.failures = self.failures.max(TOLERATED) + 1;
        let pause = PAUSES.0 * 2_u32.saturating_pow((self.failures - TOLERATED).min(16));
        let pause = retry_after.unwrap_or(pause.min(PAUSES.1));
        self.open_until = self.open_until.max(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_call_comes_through() {
        let mut breaker = Breaker::default();
        let now = Duration::from_secs(9);
        breaker.failed(now);
        breaker.failed(now);
        assert_eq!(breaker.wait(now), None, "two failures are bad luck");
        breaker.failed(now);
        assert_eq!(breaker.wait(now), Some(Duration::from_millis(500)));
        assert!(breaker.is_probing());
        breaker.failed(now);
        assert_eq!(breaker.wait(now), Some(Duration::from_secs(1)));
        for _ in 0..40 {
            breaker.failed(now);
        }
        assert_eq!(breaker.wait(now), Some(Duration::from_secs(60)));
        breaker.succeeded();
        assert_eq!(breaker.wait(now), None);
        assert!(!breaker.is_probing());
    }

    #[test]
    fn the_pause_that_the_channel_names_is_kept() {
        let mut breaker = Breaker::default();
        breaker.limited(Duration::ZERO, Some(Duration::from_secs(7)));
        assert_eq!(breaker.wait(Duration::from_secs(2)), Some(Duration::from_secs(5)));
    }
}
