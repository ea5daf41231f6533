//! Circuit breaker of a number: when no call leaves for a while.
//!
//! Transient failures open it for a pause that grows; a limit that the channel names opens it for as long as the
//! channel says. After the pause it is half-open: one call at a time, and the first that succeeds closes it.
//!
//! Calls belong to generations; each opening begins a new one. The outcome of a call that left before the breaker last
//! opened is ignored, so the failures of one moment count once.

use std::time::Duration;

/// Failures in a row that do not open it.
const TOLERATED: u32 = 2;
/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Breaker of a number.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Failures in a row, those of one generation after the breaker opened counted once.
    failures: u32,
    generation: u64,
    open_until: Duration,
}

impl Breaker {
    /// Returns from when on calls may leave; it may be over already.
    #[must_use]
    pub fn free_at(&self) -> Duration {
        self.open_until
    }

    /// Returns true while one call at a time is to find out whether the trouble is over.
    #[must_use]
    pub fn is_half_open(&self) -> bool {
        self.failures > TOLERATED
    }

    /// Returns the generation of a call that leaves now.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Begins a generation: calls that left before are ignored from now on.
    pub fn renew(&mut self) {
        self.generation += 1;
    }

    /// Takes note of a call that came through.
    pub fn succeeded(&mut self, generation: u64) {
        if generation == self.generation {
            self.failures = 0;
            self.open_until = Duration::ZERO;
        }
    }

    /// Takes note of a call that met passing trouble, or whose outcome is unknown.
    pub fn failed(&mut self, generation: u64, now: Duration) {
        if generation == self.generation {
            self.failures += 1;
            if self.failures > TOLERATED {
                self.open(now, Self::pause(self.failures - TOLERATED - 1));
            }
        }
    }

    /// Takes note of a call that was over a limit of the channel, which may have said for how long to wait.
    pub fn limited(&mut self, generation: u64, now: Duration, retry_after: Option<Duration>) {
        if generation == self.generation {
            self.failures = self.failures.max(TOLERATED) + 1;
            let pause = Self::pause(self.failures - TOLERATED);
            self.open(now, retry_after.unwrap_or(pause));
        } else if let Some(wait) = retry_after {
            // A time that the channel names holds, for the call of any generation.
            self.open_until = self.open_until.max(now + wait);
        }
    }

    fn open(&mut self, now: Duration, pause: Duration) {
        self.renew();
        self.open_until = self.open_until.max(now + pause);
    }

    fn pause(step: u32) -> Duration {
        (PAUSES.0 * 2_u32.saturating_pow(step.min(16))).min(PAUSES.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(9);
    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn ten_failures_of_one_moment_are_one_failure() {
        let mut breaker = Breaker::default();
        let left = breaker.generation();
        for _ in 0..10 {
            breaker.failed(left, NOW);
        }
        assert!(breaker.free_at() <= NOW + Duration::from_secs(1), "{:?}", breaker.free_at() - NOW);
        assert!(breaker.is_half_open());
    }

    #[test]
    fn ten_refusals_of_one_moment_are_one_refusal() {
        let mut breaker = Breaker::default();
        let left = breaker.generation();
        for _ in 0..10 {
            breaker.limited(left, NOW, None);
        }
        assert!(breaker.free_at() <= NOW + Duration::from_secs(1), "{:?}", breaker.free_at() - NOW);
    }

    #[test]
    fn pauses_grow_with_each_failed_probe_until_one_comes_through() {
        let mut breaker = Breaker::default();
        let mut now = NOW;
        for _ in 0..2 {
            breaker.failed(breaker.generation(), now);
        }
        assert!(breaker.free_at() <= now, "two failures are bad luck");
        let mut pauses = Vec::new();
        for _ in 0..10 {
            now += MILLI;
            breaker.failed(breaker.generation(), now);
            pauses.push((breaker.free_at() - now).as_millis());
            now = breaker.free_at();
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000]);
        breaker.succeeded(breaker.generation());
        assert!(!breaker.is_half_open() && breaker.free_at() <= now);
    }

    #[test]
    fn a_call_from_before_the_trouble_does_not_end_it() {
        let mut breaker = Breaker::default();
        let left = breaker.generation();
        (0..3).for_each(|_| breaker.failed(left, NOW));
        breaker.succeeded(left);
        assert!(breaker.is_half_open() && breaker.free_at() > NOW);
    }

    #[test]
    fn the_pause_that_the_channel_names_is_kept() {
        let mut breaker = Breaker::default();
        let left = breaker.generation();
        breaker.limited(left, NOW, Some(Duration::from_secs(7)));
        breaker.limited(left, NOW, None);
        assert_eq!(breaker.free_at(), NOW + Duration::from_secs(7));
        breaker.limited(left, NOW, Some(Duration::from_secs(20)));
        assert_eq!(breaker.free_at(), NOW + Duration::from_secs(20), "also by a call of the same moment");
    }

    proptest! {
        /// However many calls fail at once, the pause after one moment is that of one failure.
        #[test]
        fn the_pause_depends_on_moments_and_not_on_calls(calls in 3_usize..200, moments in 1_u32..6) {
            let mut breaker = Breaker::default();
            let mut now = NOW;
            for _ in 0..moments {
                let left = breaker.generation();
                now += MILLI;
                (0..calls).for_each(|_| breaker.failed(left, now));
                let pause = breaker.free_at() - now;
                now = breaker.free_at();
                prop_assert!(pause <= Duration::from_millis(500) * 2_u32.pow(moments - 1));
            }
        }
    }
}
