//! What readers see: rows changed since the checkpoint, the topics' tails, and where older records are.
//!
//! Only the writer changes it, after what it shows is durable. Rows changed since the last checkpoint are
//! *active*; while a checkpoint is being written, those it takes are *frozen*. A read asks the active, then
//! the frozen, then the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::Record;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, Topic, TopicPartition};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Options;
use super::codec::{Change, topic_number};

/// The first byte of the rows that hold the newest record of each key of a compacted topic. No table has it.
const COMPACTED: u8 = 0xf0;
/// A place is noted for each partition once in so many bytes of a segment.
const INDEX_EVERY: u64 = 2 << 20;
/// What a row costs in memory beside its bytes.
const ROW_COST: usize = 96;

/// A row as it is held in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its value; `None` when it was deleted.
    pub value: Option<Bytes>,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

impl Slot {
    /// The value, unless it is gone or has ended.
    #[must_use]
    pub fn live(&self, now: Timestamp) -> Option<&Bytes> {
        self.value.as_ref().filter(|_| self.expires.is_none_or(|expires| now < expires))
    }
}

/// Rows by encoded key.
pub type Rows = BTreeMap<Bytes, Slot>;

/// A frame's place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The segment.
    pub segment: u64,
    /// The byte in it.
    pub at: u64,
    /// The sequence number of the frame there.
    pub sequence: u64,
}

/// What is known of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// Its bytes.
    pub bytes: u64,
    /// When its newest record was appended, microseconds.
    pub last_at: Timestamp,
    /// Its partitions.
    pub partitions: Vec<(TopicPartition, InSegment)>,
}

/// A partition's records in a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSegment {
    /// The offset after the last.
    pub end: Offset,
    /// Some first offsets of frames, with their places, in order.
    pub index: Vec<(Offset, Place)>,
}

/// What a checkpoint saves beside the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// With how many partitions the folder was made.
    pub partitions: u32,
    /// Everything before it is in the checkpoint.
    pub replay_from: Option<Place>,
    /// The epoch that was running.
    pub epoch: Epoch,
    /// Each partition's end and position.
    pub tails: Vec<(TopicPartition, Offset, Position)>,
    /// The segments up to the place.
    pub segments: Vec<(u64, SegmentInfo)>,
}

/// The newest records of a partition.
#[derive(Debug, Default)]
pub struct Tail {
    /// The offset of the next record.
    pub end: Offset,
    /// What has been settled.
    pub position: Position,
    /// The newest records.
    pub recent: VecDeque<Record>,
    recent_bytes: usize,
    /// Wakes who waits for a record.
    pub grown: Arc<Notify>,
}

/// Rows on their way into the store.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// The rows.
    pub rows: Arc<Rows>,
    /// What goes with them.
    pub saved: Arc<Saved>,
}

/// What is seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Rows changed since the newest checkpoint that was begun.
    pub active: Rows,
    active_bytes: usize,
    /// Rows of the checkpoint that is being written.
    pub frozen: Option<Frozen>,
    /// The partitions.
    pub tails: BTreeMap<TopicPartition, Tail>,
    /// The segments, the last one being written.
    pub segments: BTreeMap<u64, SegmentInfo>,
    /// The running epoch.
    pub epoch: Epoch,
    /// Everything before it is in the store.
    pub checkpointed: Option<Place>,
    stopped: bool,
    syncs: u64,
}

/// The view.
#[derive(Debug)]
pub struct View {
    seen: RwLock<Seen>,
    changed: Condvar,
    change: Mutex<u64>,
    partitions: u32,
    tail_bytes: usize,
    checkpoint_bytes: usize,
    retention: Duration,
    max_bytes: u64,
}

