//! Offsets that this node has acknowledged of the partitions it owns, and the part that is committed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use heddle_schemas::ledger::Position;
use heddle_schemas::topic::{Offset, TopicPartition};

#[derive(Debug)]
struct Ledger {
    position: Position,
    committed: Position,
}

/// The ledgers of the owned partitions.
#[derive(Debug, Default)]
pub(super) struct Offsets(Mutex<HashMap<TopicPartition, Ledger>>);

impl Offsets {
    /// Takes over a partition at its committed position.
    pub(super) fn open(&self, partition: TopicPartition, committed: Position) {
        let ledger = Ledger { position: committed.clone(), committed };
        self.lock().insert(partition, ledger);
    }

    /// Drops a partition: acknowledgements that are not committed by now are processed again by the next owner.
    pub(super) fn close(&self, partition: TopicPartition) {
        self.lock().remove(&partition);
    }

    /// Returns the acknowledged position of an owned partition.
    pub(super) fn position(&self, partition: TopicPartition) -> Option<Position> {
        self.lock().get(&partition).map(|ledger| ledger.position.clone())
    }

    /// Acknowledges offsets. Partitions that are no longer owned are ignored.
    pub(super) fn complete(&self, partition: TopicPartition, offsets: impl IntoIterator<Item = Offset>) {
        if let Some(ledger) = self.lock().get_mut(&partition) {
            for offset in offsets {
                ledger.position.complete(offset);
            }
        }
    }

    /// Offsets without a record, such as a transaction's marker, are done as soon as they are met.
    pub(super) fn skip(&self, partition: TopicPartition, gap: std::ops::Range<Offset>) {
        self.complete(partition, gap);
    }

    /// Returns positions that have changed since they were committed, of these partitions or of all.
    pub(super) fn changed(&self, of: Option<&[TopicPartition]>) -> Vec<(TopicPartition, Position)> {
        let ledgers = self.lock();
        let changed = ledgers.iter().filter(|(partition, ledger)| {
            ledger.position != ledger.committed && of.is_none_or(|of| of.contains(partition))
        });
        changed.map(|(&partition, ledger)| (partition, ledger.position.clone())).collect()
    }

    /// Records that these positions have been committed.
    pub(super) fn committed(&self, positions: Vec<(TopicPartition, Position)>) {
        let mut ledgers = self.lock();
        for (partition, position) in positions {
            if let Some(ledger) = ledgers.get_mut(&partition) {
                ledger.committed = position;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Ledger>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
