//! Application of a frame's changes to the state that readers see.
//!
//! The newest record of each key of a compacted topic is a row as well, beside those of tables: a snapshot is
//! a scan of them.

use bytes::{BufMut, Bytes, BytesMut};
use heddle_schemas::ports::log::Record;
use heddle_schemas::topic::{Epoch, Offset, TopicPartition};

use super::catalog::Place;
use super::codec::topic_number;
use super::rows::Slot;
use super::view::Seen;

/// The first byte of the rows that hold the newest record of each key of a compacted topic. No table has it.
const COMPACTED: u8 = 0xf0;
/// Length of the prefix: the marker byte, the topic and the partition.
const COMPACTED_PREFIX: usize = 1 + 1 + 4;

/// Changes of one frame, while they are applied.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    /// State that the changes are applied to.
    pub(super) seen: &'a mut Seen,
    /// The place of the frame.
    pub(super) place: Place,
    /// Bytes of the newest records of a partition that are kept.
    pub(super) tail_bytes: usize,
    /// Partitions that got records.
    pub(super) woken: &'a mut Vec<TopicPartition>,
}

impl Changes<'_> {
    /// A row has this value, or none.
    pub(super) fn put(&mut self, key: Bytes, slot: Slot) {
        self.seen.active.put(key, slot);
    }

    /// A record was appended.
    pub(super) fn append(&mut self, record: Record) {
        let partition = record.partition;
        if partition.topic.is_compacted() {
            let value = Some(&record.value).filter(|value| !value.is_empty());
            let value = value.map(|value| newest(&record, value));
            self.put(compacted(partition, &record.key), Slot { value, expires: None });
        }
        self.seen.catalog.record(self.place, partition, record.offset, record.at);
        if !self.woken.contains(&partition) {
            self.woken.push(partition);
        }
        self.seen.tails.entry(partition).or_default().push(record, self.tail_bytes);
    }

    /// A record was settled.
    pub(super) fn settle(&mut self, partition: TopicPartition, offset: Offset) {
        self.seen.tails.entry(partition).or_default().position.complete(offset);
    }

    /// The folder was opened.
    pub(super) fn begin(&mut self, epoch: Epoch) {
        self.seen.epoch = epoch;
    }
}

/// The beginning of the keys of a compacted partition's rows.
#[must_use]
pub(super) fn compacted_prefix(partition: TopicPartition) -> Bytes {
    compacted(partition, &[])
}

/// Returns the length of the part of a compacted row's key that names the partition.
pub(super) fn compacted_len(key: &[u8]) -> Option<usize> {
    (key.first() == Some(&COMPACTED)).then_some(COMPACTED_PREFIX)
}

fn compacted(partition: TopicPartition, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(COMPACTED_PREFIX + key.len());
    bytes.put_u8(COMPACTED);
    bytes.put_u8(topic_number(partition.topic));
    bytes.put_u32(partition.partition);
    bytes.put_slice(key);
    bytes.freeze()
}

/// The row of the newest record of a key.
fn newest(record: &Record, value: &Bytes) -> Bytes {
    let mut bytes = BytesMut::with_capacity(16 + value.len());
    bytes.put_u64(record.offset);
    bytes.put_i64(record.at.as_micros());
    bytes.put_slice(value);
    bytes.freeze()
}
