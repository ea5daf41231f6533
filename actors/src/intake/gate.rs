//! Counts for how long intake has accepted webhooks, and how many messages each account received.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::id::AccountKey;
use heddle_schemas::ports::clock::Clock;

/// For how long, all in all, webhooks have been taken in: the time that counts when a status is waited for.
///
/// A webhook that could not be taken in comes again later, and may be the very status that is waited for: a
/// wait begins anew with each of them.
pub struct IntakeGate {
    clock: Arc<dyn Clock>,
    open: Mutex<Opened>,
    counts: Mutex<HashMap<AccountKey, u64>>,
}

#[derive(Default)]
struct Opened {
    /// For how long it has been open before it was opened last.
    before: Duration,
    /// Since when it is open.
    since: Option<Duration>,
    /// For how long it had been open when something was sent away last.
    refused_at: Duration,
}

impl Opened {
    fn time(&self, now: Duration) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

impl IntakeGate {
    /// Closed; nothing counted yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, open: Mutex::default(), counts: Mutex::default() })
    }

    /// Webhooks are being taken in from now on, or no more.
    pub fn set_open(&self, open: bool) {
        let now = self.clock.elapsed();
        let mut state = self.lock();
        match (state.since, open) {
            (None, true) => state.since = Some(now),
            (Some(_), false) => {
                state.before = state.time(now);
                state.since = None;
            }
            _ => {}
        }
    }

    /// For how long it has been open.
    #[must_use]
    pub fn open_for(&self) -> Duration {
        self.lock().time(self.clock.elapsed())
    }

    /// For how long something has been waited for in vain that could have come in: since `since`, a value of
    /// [`IntakeGate::open_for`], or since the last time that anything was sent away.
    #[must_use]
    pub fn waited(&self, since: Duration) -> Duration {
        let state = self.lock();
        state.time(self.clock.elapsed()).saturating_sub(since.max(state.refused_at))
    }

    /// Something was sent away; it comes again.
    pub(crate) fn refused(&self) {
        let now = self.clock.elapsed();
        let mut state = self.lock();
        state.refused_at = state.time(now);
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn received(&self, account: &AccountKey) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(account.clone()).or_default() += 1;
    }

    /// Takes out how many messages an account received since the last call: they count towards its limit.
    #[must_use]
    pub fn take_received(&self, account: &AccountKey) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(account).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use heddle_schemas::time::Timestamp;

    use super::*;

    /// A clock that stands at so many seconds.
    #[derive(Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn only_time_in_which_everything_got_in_is_waited() {
        let clock = Arc::<Seconds>::default();
        let intake_gate = IntakeGate::new(clock.clone());
        let at = |seconds| clock.0.store(seconds, Ordering::Relaxed);
        let waited = |since| intake_gate.waited(since).as_secs();
        at(10);
        intake_gate.set_open(true);
        let since = intake_gate.open_for();
        at(14);
        assert_eq!(waited(since), 4);
        intake_gate.set_open(false);
        at(100);
        assert_eq!(waited(since), 4, "nothing could come in");
        intake_gate.set_open(true);
        at(103);
        assert_eq!(waited(since), 7);
        intake_gate.refused();
        assert_eq!(waited(since), 0, "what was sent away may be what is waited for");
        at(105);
        assert_eq!(waited(since), 2);
        assert_eq!(waited(intake_gate.open_for()), 0);
    }
}