impl View {
    /// Of an empty folder.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            seen: RwLock::default(),
            changed: Condvar::new(),
            change: Mutex::new(0),
            partitions: options.partitions.get(),
            tail_bytes: options.tail_bytes,
            checkpoint_bytes: usize::try_from(options.checkpoint_bytes.get()).unwrap_or(usize::MAX),
            retention: options.retention,
            max_bytes: options.max_bytes.get(),
        }
    }

    /// Reads.
    pub fn read(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Seen> {
        self.seen.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever waits that frozen rows came or went, or that the end is near.
    fn tell(&self) {
        *self.change.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits until `ready` holds, or for `at_most`.
    fn wait(&self, at_most: Duration, ready: impl Fn(&Seen) -> bool) {
        let change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever changes what is asked for takes this lock after it, so no change is missed.
        if ready(&self.read()) {
            return;
        }
        drop(self.changed.wait_timeout(change, at_most));
    }

    /// How many partitions a topic has: one for compacted ones, which every node reads whole.
    #[must_use]
    pub fn partitions(&self, topic: Topic) -> u32 {
        if topic.is_compacted() { 1 } else { self.partitions }
    }

    /// How many frames were synced.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.read().syncs
    }

    /// Takes over what a checkpoint saved.
    pub fn restore(&self, saved: Saved) {
        let mut seen = self.write();
        seen.epoch = saved.epoch;
        seen.checkpointed = saved.replay_from;
        seen.segments = saved.segments.into_iter().collect();
        for (partition, end, position) in saved.tails {
            let tail = Tail { end, position, ..Tail::default() };
            seen.tails.insert(partition, tail);
        }
    }

    /// Shows a durable frame: its changes and its place.
    pub fn show(&self, place: Place, bytes: u64, changes: impl Iterator<Item = Change>) {
        let mut woken = Vec::new();
        let mut seen = self.write();
        seen.syncs += 1;
        seen.segments.entry(place.segment).or_default().bytes = place.at + bytes;
        for change in changes {
            if let Change::Record(record) = &change
                && woken.last() != Some(&record.partition)
            {
                woken.push(record.partition);
            }
            seen.apply(place, self.tail_bytes, change);
        }
        for partition in woken {
            if let Some(tail) = seen.tails.get(&partition) {
                tail.grown.notify_waiters();
            }
        }
    }

    /// A segment was begun.
    pub fn begin_segment(&self, id: u64, bytes: u64) {
        self.write().segments.entry(id).or_default().bytes = bytes;
    }

    /// A segment ends here: what was behind was cut off.
    pub fn end_segment(&self, id: u64, bytes: u64) {
        self.write().segments.entry(id).or_default().bytes = bytes;
    }

    /// Makes the tail of a partition that has no records yet, so that somebody can wait for it.
    pub fn make_tail(&self, partition: TopicPartition) {
        self.write().tails.entry(partition).or_default();
    }

    /// Whether the writer has ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.read().stopped
    }

    /// Freezes the active rows for a checkpoint, if they are many or `always`, and none is under way.
    /// Where the store falls behind, waits for it: memory stays bounded.
    pub fn freeze(&self, next: Place, always: bool) {
        loop {
            let mut seen = self.write();
            if !always && seen.active_bytes < self.checkpoint_bytes {
                return;
            }
            if seen.frozen.is_some() {
                if !always && seen.active_bytes < 2 * self.checkpoint_bytes {
                    return;
                }
                drop(seen);
                self.wait(Duration::from_secs(1), |seen| seen.frozen.is_none());
                continue;
            }
            let rows = Arc::new(std::mem::take(&mut seen.active));
            seen.active_bytes = 0;
            let saved = Arc::new(seen.saved(next, self.partitions));
            seen.frozen = Some(Frozen { rows, saved });
            break;
        }
        self.tell();
    }

    /// Waits for frozen rows, for a while. `None` when there are none and there will be none.
    pub fn next_frozen(&self) -> Option<Option<Frozen>> {
        self.wait(Duration::from_secs(5), |seen| seen.frozen.is_some() || seen.stopped);
        let seen = self.read();
        match (&seen.frozen, seen.stopped) {
            (None, true) => None,
            (frozen, _) => Some(frozen.clone()),
        }
    }

    /// The frozen rows are in the store.
    pub fn thaw(&self) {
        {
            let mut seen = self.write();
            if let Some(frozen) = seen.frozen.take() {
                seen.checkpointed = frozen.saved.replay_from;
            }
        }
        self.tell();
    }

    /// Waits until no checkpoint is under way.
    pub fn wait_for_checkpoint(&self) {
        while self.read().frozen.is_some() && !self.read().stopped {
            self.wait(Duration::from_millis(100), |seen| seen.frozen.is_none());
        }
    }

    /// The writer has ended.
    pub fn stop(&self) {
        self.write().stopped = true;
        self.tell();
    }

    /// Bytes that the journal takes.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        self.read().segments.values().map(|segment| segment.bytes).sum()
    }

    /// Forgets segments that nobody needs and that are old, or too many; returns their ids.
    pub fn forget_segments(&self, now: Timestamp) -> Vec<u64> {
        let mut seen = self.write();
        let Some(checkpointed) = seen.checkpointed else { return Vec::new() };
        let mut total: u64 = seen.segments.values().map(|segment| segment.bytes).sum();
        let mut gone = Vec::new();
        // In order, so that the journal never has a gap.
        for (&id, segment) in &seen.segments {
            let needed = id >= checkpointed.segment || !seen.is_settled(segment);
            let kept = now.since(segment.last_at) < self.retention && total <= self.max_bytes;
            if needed || kept {
                break;
            }
            total -= segment.bytes;
            gone.push(id);
        }
        for id in &gone {
            seen.segments.remove(id);
        }
        gone
    }
}

