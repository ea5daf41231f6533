//! Newest records of a partition, and the position up to which it is settled.
//!
//! Readers that follow closely are served from here. The records are consecutive; the oldest are dropped when they
//! exceed the allowed bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::{FetchLimit, Record};
use heddle_schemas::topic::{Offset, Topic};
use tokio::sync::Notify;

/// Memory overhead of a record beside its bytes.
const RECORD_COST: usize = 128;

/// The newest records of a partition.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The offset of the next record.
    pub(super) end: Offset,
    /// Settled position.
    pub(super) position: Position,
    /// Wakes readers that wait for a record.
    pub(super) grown: Arc<Notify>,
    recent: VecDeque<Record>,
    bytes: usize,
}

impl Tail {
    /// As a checkpoint saved it.
    #[must_use]
    pub(super) fn restored(end: Offset, position: Position) -> Self {
        Self { end, position, ..Self::default() }
    }

    /// Takes the next record in.
    pub(super) fn push(&mut self, record: Record, most: usize) {
        self.end = record.offset + 1;
        let topic = record.partition.topic;
        // The other topics have no consumer that follows closely.
        if topic != Topic::Tenants && !Topic::CONSUMED.contains(&topic) {
            return;
        }
        self.bytes += cost(&record);
        self.recent.push_back(record);
        while self.bytes > most && self.recent.len() > 1 {
            self.bytes -= self.recent.pop_front().as_ref().map_or(0, cost);
        }
    }

    /// Records from `from` on; `None` when they are no longer, or not yet, here.
    #[must_use]
    pub(super) fn read(&self, from: Offset, limit: FetchLimit) -> Option<Vec<Record>> {
        let first = self.recent.front()?.offset;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        (skip < self.recent.len()).then(|| limited(self.recent.range(skip..).cloned(), limit))
    }
}

fn cost(record: &Record) -> usize {
    record.value.len() + record.key.len() + RECORD_COST
}

fn limited(records: impl Iterator<Item = Record>, limit: FetchLimit) -> Vec<Record> {
    let mut bytes = 0;
    let mut first = true;
    records
        .take(limit.records.max(1))
        .take_while(|record| {
            bytes += record.value.len();
            std::mem::take(&mut first) || bytes <= limit.bytes
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_schemas::time::Timestamp;
    use heddle_schemas::topic::TopicPartition;

    const LIMIT: FetchLimit = FetchLimit { records: 9, bytes: 1 << 20 };

    fn record(offset: Offset, bytes: usize) -> Record {
        let partition = TopicPartition { topic: Topic::Inbound, partition: 0 };
        let value = vec![0; bytes].into();
        Record { partition, offset, key: "".into(), value, at: Timestamp::EPOCH }
    }

    #[test]
    fn the_oldest_go_when_they_are_too_many_bytes_but_for_one() {
        let mut tail = Tail::restored(5, Position::at(5));
        for offset in 5..9 {
            tail.push(record(offset, 100), 2 * (100 + RECORD_COST));
        }
        assert_eq!((tail.end, tail.read(6, LIMIT)), (9, None));
        let offsets: Vec<_> = tail.read(7, LIMIT).unwrap().iter().map(|record| record.offset).collect();
        assert_eq!(offsets, [7, 8]);
        tail.push(record(9, 10_000), 500);
        assert_eq!(tail.read(9, LIMIT).unwrap().len(), 1);
        assert_eq!(tail.read(10, LIMIT), None);
    }
}
