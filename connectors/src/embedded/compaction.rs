//! Periodic rewrite of the store's files, so that no bytes of removed rows are left in them.
//!
//! A row that was deleted, overwritten or has expired stays in some file until a merge happens to reach it, which may
//! be never. So every file is merged into new ones and deleted when something was written to the store since the last
//! rewrite and that rewrite is [`Rule::every`] ago. The merge has a thread of its own: checkpoints continue meanwhile,
//! and what they bring after the merge began waits for the next rewrite. One merge runs at a time. The time of the last
//! one is kept in the store, so that restarts do not postpone it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;

use super::store::Store;

/// Pause before a failed merge is retried.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Rule that decides when a rewrite is due.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// The shortest time between two.
    every: Duration,
    /// Start of the last rewrite that was completed.
    last: Timestamp,
    /// True if anything was written to the store since.
    is_dirty: bool,
    /// Earliest time of the next attempt, after one that failed.
    not_before: Timestamp,
}

impl Rule {
    fn is_due(&self, now: Timestamp) -> bool {
        self.is_dirty && now.since(self.last) >= self.every && now >= self.not_before
    }
}

/// Rewrites the store when it is time.
pub(super) struct Compactor {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    rule: Rule,
    running: Option<JoinHandle<Result<Timestamp, StoreError>>>,
}

impl Compactor {
    /// Continues from the store's last rewrite; a store without one counts as rewritten now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn new(store: Arc<Store>, clock: Arc<dyn Clock>, every: Duration) -> Result<Self, StoreError> {
        let last = match store.compacted_at()? {
            Some(last) => last,
            None => {
                let now = clock.now();
                // A full disk must not keep it from starting; it is noted at a later start then.
                if let Err(error) = store.note_compacted(now) {
                    tracing::warn!(%error, "the start of the interval between rewrites cannot be noted");
                }
                now
            }
        };
        // Writes from before the start are not known here, so it counts as dirty.
        let rule = Rule { every, last, is_dirty: true, not_before: Timestamp::EPOCH };
        Ok(Self { store, clock, rule, running: None })
    }

    /// Something went into the store.
    pub(super) fn wrote(&mut self) {
        self.rule.is_dirty = true;
    }

    /// Begins a rewrite when it is due, and collects the result of the previous one.
    pub(super) fn look(&mut self) {
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish();
        }
        let now = self.clock.now();
        if self.running.is_some() || !self.rule.is_due(now) {
            return;
        }
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let spawned = std::thread::Builder::new()
            .name("compact".into())
            .spawn(move || store.compact(&*clock).map(|()| now));
        match spawned {
            Ok(running) => {
                self.rule.is_dirty = false;
                self.running = Some(running);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Waits for the one that runs.
    pub(super) fn finish(&mut self) {
        match self.running.take().map(JoinHandle::join) {
            Some(Ok(Ok(began))) => self.rule.last = began,
            Some(Ok(Err(error))) => self.failed(&error),
            Some(Err(_)) => self.failed(&"its thread panicked"),
            None => {}
        }
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) {
        tracing::warn!(%error, "rewriting the store files failed, so bytes of removed rows stay in them; continued later");
        self.rule.is_dirty = true;
        self.rule.not_before = self.clock.now().after(RETRY_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn it_is_time_when_something_came_and_the_last_is_long_ago() {
        let now = Timestamp::from_secs(10 * 86_400);
        let due = Rule {
            every: DAY,
            last: Timestamp::from_secs(9 * 86_400),
            is_dirty: true,
            not_before: Timestamp::EPOCH,
        };
        assert!(due.is_due(now));
        assert!(!Rule { is_dirty: false, ..due }.is_due(now), "a clean store is not rewritten");
        assert!(!Rule { last: Timestamp::from_secs(9 * 86_400 + 1), ..due }.is_due(now));
        assert!(!Rule { not_before: now.after(DAY), ..due }.is_due(now), "it failed a moment ago");
        assert!(!due.is_due(Timestamp::from_secs(1)), "a clock that was set back puts it off");
    }
}
