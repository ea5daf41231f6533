//! The thread that writes checkpoints and clears away what is old.
//!
//! It alone changes rows of the key-value store: checkpoints one after the other, and between them it sweeps out
//! rows whose time is over, a piece at a time, deletes segments that nobody needs, and has the store's files
//! rewritten when it is time ([`Compactor`]). A checkpoint that fails is tried again; its rows stay in memory
//! and in the journal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::ports::clock::Clock;
use tokio::sync::mpsc;

use super::Stats;
use super::compaction::Compactor;
use super::disk::Disk;
use super::order::Order;
use super::saved::Frozen;
use super::segment;
use super::store::Store;
use super::view::View;

/// Rows that one sweep looks at.
const SWEPT_AT_ONCE: usize = 20_000;
/// The shortest time between sweeps, and the longest between looks at what is old.
const TEND_EVERY: Duration = Duration::from_secs(5);
/// How long a checkpoint waits for earlier ones to be merged.
const MERGED_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait before a checkpoint that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The checkpointer.
pub(super) struct Checkpointer {
    /// Where to.
    pub(super) store: Arc<Store>,
    /// What from.
    pub(super) view: Arc<View>,
    /// What time it is.
    pub(super) clock: Arc<dyn Clock>,
    /// Where segments are deleted.
    pub(super) disk: Arc<dyn Disk>,
    /// The folder of the segments.
    pub(super) journal: PathBuf,
    /// Whom to tell that time has passed; it does not keep the writer running.
    pub(super) orders: mpsc::WeakSender<Order>,
    /// When it last swept, and the row to go on from.
    pub(super) swept: (Duration, Option<Bytes>),
    /// Who rewrites the files.
    pub(super) compactor: Compactor,
    /// Where it counts.
    pub(super) stats: Arc<Stats>,
}

impl Checkpointer {
    /// Runs until everything has ended and the last frozen rows are written.
    pub(super) fn run(mut self) {
        while let Some(frozen) = self.view.next_frozen(TEND_EVERY) {
            if let Some(frozen) = frozen {
                if !self.write(&frozen) {
                    if self.view.read().stopped {
                        break;
                    }
                    // Room may be what is missing.
                    self.forget();
                    std::thread::sleep(RETRY_AFTER);
                    continue;
                }
                self.compactor.wrote();
                self.view.thaw();
            } else if let Some(orders) = self.orders.upgrade() {
                // A writer that is busy looks after itself.
                drop(orders.try_send(Order::Tend));
            }
            self.forget();
            self.sweep();
            self.compactor.look();
        }
        self.compactor.finish();
    }

    fn write(&self, frozen: &Frozen) -> bool {
        // Bounded: a store that no longer merges is slow to read, but holds what it is given.
        let began = self.clock.elapsed();
        while self.store.is_behind()
            && self.clock.elapsed().saturating_sub(began) < MERGED_WITHIN
            && !self.view.read().stopped
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        match self.store.ingest(frozen, self.clock.now()) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "a checkpoint cannot be written; it is tried again");
                self.view.fail(error.to_string());
                false
            }
        }
    }

    fn forget(&self) {
        for id in self.view.forget_segments(self.clock.now()) {
            let path = segment::path(&self.journal, id);
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(%error, path = %path.display(), "an old segment cannot be deleted");
            }
        }
    }

    fn sweep(&mut self) {
        let elapsed = self.clock.elapsed();
        // Each piece is one more table to look into until it is merged.
        if elapsed.saturating_sub(self.swept.0) < TEND_EVERY || self.store.is_compacting() {
            return;
        }
        // Only rows that nobody has changed since: a changed one is in memory and goes in with the next
        // checkpoint, which cannot be written meanwhile: it is this thread's work.
        let untouched = |key: &[u8]| self.view.read().row(key).is_none();
        match self.store.sweep(self.swept.1.as_ref(), SWEPT_AT_ONCE, self.clock.now(), untouched) {
            Ok((next, rows)) => {
                self.swept = (elapsed, next);
                self.stats.swept_out(rows);
                if rows > 0 {
                    self.compactor.wrote();
                }
            }
            Err(error) => tracing::warn!(%error, "rows whose time is over cannot be swept out"),
        }
    }
}
