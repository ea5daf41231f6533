//! Counters of what the embedded store has written and rewritten.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the store was opened.
#[derive(Debug, Default)]
pub struct Stats {
    frames: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
    compactions: AtomicU64,
    compacted_micros: AtomicU64,
    swept: AtomicU64,
    checkpoints: AtomicU64,
    reopened: AtomicU64,
    refused: AtomicBool,
}

impl Stats {
    /// Frames, each with one sync.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Bytes of these frames.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the number of batches, appends and conditional writes in them: with the frames, the size of groups.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Returns the number of rewrites of its files without the bytes of removed rows.
    #[must_use]
    pub fn compactions(&self) -> u64 {
        self.compactions.load(Ordering::Relaxed)
    }

    /// Returns the total time that these rewrites took.
    #[must_use]
    pub fn compacted_for(&self) -> Duration {
        Duration::from_micros(self.compacted_micros.load(Ordering::Relaxed))
    }

    /// Rows that were deleted because their time was over.
    #[must_use]
    pub fn swept(&self) -> u64 {
        self.swept.load(Ordering::Relaxed)
    }

    /// Returns the number of checkpoints that were written.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.load(Ordering::Relaxed)
    }

    pub(super) fn checkpointed(&self) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how often the checkpoint store was opened again after a failed write or merge.
    #[must_use]
    pub fn reopens(&self) -> u64 {
        self.reopened.load(Ordering::Relaxed)
    }

    /// Returns true if the last rewrite of the files stopped for lack of room.
    #[must_use]
    pub fn is_compaction_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn reopened(&self) {
        self.reopened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn compaction_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::Relaxed);
    }

    pub(super) fn compacted(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.compacted_micros.fetch_add(micros, Ordering::Relaxed);
        self.compactions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn swept_out(&self, rows: usize) {
        self.swept.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: u64, batches: u64) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.batches.fetch_add(batches, Ordering::Relaxed);
    }
}
