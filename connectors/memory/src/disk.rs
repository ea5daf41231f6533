//! Disk of the memory store: the data that survives a crash.
//!
//! All of it changes under one lock that is never held over an await, so every change is atomic.
//! At most one incarnation of the store is current; opening the next one raises the epoch of every
//! partition it owns, and all further calls of an older incarnation are refused.
//!
//! Offsets that were only acknowledged ([`Log::acknowledge`](heddle_schemas::ports::log::Log)) become
//! durable with the next append or commit; a crash before it loses them, as the port allows.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::{Assignment, NewRecord, Record, StoreError};
use heddle_schemas::ports::state::{Batch, Fence, Write};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, Topic, TopicPartition};
use tokio::sync::Notify;

/// Data that survives a crash.
#[derive(Debug)]
pub struct MemoryDisk {
    partitions: NonZeroU32,
    content: Mutex<Content>,
    /// Records that were handed over and had not arrived when their producer ended.
    strays: Mutex<Vec<NewRecord>>,
    /// Wakes readers that wait for records or an assignment, and calls of an incarnation that has ended.
    pub(super) changed: Notify,
}

impl MemoryDisk {
    /// Creates an empty disk whose log has this number of partitions of ingress, inbound, outbound and events.
    #[must_use]
    pub fn new(partitions: NonZeroU32) -> Arc<Self> {
        Arc::new(Self {
            partitions,
            content: Mutex::default(),
            strays: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Returns the number of partitions of a topic.
    #[must_use]
    pub fn partitions(&self, topic: Topic) -> u32 {
        match topic {
            Topic::Ingress | Topic::Inbound | Topic::Outbound | Topic::Events => self.partitions.get(),
            Topic::Tenants | Topic::Dlq => 1,
        }
    }

    /// Every partition of the consumed topics.
    #[must_use]
    pub fn consumed_partitions(&self) -> BTreeSet<TopicPartition> {
        Topic::CONSUMED
            .into_iter()
            .flat_map(|topic| {
                (0..self.partitions(topic)).map(move |partition| TopicPartition { topic, partition })
            })
            .collect()
    }

    /// Appends records as a producer outside of any node does, also while none runs; returns their offsets.
    pub fn publish(&self, records: Vec<NewRecord>, now: Timestamp) -> Vec<Offset> {
        let offsets = self.lock().append(records, now);
        self.changed.notify_waiters();
        offsets
    }

    /// Takes the records of a split store that were on their way to the log when their owner ended, in the
    /// order they were handed over. A log has no fence: they may still arrive, by [`MemoryDisk::publish`], or
    /// never.
    #[must_use]
    pub fn strays(&self) -> Vec<NewRecord> {
        std::mem::take(&mut self.lock_strays())
    }

    pub(super) fn lock_strays(&self) -> MutexGuard<'_, Vec<NewRecord>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the current incarnation as a power cut would: its calls fail and change nothing more.
    pub fn crash(&self) {
        self.lock().end_incarnation();
        self.changed.notify_waiters();
    }

    /// Every record that was ever appended to a partition, in order.
    #[must_use]
    pub fn records(&self, partition: TopicPartition) -> Vec<Record> {
        self.lock().log.get(&partition).map(|log| log.records.clone()).unwrap_or_default()
    }

    /// Every row that has not ended at `now`, by key.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a store reads back the keys that it was given")]
    pub fn rows(&self, now: Timestamp) -> Vec<(Key, Bytes)> {
        let content = self.lock();
        let live = content.rows.iter().filter(|(_, row)| row.lives(now));
        live.filter_map(|(key, row)| Some((Key::from_bytes(key.clone())?, row.value.clone()))).collect()
    }

    /// Returns the acknowledged position of a partition.
    #[must_use]
    pub fn position(&self, partition: TopicPartition) -> Position {
        self.lock().log.get(&partition).map(|log| log.position.clone()).unwrap_or_default()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Content> {
        // A panic in a test's own closure is not the disk's; every change is whole or not begun.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kind of write that wrote a row: the two kinds never share one, see
/// [`State::compare_and_set`](heddle_schemas::ports::state::State).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Commit,
    Conditional,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) value: Bytes,
    pub(super) expires: Option<Timestamp>,
    origin: Origin,
}

impl Row {
    pub(super) fn lives(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

#[derive(Debug, Default)]
pub(super) struct PartitionLog {
    pub(super) records: Vec<Record>,
    /// As the current incarnation sees it.
    pub(super) position: Position,
    /// As the next one would after a crash now.
    durable: Position,
    pub(super) epoch: Epoch,
}

/// Content of the disk.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) log: BTreeMap<TopicPartition, PartitionLog>,
    pub(super) rows: BTreeMap<Bytes, Row>,
    acknowledged: Vec<(TopicPartition, Offset)>,
    incarnation: u64,
    assignment: Assignment,
}

impl Content {
    /// Begins an incarnation that owns these partitions, and returns its number.
    pub(super) fn begin_incarnation(&mut self, owned: &BTreeSet<TopicPartition>) -> u64 {
        self.end_incarnation();
        self.assign(owned);
        self.incarnation
    }

    fn end_incarnation(&mut self) {
        self.incarnation += 1;
        self.acknowledged.clear();
        for log in self.log.values_mut() {
            log.position.clone_from(&log.durable);
        }
        self.assignment = Assignment::default();
    }

    /// Ends the current incarnation in order: acknowledgements are kept.
    pub(super) fn close(&mut self) {
        self.keep_acknowledged();
        self.end_incarnation();
    }

    /// Makes exactly these partitions owned. Every partition that changes hands gets a new epoch, lost ones too, so
    /// that a previous owner is fenced.
    pub(super) fn assign(&mut self, owned: &BTreeSet<TopicPartition>) {
        let held: BTreeMap<_, _> = self.assignment.partitions.iter().copied().collect();
        for &partition in held.keys().filter(|partition| !owned.contains(partition)) {
            self.raise_epoch(partition);
        }
        let partitions = owned
            .iter()
            .map(|&partition| match held.get(&partition) {
                Some(&epoch) => (partition, epoch),
                None => (partition, self.raise_epoch(partition)),
            })
            .collect();
        self.assignment = Assignment { generation: self.assignment.generation + 1, partitions };
    }

    fn raise_epoch(&mut self, partition: TopicPartition) -> Epoch {
        let log = self.log.entry(partition).or_default();
        log.epoch.0 += 1;
        // The next owner sees only what the last owner made durable.
        log.position.clone_from(&log.durable);
        self.acknowledged.retain(|(acknowledged, _)| *acknowledged != partition);
        log.epoch
    }

    pub(super) fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Refuses calls of an older incarnation or an older owner.
    pub(super) fn admit(&self, incarnation: u64, fence: Option<Fence>) -> Result<(), StoreError> {
        if let Some(Fence { partition, epoch }) = fence
            && self.log.get(&partition).map(|log| log.epoch) != Some(epoch)
        {
            return Err(StoreError::Fenced { partition, epoch });
        }
        if incarnation == self.incarnation { Ok(()) } else { Err(StoreError::Closed) }
    }

    /// Appends all records and returns their offsets.
    pub(super) fn append(&mut self, records: Vec<NewRecord>, now: Timestamp) -> Vec<Offset> {
        self.keep_acknowledged();
        records.into_iter().map(|record| self.append_one(record, now)).collect()
    }

    fn append_one(&mut self, record: NewRecord, now: Timestamp) -> Offset {
        let NewRecord { partition, key, value } = record;
        let records = &mut self.log.entry(partition).or_default().records;
        let offset = records.len() as Offset;
        records.push(Record { partition, offset, key, value, at: now });
        offset
    }

    /// Applies rows in their order, all or none.
    pub(super) fn write(&mut self, writes: Vec<Write>) -> Result<(), StoreError> {
        for write in &writes {
            self.check_origin(&write.key, Origin::Commit)?;
        }
        self.keep_acknowledged();
        for Write { key, value, expires } in writes {
            self.set(&key, value, expires, Origin::Commit);
        }
        Ok(())
    }

    /// Marks records as settled, durably.
    pub(super) fn consume(&mut self, consumed: &[(TopicPartition, Offset)]) {
        self.keep_acknowledged();
        for &(partition, offset) in consumed {
            let log = self.log.entry(partition).or_default();
            log.position.complete(offset);
            log.durable.complete(offset);
        }
    }

    /// Applies a whole batch, or nothing of it.
    pub(super) fn apply(&mut self, batch: Batch, now: Timestamp) -> Result<(), StoreError> {
        self.write(batch.writes)?;
        self.write(batch.after)?;
        self.append(batch.outputs, now);
        self.consume(&batch.consumed);
        Ok(())
    }

    /// Marks records as settled, until a crash.
    pub(super) fn acknowledge(&mut self, partition: TopicPartition, offsets: &[Offset]) {
        let log = self.log.entry(partition).or_default();
        for &offset in offsets {
            log.position.complete(offset);
            self.acknowledged.push((partition, offset));
        }
    }

    fn keep_acknowledged(&mut self) {
        for (partition, offset) in self.acknowledged.drain(..) {
            self.log.entry(partition).or_default().durable.complete(offset);
        }
    }

    /// Sets or deletes a row.
    pub(super) fn set(
        &mut self,
        key: &Key,
        value: Option<Bytes>,
        expires: Option<Timestamp>,
        origin: Origin,
    ) {
        match value {
            Some(value) => self.rows.insert(key.as_bytes().clone(), Row { value, expires, origin }),
            None => self.rows.remove(key.as_bytes()),
        };
    }

    /// Finds rows that are written both ways, which a store with write timestamps would mix up.
    pub(super) fn check_origin(&self, key: &Key, origin: Origin) -> Result<(), StoreError> {
        match self.rows.get(key.as_bytes()) {
            Some(row) if row.origin != origin => Err(StoreError::Corrupt {
                detail: format!("{key:?} is written both by commit and by compare_and_set; use one of them"),
            }),
            _ => Ok(()),
        }
    }
}
