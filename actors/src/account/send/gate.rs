//! Gate of a number: where prepared calls wait for their release, in real time.
//!
//! [`Release`] decides; the gate has a task of its own that wakes when a call is due, so that neither the account's
//! mailbox nor its store delays a release. A [`Slot`] gives its place back however it ends.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::id::AccountKey;
use ractor::ActorRef;
use tokio::sync::{Notify, oneshot};

use crate::account::AccountMessage;
use crate::account::schedule::Class;
use crate::account::schedule::release::{CallEnd, Place, Release, Turn};
use crate::intake::gate::IntakeGate;
use crate::invariants::{Invariant, is_paced};
use crate::ports::Ports;

/// Calls that would have to wait for longer come back: while the breaker is open, what is journaled as attempted is not
/// kept so, and no record is kept in work.
const RECALLED_AFTER: Duration = Duration::from_secs(2);

/// Window of the pace.
const SECOND: Duration = Duration::from_secs(1);

/// The gate of a number.
pub(crate) struct Gate {
    account: AccountKey,
    ports: Ports,
    intake: Arc<IntakeGate>,
    actor: ActorRef<AccountMessage>,
    release: Mutex<Release<oneshot::Sender<Turn>>>,
    /// Times of the calls that left last, apart from those that the release decides by: its check (I6).
    left: Mutex<Left>,
    changed: Notify,
    /// Whether the account knows that there is room to prepare more.
    is_told: AtomicBool,
}

/// Calls that left last, as many as a second may hold and one more.
#[derive(Default)]
struct Left {
    limit: usize,
    times: VecDeque<Duration>,
}

impl Left {
    fn set_limit(&mut self, limit: usize) {
        if self.limit != limit {
            // What left under another limit says nothing of this one.
            *self = Self { limit, times: VecDeque::new() };
        }
    }

    /// Counts a call that leaves. Returns when the call left that is as many before as the limit, where there is one.
    fn leave(&mut self, now: Duration) -> Option<Duration> {
        if self.limit == 0 {
            return None;
        }
        self.times.push_back(now);
        (self.times.len() > self.limit).then(|| self.times.pop_front()).flatten()
    }
}

impl Gate {
    /// Returns a gate for at most so many calls under way.
    pub(crate) fn new(
        account: AccountKey,
        ports: Ports,
        intake: Arc<IntakeGate>,
        calls: usize,
        actor: ActorRef<AccountMessage>,
    ) -> Arc<Self> {
        let release = Mutex::new(Release::new(calls));
        let (changed, is_told) = (Notify::new(), AtomicBool::new(false));
        Arc::new(Self { account, ports, intake, actor, release, left: Mutex::default(), changed, is_told })
    }

    /// Changes what the release decides by.
    pub(crate) fn with<T>(
        &self,
        change: impl FnOnce(&mut Release<oneshot::Sender<Turn>>, Duration) -> T,
    ) -> T {
        let changed = change(&mut self.lock(), self.ports.clock.elapsed());
        self.changed.notify_one();
        changed
    }

    /// Returns what may be prepared now, and when more may be.
    pub(crate) fn room(&self) -> (usize, Duration) {
        self.is_told.store(false, Ordering::Release);
        let release = self.lock();
        (release.room(self.ports.clock.elapsed()), release.prepare_at())
    }

    fn lock(&self) -> MutexGuard<'_, Release<oneshot::Sender<Turn>>> {
        self.release.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how many calls may leave in a second.
    pub(crate) fn set_limit(&self, limit: NonZeroU32) {
        self.with(|release, now| release.set_limit(limit, now));
        let limit = usize::try_from(limit.get()).unwrap_or(usize::MAX);
        self.left.lock().unwrap_or_else(PoisonError::into_inner).set_limit(limit);
    }

    fn check_pace(&self, now: Duration) {
        let before = self.left.lock().unwrap_or_else(PoisonError::into_inner).leave(now);
        self.ports.metrics.check(Invariant::Limits, is_paced(before, now, SECOND), || {
            format!("account {}: calls at {before:?} and {now:?} are more than its limit apart", self.account)
        });
    }

    /// Releases calls for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            match self.let_go() {
                Some(wait) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Releases what is due. Returns how long to wait for the next.
    fn let_go(&self) -> Option<Duration> {
        let now = self.ports.clock.elapsed();
        let received = self.intake.take_received(&self.account);
        let mut release = self.lock();
        if self.ports.profile(self.account.channel).is_some_and(|profile| profile.counts_inbound) {
            received.into_iter().for_each(|(at, messages)| release.received(messages, at));
        }
        let mut has_left = false;
        while let Some((waiter, turn)) = release.next(now) {
            has_left |= matches!(turn, Turn::Leave(_));
            match (waiter.send(turn), turn) {
                (Err(_), Turn::Leave(generation)) => release.ended(generation, CallEnd::Nothing, now),
                (Ok(()), Turn::Leave(_)) => self.check_pace(now),
                _ => {}
            }
        }
        let wait = release.next_at().map(|at| at.saturating_sub(now));
        let recalled = match wait {
            Some(wait) if wait > RECALLED_AFTER => release.clear(),
            _ => Vec::new(),
        };
        drop(release);
        // A call that has left makes room to prepare more, long before it ends.
        if has_left && !self.is_told.swap(true, Ordering::AcqRel) {
            drop(self.actor.send_message(AccountMessage::Room));
        }
        if recalled.is_empty() {
            return wait;
        }
        for waiter in recalled {
            // The waiter may have gone.
            let _ = waiter.send(Turn::Return);
        }
        None
    }

    /// Begins to prepare a call.
    pub(crate) fn prepare(self: &Arc<Self>) -> Slot {
        self.lock().prepare();
        Slot { gate: self.clone(), state: State::Preparing }
    }

    /// Has all calls that wait come back.
    pub(crate) fn recall(&self) {
        for waiter in self.with(|release, _| release.clear()) {
            // The waiter may have gone.
            let _ = waiter.send(Turn::Return);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Preparing,
    Left(u64),
    Over,
}

/// Place of one call.
pub(crate) struct Slot {
    gate: Arc<Gate>,
    state: State,
}

impl Slot {
    /// Waits until the call may leave, must be checked again, or has to come back.
    pub(crate) async fn wait(&mut self, class: Class, place: Option<Place>, checked_at: Duration) -> Turn {
        let (waiter, turn) = oneshot::channel();
        self.gate.with(|release, _| release.wait(class, place, waiter, checked_at));
        let turn = turn.await.unwrap_or(Turn::Return);
        if let Turn::Leave(generation) = turn {
            self.state = State::Left(generation);
        }
        turn
    }

    /// Ends a call that has left. Returns whether it left after the last suspension or pause.
    pub(crate) fn end(mut self, end: CallEnd) -> bool {
        let State::Left(generation) = std::mem::replace(&mut self.state, State::Over) else { return false };
        self.gate.with(|release, now| {
            let is_current = generation == release.generation();
            release.ended(generation, end, now);
            is_current
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        match self.state {
            State::Preparing => self.gate.with(|release, _| release.dropped()),
            State::Left(generation) => {
                self.gate.with(|release, now| release.ended(generation, CallEnd::Failed, now));
            }
            State::Over => {}
        }
    }
}
