//! Counts for how long intake has accepted webhooks, and how many messages each account received.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::id::AccountKey;
use heddle_schemas::ports::clock::Clock;

/// Factor that bounds a wait for a status: it is over after this many times its length, however often webhooks are
/// refused.
const LONGEST_WAIT: u32 = 10;
/// Time for which a received webhook counts towards an account's limit.
const COUNTED_FOR: Duration = Duration::from_millis(1_500);
/// Time within which webhooks of an account are counted together.
const COUNTED_TOGETHER: Duration = Duration::from_millis(20);
/// Accounts in a map at which those that have nothing recent are dropped.
const SWEPT_AT: usize = 10_000;
/// Time after which a refused webhook says nothing any more.
const REFUSED_FOR: Duration = Duration::from_secs(86_400);

/// Gate of the intake: the total time for which webhooks have been accepted, which is the time that counts in the wait
/// for a status, and the messages that each account received.
///
/// A webhook that could not be accepted comes again later, and may hold the very status that is awaited: the waits of
/// its account begin anew with each, up to [`LONGEST_WAIT`] times.
pub struct IntakeGate {
    clock: Arc<dyn Clock>,
    open: Mutex<Opened>,
    counts: Mutex<Counts>,
}

/// Recent webhooks of accounts, by time.
#[derive(Default)]
struct Counts {
    of: HashMap<AccountKey, VecDeque<(Duration, u32)>>,
    sweep_at: usize,
}

#[derive(Default)]
struct Opened {
    /// Total time open before it was last opened.
    before: Duration,
    /// Since when it is open.
    since: Option<Duration>,
    /// Total time open when a webhook of an account was last refused.
    refused_at: HashMap<AccountKey, Duration>,
    sweep_at: usize,
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

    /// Sets whether webhooks are accepted from now on.
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

    /// Returns the total time open.
    #[must_use]
    pub fn open_for(&self) -> Duration {
        self.lock().time(self.clock.elapsed())
    }

    /// Returns the time for which an account has waited in vain for something that could have come in: since `since`, a
    /// value of [`IntakeGate::open_for`], or since a webhook of the account was last refused.
    #[must_use]
    pub fn waited(&self, account: &AccountKey, since: Duration) -> Duration {
        let state = self.lock();
        let refused_at = state.refused_at.get(account).copied().unwrap_or_default();
        state.time(self.clock.elapsed()).saturating_sub(since.max(refused_at))
    }

    /// Returns true when the wait for an account's status is over.
    #[must_use]
    pub fn is_over(&self, account: &AccountKey, since: Duration, wait: Duration) -> bool {
        self.waited(account, since) >= wait || self.open_for().saturating_sub(since) >= wait * LONGEST_WAIT
    }

    /// Records that a webhook of an account was refused; it comes again.
    pub fn refused(&self, account: &AccountKey) {
        let now = self.clock.elapsed();
        let mut state = self.lock();
        let time = state.time(now);
        if state.refused_at.len() >= state.sweep_at.max(SWEPT_AT) {
            state.refused_at.retain(|_, at| *at + REFUSED_FOR > time);
            state.sweep_at = state.refused_at.len() * 2;
        }
        state.refused_at.insert(account.clone(), time);
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn received(&self, account: &AccountKey) {
        let now = self.clock.elapsed();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.of.len() >= counts.sweep_at.max(SWEPT_AT) {
            counts.of.retain(|_, times| times.back().is_some_and(|(at, _)| *at + COUNTED_FOR > now));
            counts.sweep_at = counts.of.len() * 2;
        }
        let times = match counts.of.get_mut(account) {
            Some(times) => times,
            None => counts.of.entry(account.clone()).or_default(),
        };
        match times.back_mut() {
            Some((at, messages)) if *at + COUNTED_TOGETHER > now => *messages += 1,
            _ => times.push_back((now, 1)),
        }
        while times.front().is_some_and(|(at, _)| *at + COUNTED_FOR <= now) {
            times.pop_front();
        }
    }

    /// Takes out how many messages an account received since the last call, and when: they count towards its limit.
    #[must_use]
    pub fn take_received(&self, account: &AccountKey) -> Vec<(Duration, u32)> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.of.get_mut(account).map(|times| times.drain(..).collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use heddle_schemas::time::Timestamp;

    use super::*;

    /// Clock that stands at a number of seconds.
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
        let account: AccountKey = "acme/whatsapp/1".parse().unwrap();
        let waited = |since| intake_gate.waited(&account, since).as_secs();
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
        intake_gate.refused(&account);
        assert_eq!(waited(since), 0, "what was sent away may be what is waited for");
        at(105);
        assert_eq!(waited(since), 2);
        assert_eq!(waited(intake_gate.open_for()), 0);
    }

    #[test]
    fn a_refused_webhook_of_one_account_says_nothing_of_others() {
        let clock = Arc::<Seconds>::default();
        let intake_gate = IntakeGate::new(clock.clone());
        intake_gate.set_open(true);
        let [one, other]: [AccountKey; 2] =
            ["acme/whatsapp/1", "globex/whatsapp/2"].map(|key| key.parse().unwrap());
        clock.0.store(100, Ordering::Relaxed);
        intake_gate.refused(&one);
        let wait = Duration::from_secs(60);
        assert!(!intake_gate.is_over(&one, Duration::ZERO, wait));
        assert!(intake_gate.is_over(&other, Duration::ZERO, wait));
    }

    #[test]
    fn webhooks_that_are_refused_for_ever_end_no_wait_for_ever() {
        let clock = Arc::<Seconds>::default();
        let intake_gate = IntakeGate::new(clock.clone());
        intake_gate.set_open(true);
        let account: AccountKey = "acme/whatsapp/1".parse().unwrap();
        let is_over = |seconds| {
            clock.0.store(seconds, Ordering::Relaxed);
            intake_gate.refused(&account);
            intake_gate.is_over(&account, Duration::ZERO, Duration::from_secs(60))
        };
        assert!(!is_over(599));
        assert!(is_over(600));
    }

    #[test]
    fn received_messages_are_counted_at_their_time() {
        let clock = Arc::<Seconds>::default();
        let intake_gate = IntakeGate::new(clock.clone());
        let account: AccountKey = "acme/whatsapp/1".parse().unwrap();
        clock.0.store(10, Ordering::Relaxed);
        intake_gate.received(&account);
        clock.0.store(20, Ordering::Relaxed);
        intake_gate.received(&account);
        intake_gate.received(&account);
        assert_eq!(intake_gate.take_received(&account), [(Duration::from_secs(20), 2)], "the first is over");
        assert_eq!(intake_gate.take_received(&account), []);
    }
}
