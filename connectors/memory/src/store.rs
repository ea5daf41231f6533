//! Log and state over a memory disk, one incarnation at a time.
//!
//! By default a batch is one step. With [`Options::split`] it is four, as it is where log and
//! state are two systems: rows, then records, then the rows after them, then offsets, and a crash or a
//! failure may come after each. A step that fails after an earlier one took effect is `Unavailable`, never `Full`: the
//! caller cannot know what happened.
//!
//! Opening a disk again ends the incarnation before it. Its handles then answer `Fenced` where a
//! fence is given and `Closed` otherwise, also to calls that were under way, and change nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::Fence;
use heddle_schemas::topic::TopicPartition;

use super::disk::{Content, MemoryDisk};
use super::faults::{Fault, Faults, Operation, Outcome, pause};

/// Configuration of an incarnation.
#[derive(Clone)]
pub struct Options {
    /// True for a batch in four steps instead of one. Default: one.
    pub split: bool,
    /// Bytes of key and value that a record may have. Default: 1 MiB, Kafka's `message.max.bytes`.
    pub record_limit: usize,
    /// Injected faults. Default: none.
    pub faults: Arc<dyn Faults>,
}

impl Default for Options {
    fn default() -> Self {
        Self { split: false, record_limit: 1 << 20, faults: Arc::new(|_| Fault::NONE) }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { split, record_limit, faults: _ } = self;
        f.debug_struct("Options")
            .field("split", split)
            .field("record_limit", record_limit)
            .finish_non_exhaustive()
    }
}

/// One incarnation of log and state over a disk.
pub struct MemoryStore {
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Options,
    pub(super) incarnation: u64,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// Opens a disk without faults; the previous incarnation is fenced. The new incarnation owns every
    /// partition, under a raised epoch.
    #[must_use]
    pub fn open(disk: Arc<MemoryDisk>, clock: Arc<dyn Clock>) -> Self {
        Self::open_with(disk, clock, Options::default())
    }

    /// As [`MemoryStore::open`], with options.
    #[must_use]
    pub fn open_with(disk: Arc<MemoryDisk>, clock: Arc<dyn Clock>, options: Options) -> Self {
        let owned = disk.consumed_partitions();
        let incarnation = disk.lock().begin_incarnation(&owned);
        disk.changed.notify_waiters();
        Self { disk, clock, options, incarnation }
    }

    /// Changes the partitions that this incarnation owns, as a rebalance does: lost and new ones get a new
    /// epoch, kept ones keep theirs.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if the incarnation has ended.
    pub fn assign(&self, owned: &BTreeSet<TopicPartition>) -> Result<(), StoreError> {
        let mut content = self.disk.lock();
        content.admit(self.incarnation, None)?;
        content.assign(owned);
        drop(content);
        self.disk.changed.notify_waiters();
        Ok(())
    }

    /// Ends this incarnation in order: unlike after a crash, acknowledgements are kept.
    pub fn close(&self) {
        let mut content = self.disk.lock();
        if content.admit(self.incarnation, None).is_ok() {
            content.close();
        }
        drop(content);
        self.disk.changed.notify_waiters();
    }

    /// Runs one step under its fault: waits, takes effect at one moment or not at all, waits.
    pub(super) async fn step<T>(
        &self,
        operation: Operation,
        fence: Option<Fence>,
        effect: impl FnOnce(&mut Content) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let fault = self.options.faults.next(operation);
        pause(fault.before).await;
        let result = self.take_effect(operation, fault.outcome, fence, effect);
        pause(fault.after).await;
        if result.is_ok() {
            // A store that ended while the answer was on its way gives none.
            self.disk.lock().admit(self.incarnation, None)?;
        }
        match (fault.outcome, result) {
            (Outcome::FailsAfter, Ok(_)) => Err(unavailable(operation)),
            (_, result) => result,
        }
    }

    fn take_effect<T>(
        &self,
        operation: Operation,
        outcome: Outcome,
        fence: Option<Fence>,
        effect: impl FnOnce(&mut Content) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut content = self.disk.lock();
        content.admit(self.incarnation, fence)?;
        let result = match outcome {
            Outcome::FailsBefore => Err(unavailable(operation)),
            Outcome::Full if needs_room(operation) => Err(full(operation)),
            _ => effect(&mut content),
        };
        drop(content);
        if publishes(operation) {
            self.disk.changed.notify_waiters();
        }
        result
    }

    pub(super) fn check_sizes(&self, sizes: impl Iterator<Item = usize>) -> Result<(), StoreError> {
        let limit = self.options.record_limit;
        match sizes.max() {
            Some(bytes) if bytes > limit => Err(StoreError::TooLarge { bytes, limit }),
            _ => Ok(()),
        }
    }
}

fn needs_room(operation: Operation) -> bool {
    use Operation::{Append, Commit, CommitOutputs, CommitWrites, CompareAndSet};
    matches!(operation, Append | CompareAndSet | Commit | CommitWrites | CommitOutputs)
}

fn publishes(operation: Operation) -> bool {
    matches!(operation, Operation::Append | Operation::Commit | Operation::CommitOutputs)
}

fn unavailable(operation: Operation) -> StoreError {
    StoreError::Unavailable { detail: format!("injected into {operation:?}") }
}

fn full(operation: Operation) -> StoreError {
    StoreError::Full { detail: format!("injected into {operation:?}") }
}

#[cfg(test)]
mod tests;
