//! Thread that writes checkpoints and removes expired data.
//!
//! It is the only thread that changes rows of the key-value store. It writes checkpoints one after the other; between
//! them it sweeps expired rows, a batch at a time, deletes segments that are no longer needed, and rewrites the store's
//! files when that is due ([`Compactor`]). A failed checkpoint is retried; its rows stay in memory and in the journal.

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

/// Rows that one sweep checks.
const SWEPT_AT_ONCE: usize = 20_000;
/// Minimum time between sweeps, and maximum time between checks for expired data.
const TEND_EVERY: Duration = Duration::from_secs(5);
/// Time that a checkpoint waits for earlier ones to be merged.
const MERGED_WITHIN: Duration = Duration::from_secs(10);
/// Pause before a failed checkpoint is retried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The checkpointer.
pub(super) struct Checkpointer {
    /// Destination.
    pub(super) store: Arc<Store>,
    /// Source.
    pub(super) view: Arc<View>,
    /// Clock that decides what has expired.
    pub(super) clock: Arc<dyn Clock>,
    /// Disk that segments are deleted from.
    pub(super) disk: Arc<dyn Disk>,
    /// The folder of the segments.
    pub(super) journal: PathBuf,
    /// Channel that triggers the writer's periodic work; weak, so that it does not keep the writer running.
    pub(super) orders: mpsc::WeakSender<Order>,
    /// Time of the last sweep, and the row to continue from.
    pub(super) swept: (Duration, Option<Bytes>),
    /// Rewrites the store's files.
    pub(super) compactor: Compactor,
    /// Counters.
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
                    // The failure may be for lack of room.
                    self.forget();
                    std::thread::sleep(RETRY_AFTER);
                    continue;
                }
                self.compactor.wrote();
                self.view.thaw();
            } else if let Some(orders) = self.orders.upgrade() {
                // A busy writer does this work by itself.
                drop(orders.try_send(Order::Tend));
            }
            self.forget();
            self.sweep();
            self.compactor.look();
        }
        self.compactor.finish();
    }

    fn write(&self, frozen: &Frozen) -> bool {
        // Bounded: a store that no longer merges is slow to read, but still holds its rows.
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
                tracing::error!(%error, "a checkpoint cannot be written; retrying");
                self.view.fail(error.to_string());
                false
            }
        }
    }

    fn forget(&self) {
        segment::forget(&self.view, &*self.disk, &self.journal, self.clock.now(), 0);
    }

    fn sweep(&mut self) {
        let elapsed = self.clock.elapsed();
        // Each piece is one more table to look into until it is merged.
        if elapsed.saturating_sub(self.swept.0) < TEND_EVERY || self.store.is_compacting() {
            return;
        }
        // Only rows without a later change are swept: a changed row is in memory and goes in with the next
        // checkpoint, which this same thread writes, so it cannot run meanwhile.
        let untouched = |key: &[u8]| self.view.read().row(key).is_none();
        match self.store.sweep(self.swept.1.as_ref(), SWEPT_AT_ONCE, self.clock.now(), untouched) {
            Ok((next, rows)) => {
                self.swept = (elapsed, next);
                self.stats.swept_out(rows);
                if rows > 0 {
                    self.compactor.wrote();
                }
            }
            Err(error) => tracing::warn!(%error, "expired rows cannot be swept; retrying"),
        }
    }
}
