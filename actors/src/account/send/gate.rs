//! Gate of a number: where prepared calls wait for their release, in real time.
//!
//! [`Release`] decides; the gate has a task of its own that wakes when a call is due, so that neither the account's
//! mailbox nor its store delays a release. A [`Slot`] gives its place back however it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::id::AccountKey;
use tokio::sync::{Notify, oneshot};

use crate::account::schedule::Class;
use crate::account::schedule::release::{CallEnd, Place, Release, Turn};
use crate::intake::gate::IntakeGate;
use crate::ports::Ports;

/// The gate of a number.
pub(crate) struct Gate {
    account: AccountKey,
    ports: Ports,
    intake: Arc<IntakeGate>,
    release: Mutex<Release<oneshot::Sender<Turn>>>,
    changed: Notify,
}

impl Gate {
    /// Returns a gate for at most so many calls under way.
    pub(crate) fn new(account: AccountKey, ports: Ports, intake: Arc<IntakeGate>, calls: usize) -> Arc<Self> {
        let release = Mutex::new(Release::new(calls));
        Arc::new(Self { account, ports, intake, release, changed: Notify::new() })
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
        let release = self.lock();
        (release.room(self.ports.clock.elapsed()), release.prepare_at())
    }

    fn lock(&self) -> MutexGuard<'_, Release<oneshot::Sender<Turn>>> {
        self.release.lock().unwrap_or_else(PoisonError::into_inner)
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
        received.into_iter().for_each(|(at, messages)| release.received(messages, at));
        while let Some((waiter, turn)) = release.next(now) {
            if let (Err(_), Turn::Leave(generation)) = (waiter.send(turn), turn) {
                release.ended(generation, CallEnd::Nothing, now);
            }
        }
        release.next_at().map(|at| at.saturating_sub(now))
    }

    /// Begins to prepare a call.
    pub(crate) fn prepare(self: &Arc<Self>) -> Slot {
        self.lock().prepare();
        Slot { gate: self.clone(), state: State::Preparing }
    }

    /// Has all calls that wait come back.
    pub(crate) fn recall(&self) {
        for waiter in self.with(|release, _| release.clear()) {
            // Whoever does not wait any more has no use for it.
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