impl Seen {
    fn apply(&mut self, place: Place, tail_bytes: usize, change: Change) {
        match change {
            Change::Put { key, value, expires } => self.put(key, Slot { value: Some(value), expires }),
            Change::Delete { key } => self.put(key, Slot { value: None, expires: None }),
            Change::Record(record) => self.append(place, tail_bytes, record),
            Change::Consumed(partition, offset) => {
                self.tails.entry(partition).or_default().position.complete(offset);
            }
            Change::Epoch(epoch) => self.epoch = epoch,
        }
    }

    fn put(&mut self, key: Bytes, slot: Slot) {
        let cost =
            |key: &Bytes, slot: &Slot| ROW_COST + key.len() + slot.value.as_ref().map_or(0, Bytes::len);
        self.active_bytes += cost(&key, &slot);
        let len = key.len();
        if let Some(before) = self.active.insert(key, slot) {
            self.active_bytes -= ROW_COST + len + before.value.as_ref().map_or(0, Bytes::len);
        }
    }

    fn append(&mut self, place: Place, tail_bytes: usize, record: Record) {
        let partition = record.partition;
        if partition.topic.is_compacted() {
            let value = Some(record.value.clone()).filter(|value| !value.is_empty());
            let value = value.map(|value| {
                let mut bytes = BytesMut::with_capacity(16 + value.len());
                bytes.put_u64(record.offset);
                bytes.put_i64(record.at.as_micros());
                bytes.put_slice(&value);
                bytes.freeze()
            });
            self.put(compacted(partition, &record.key), Slot { value, expires: None });
        }
        self.note(place, &record);
        let tail = self.tails.entry(partition).or_default();
        tail.end = record.offset + 1;
        // Nobody follows the others closely.
        if matches!(partition.topic, Topic::Inbound | Topic::Outbound | Topic::Tenants) {
            tail.recent_bytes += record.value.len() + record.key.len() + ROW_COST;
            tail.recent.push_back(record);
            while tail.recent_bytes > tail_bytes && tail.recent.len() > 1 {
                let oldest = tail.recent.pop_front();
                tail.recent_bytes -= oldest.map_or(0, |old| old.value.len() + old.key.len() + ROW_COST);
            }
        }
    }

    /// Notes where a record is, once in a while.
    fn note(&mut self, place: Place, record: &Record) {
        let segment = self.segments.entry(place.segment).or_default();
        segment.last_at = segment.last_at.max(record.at);
        let found = segment.partitions.iter().position(|(partition, _)| *partition == record.partition);
        let index = found.unwrap_or_else(|| {
            segment.partitions.push((record.partition, InSegment::default()));
            segment.partitions.len() - 1
        });
        let there = &mut segment.partitions[index].1;
        there.end = record.offset + 1;
        if there.index.last().is_none_or(|(_, noted)| place.at >= noted.at + INDEX_EVERY) {
            there.index.push((record.offset, place));
        }
    }

    fn saved(&self, next: Place, partitions: u32) -> Saved {
        // The one it is in too: what is in front of the place is not replayed.
        let before = self.segments.range(..=next.segment);
        Saved {
            partitions,
            replay_from: Some(next),
            epoch: self.epoch,
            tails: self.tails.iter().map(|(at, tail)| (*at, tail.end, tail.position.clone())).collect(),
            segments: before.map(|(id, info)| (*id, info.clone())).collect(),
        }
    }

    /// Whether every record in it that somebody has to work off has been.
    fn is_settled(&self, segment: &SegmentInfo) -> bool {
        segment.partitions.iter().all(|(partition, there)| match partition.topic {
            Topic::Inbound | Topic::Outbound => {
                self.tails.get(partition).is_none_or(|tail| there.end <= tail.position.next)
            }
            Topic::Tenants | Topic::Events | Topic::Dlq => true,
        })
    }

    /// Where to look for a record that is not recent: a frame at or before it.
    #[must_use]
    pub fn find(&self, partition: TopicPartition, offset: Offset) -> Option<Place> {
        let mut segments = self.segments.values().filter_map(|segment| {
            segment.partitions.iter().find(|(at, _)| *at == partition).map(|(_, there)| there)
        });
        let there = segments.find(|there| offset < there.end)?;
        let after = there.index.partition_point(|(first, _)| *first <= offset);
        there.index.get(after.saturating_sub(1)).map(|(_, place)| *place)
    }

    /// A row as it is in memory; `None` when only the store knows.
    #[must_use]
    pub fn row(&self, key: &Bytes) -> Option<&Slot> {
        self.active.get(key).or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.rows.get(key)))
    }
}

/// The beginning of the keys of a compacted partition's rows.
#[must_use]
pub fn compacted_prefix(partition: TopicPartition) -> Bytes {
    compacted(partition, &[])
}

fn compacted(partition: TopicPartition, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(6 + key.len());
    bytes.put_u8(COMPACTED);
    bytes.put_u8(topic_number(partition.topic));
    bytes.put_u32(partition.partition);
    bytes.put_slice(key);
    bytes.freeze()
}
