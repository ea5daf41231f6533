//! When the store's files are rewritten, so that nothing is left in them of rows that are gone.
//!
//! A row that was deleted, written over or has ended stays in some file until a merge happens to reach it, which
//! may be never. So when anything went into the store since the last time, and that is [`Rule::every`] ago, every file is
//! merged into new ones and deleted. The merge has a thread of its own: checkpoints go in meanwhile, and those
//! that bring what ends after it began are for the next time. One runs at a time. The time of the last is kept in
//! the store, so that restarts do not put it off.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;

use super::Stats;
use super::store::Store;

/// How long a merge that failed is not tried again.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Whether it is time.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// The shortest time between two.
    every: Duration,
    /// When the last one began that was finished.
    last: Timestamp,
    /// Whether anything went into the store since.
    is_dirty: bool,
    /// Not before, after one that failed.
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
    stats: Arc<Stats>,
    rule: Rule,
    running: Option<JoinHandle<Result<Timestamp, StoreError>>>,
}

impl Compactor {
    /// Goes on from when the store was last rewritten; one that never was counts as rewritten now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn new(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        stats: Arc<Stats>,
        every: Duration,
    ) -> Result<Self, StoreError> {
        let last = match store.compacted_at()? {
            Some(last) => last,
            None => {
                let now = clock.now();
                store.note_compacted(now)?;
                now
            }
        };
        // What was written before the start is not known here.
        let rule = Rule { every, last, is_dirty: true, not_before: Timestamp::EPOCH };
        Ok(Self { store, clock, stats, rule, running: None })
    }

    /// Something went into the store.
    pub(super) fn wrote(&mut self) {
        self.rule.is_dirty = true;
    }

    /// Begins when it is time, and takes in what has come of the one that was begun.
    pub(super) fn look(&mut self) {
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish();
        }
        let now = self.clock.now();
        if self.running.is_some() || !self.rule.is_due(now) {
            return;
        }
        let (store, clock, stats) = (self.store.clone(), self.clock.clone(), self.stats.clone());
        let spawned = std::thread::Builder::new()
            .name("compact".into())
            .spawn(move || store.compact(&*clock, &stats).map(|()| now));
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
        tracing::warn!(%error, "bytes of rows that are gone stay in files; rewriting them is tried again later");
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
        assert!(!Rule { is_dirty: false, ..due }.is_due(now), "nothing is to be gained");
        assert!(!Rule { last: Timestamp::from_secs(9 * 86_400 + 1), ..due }.is_due(now));
        assert!(!Rule { not_before: now.after(DAY), ..due }.is_due(now), "it failed a moment ago");
        assert!(!due.is_due(Timestamp::from_secs(1)), "a clock that was set back puts it off");
    }
}
