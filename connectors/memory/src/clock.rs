//! Clocks for tests: one that follows tokio's time, which tests pause, and one that is set by hand.
//!
//! Both let the wall clock jump without touching the elapsed time, and the machine sleep: elapsed
//! time and wall clock then run on although no timer fires.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::time::Timestamp;
use tokio::time::Instant;

/// A clock that runs with tokio's time, paused or not.
#[derive(Debug)]
pub struct TokioClock {
    base: Timestamp,
    started: Instant,
    asleep_micros: AtomicU64,
    wall_offset_micros: AtomicI64,
}

impl TokioClock {
    /// A clock that shows `base` now.
    #[must_use]
    pub fn starting_at(base: Timestamp) -> Self {
        let (asleep_micros, wall_offset_micros) = (AtomicU64::new(0), AtomicI64::new(0));
        Self { base, started: Instant::now(), asleep_micros, wall_offset_micros }
    }

    /// Sets the wall clock forward; elapsed time stays.
    pub fn jump_forward(&self, by: Duration) {
        self.wall_offset_micros.fetch_add(signed_micros(by), Ordering::Relaxed);
    }

    /// Sets the wall clock back; elapsed time stays.
    pub fn jump_back(&self, by: Duration) {
        self.wall_offset_micros.fetch_sub(signed_micros(by), Ordering::Relaxed);
    }

    /// Lets the machine sleep: both times run on, no timer does.
    pub fn suspend(&self, by: Duration) {
        self.asleep_micros.fetch_add(signed_micros(by).unsigned_abs(), Ordering::Relaxed);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let now = self.base.after(self.elapsed());
        shifted(now, self.wall_offset_micros.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed() + Duration::from_micros(self.asleep_micros.load(Ordering::Relaxed))
    }
}

/// Clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    wall_micros: AtomicI64,
    elapsed_micros: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn starting_at(now: Timestamp) -> Self {
        Self { wall_micros: AtomicI64::new(now.as_micros()), elapsed_micros: AtomicU64::new(0) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let micros = signed_micros(by);
        self.wall_micros.fetch_add(micros, Ordering::Relaxed);
        self.elapsed_micros.fetch_add(micros.unsigned_abs(), Ordering::Relaxed);
    }

    /// Sets the wall clock; elapsed time stays.
    pub fn set_wall(&self, now: Timestamp) {
        self.wall_micros.store(now.as_micros(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.wall_micros.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.elapsed_micros.load(Ordering::Relaxed))
    }
}

fn signed_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn shifted(time: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(time.as_micros().saturating_add(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_wall_clock_leaves_elapsed_time_alone() {
        let clock = TokioClock::starting_at(Timestamp::from_secs(1_000));
        tokio::time::advance(Duration::from_secs(5)).await;
        clock.jump_back(HOUR);
        assert_eq!(clock.now(), Timestamp::from_secs(1_000 + 5 - 3_600));
        assert_eq!(clock.elapsed(), Duration::from_secs(5));
        clock.jump_forward(2 * HOUR);
        assert_eq!(clock.now(), Timestamp::from_secs(1_000 + 5 + 3_600));
    }

    #[tokio::test(start_paused = true)]
    async fn elapsed_time_runs_on_while_the_machine_sleeps() {
        let clock = TokioClock::starting_at(Timestamp::EPOCH);
        clock.suspend(HOUR);
        assert_eq!((clock.elapsed(), clock.now()), (HOUR, Timestamp::from_secs(3_600)));
    }

    #[test]
    fn a_manual_clock_stands_until_it_is_advanced() {
        let clock = ManualClock::starting_at(Timestamp::from_secs(7));
        assert_eq!(clock.now(), Timestamp::from_secs(7));
        clock.advance(HOUR);
        clock.set_wall(Timestamp::from_secs(1));
        assert_eq!((clock.now(), clock.elapsed()), (Timestamp::from_secs(1), HOUR));
    }
}
