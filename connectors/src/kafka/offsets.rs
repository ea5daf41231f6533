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

    /// Offsets without a record, such as a transaction's marker, are done as soon as they are met. Returns the number
    /// of those that were not done before.
    pub(super) fn skip(&self, partition: TopicPartition, gap: std::ops::Range<Offset>) -> u64 {
        match self.lock().get_mut(&partition) {
            Some(ledger) => skip(&mut ledger.position, gap),
            None => 0,
        }
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

/// Marks a range of offsets as done. Returns the number of those that were not done before.
///
/// At the position's end, where a gap usually is, it takes one step however long the range is.
pub(super) fn skip(position: &mut Position, gap: std::ops::Range<Offset>) -> u64 {
    let from = gap.start.max(position.next);
    if from >= gap.end {
        return 0;
    }
    if from > position.next {
        return (from..gap.end).map(|offset| u64::from(position.complete(offset))).sum();
    }
    let known = position.ahead.range(from..gap.end).count() as u64;
    position.ahead = position.ahead.split_off(&gap.end);
    position.next = gap.end;
    while position.ahead.first() == Some(&position.next) {
        position.ahead.pop_first();
        position.next += 1;
    }
    gap.end - from - known
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_is_done_as_its_offsets_are(
            done in proptest::collection::vec(0_u64..60, 0..40), start in 0_u64..60, len in 0_u64..60,
        ) {
            let mut one = Position::default();
            for offset in done {
                one.complete(offset);
            }
            let mut each = one.clone();
            let counted: u64 = (start..start + len).map(|offset| u64::from(each.complete(offset))).sum();
            prop_assert_eq!(skip(&mut one, start..start + len), counted);
            prop_assert_eq!(one, each);
        }
    }
}
