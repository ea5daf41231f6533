//! State that readers see: rows changed since the checkpoint, the topics' tails, and the places of older records.
//!
//! It holds only durable changes, in the order of the journal. Rows changed since the last checkpoint
//! are *active*; while a checkpoint is being written, those it takes are *frozen*. A read checks the active rows,
//! then the frozen rows, then the store: rows are thawed only once the store has them, so none is missed.
//!
//! Memory is bounded: at `checkpoint_bytes` of active rows a checkpoint begins, and at twice that writers wait until
//! it is done; each tail has a bound of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, Topic, TopicPartition};

use super::Options;
use super::catalog::{Catalog, Place, Reasons, SegmentInfo};
use super::changes::Changes;
use super::rows::{Rows, Slot};
use super::saved::{Frozen, Saved};
use super::tail::Tail;

/// Journal to replay at start, in times of `checkpoint_bytes`, at which a checkpoint begins: rows that are
/// written over and over, and records without rows, fill the journal but not the memory.
const REPLAY_AT: u64 = 4;
/// The longest time between checkpoints while anything is written: retention waits for them.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);

/// State under the view's lock.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Rows changed since the newest checkpoint that was begun.
    pub(super) active: Rows,
    /// Rows of the checkpoint that is being written.
    pub(super) frozen: Option<Frozen>,
    /// The partitions.
    pub(super) tails: BTreeMap<TopicPartition, Tail>,
    /// The segments.
    pub(super) catalog: Catalog,
    /// The running epoch.
    pub(super) epoch: Epoch,
    /// Everything before it is in the store.
    pub(super) checkpointed: Option<Place>,
    /// Place behind the last frame, where the next one goes unless the segment is full.
    pub(super) next: Option<Place>,
    /// True when the store has stopped.
    pub(super) stopped: bool,
    /// Error of the last attempt to write a checkpoint.
    failing: Option<String>,
    removed_segments: Vec<u64>,
    journal_since_freeze: u64,
    frozen_at: Timestamp,
}

/// The view.
#[derive(Debug)]
pub(super) struct View {
    seen: RwLock<Seen>,
    changed: Condvar,
    change: Mutex<()>,
    /// Bytes of the journal, so that the writer need not take the lock.
    held: AtomicU64,
    /// Sequence number after the last frame that is shown.
    shown: AtomicU64,
    failing: AtomicBool,
    /// Error of the last write to the journal, if it failed.
    journal_fault: Mutex<Option<String>>,
    partitions: u32,
    tail_bytes: usize,
    checkpoint_bytes: usize,
    retention: Duration,
    max_bytes: u64,
}

impl View {
    /// Creates the view from a checkpoint.
    #[must_use]
    pub(super) fn new(
        options: &Options,
        saved: Saved,
        segments: Vec<(u64, SegmentInfo)>,
        now: Timestamp,
    ) -> Self {
        let held = segments.iter().map(|(_, info)| info.bytes).sum();
        let tails = saved.tails.into_iter();
        let seen = Seen {
            tails: tails.map(|(at, end, position)| (at, Tail::restored(end, position))).collect(),
            catalog: Catalog(segments.into_iter().collect()),
            epoch: saved.epoch,
            checkpointed: saved.replay_from,
            next: saved.replay_from,
            frozen_at: now,
            ..Seen::default()
        };
        Self {
            seen: RwLock::new(seen),
            changed: Condvar::new(),
            change: Mutex::new(()),
            held: AtomicU64::new(held),
            shown: AtomicU64::new(saved.replay_from.map_or(0, |place| place.sequence)),
            failing: AtomicBool::new(false),
            journal_fault: Mutex::default(),
            partitions: options.partitions.get(),
            tail_bytes: options.tail_bytes,
            checkpoint_bytes: usize::try_from(options.checkpoint_bytes.get()).unwrap_or(usize::MAX),
            retention: options.retention,
            max_bytes: options.max_bytes.get(),
        }
    }

    /// Reads.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads, unless everything has ended.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub(super) fn open(&self) -> Result<RwLockReadGuard<'_, Seen>, StoreError> {
        let seen = self.read();
        if seen.stopped { Err(StoreError::Closed) } else { Ok(seen) }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Seen> {
        self.seen.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of partitions of a topic: one for compacted ones, which every node reads whole, and none
    /// of ingress, since no other program can publish into these files.
    #[must_use]
    pub(super) fn partitions(&self, topic: Topic) -> u32 {
        match topic {
            Topic::Ingress => 0,
            topic if topic.is_compacted() => 1,
            _ => self.partitions,
        }
    }

    /// Refuses a partition that is not there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn check(&self, partition: TopicPartition) -> Result<(), StoreError> {
        if partition.partition < self.partitions(partition.topic) {
            return Ok(());
        }
        Err(StoreError::Unavailable { detail: format!("there is no {partition}") })
    }

    /// Bytes that the journal takes.
    #[must_use]
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The sequence number after the last frame that is shown.
    #[must_use]
    pub(super) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Acquire)
    }

    /// Publishes the changes of the frame of `bytes` bytes at `place`, all at once.
    pub(super) fn show(&self, place: Place, bytes: u64, change: impl FnOnce(&mut Changes<'_>)) {
        let mut woken = Vec::new();
        let mut seen = self.write();
        // The frame is durable. A reader that sees a record of it may have to read it from there.
        self.cover(&mut seen, place, bytes);
        change(&mut Changes { seen: &mut seen, place, tail_bytes: self.tail_bytes, woken: &mut woken });
        for partition in woken {
            if let Some(tail) = seen.tails.get(&partition) {
                tail.grown.notify_waiters();
            }
        }
    }

    /// Notes that everything of the frame at `place` is shown.
    pub(super) fn shown_whole(&self, place: Place, bytes: u64) {
        let next = Place { segment: place.segment, at: place.at + bytes, sequence: place.sequence + 1 };
        let mut seen = self.write();
        self.cover(&mut seen, place, bytes);
        seen.next = Some(next);
        seen.journal_since_freeze += bytes;
        self.shown.store(next.sequence, Ordering::Release);
    }

    /// Notes that a segment is durable up to the end of this frame.
    fn cover(&self, seen: &mut Seen, place: Place, bytes: u64) {
        let before = seen.catalog.0.get(&place.segment).map_or(0, |info| info.bytes);
        seen.catalog.frame(place, bytes);
        self.held.fetch_add(place.at + bytes - before, Ordering::Relaxed);
    }

    /// Creates the tail of a partition that has no records yet, so that a reader can wait for it.
    pub(super) fn make_tail(&self, partition: TopicPartition) {
        self.write().tails.entry(partition).or_default();
    }

    /// Removes segments from the catalog whose files no longer exist.
    pub(super) fn without_segments(&self, ids: &[u64]) {
        let mut seen = self.write();
        for id in ids {
            let removed = seen.catalog.0.remove(id);
            self.held.fetch_sub(removed.map_or(0, |info| info.bytes), Ordering::Relaxed);
            seen.removed_segments.push(*id);
        }
    }

    /// Freezes the active rows for a checkpoint when it is time, and waits where the store falls behind.
    pub(super) fn freeze_if_due(&self, now: Timestamp) {
        self.freeze(now, |seen| {
            let journal = seen.journal_since_freeze;
            let bytes = self.checkpoint_bytes as u64;
            let needs_room = self.held() > self.high()
                && seen.next.map(|next| next.segment) > seen.checkpointed.map(|place| place.segment);
            match (seen.active.bytes(), journal) {
                _ if seen.is_over(self.checkpoint_bytes) => Due::Must,
                (rows, _) if rows >= self.checkpoint_bytes => Due::May,
                (_, journal) if journal >= REPLAY_AT.saturating_mul(bytes) || needs_room => Due::May,
                _ => Due::Not,
            }
        });
    }

    /// As [`View::freeze_if_due`], also when the last checkpoint is old.
    pub(super) fn freeze_if_old(&self, now: Timestamp) {
        let every = CHECKPOINT_EVERY.min(self.retention / 8);
        self.freeze(now, |seen| if now.since(seen.frozen_at) >= every { Due::May } else { Due::Not });
        self.freeze_if_due(now);
    }

    /// Freezes all rows that are not in a checkpoint.
    pub(super) fn freeze_now(&self, now: Timestamp) {
        self.freeze(now, |_| Due::Must);
    }

    fn freeze(&self, now: Timestamp, due: impl Fn(&Seen) -> Due) {
        loop {
            let mut seen = self.write();
            let due = due(&seen);
            if matches!(due, Due::Not) || seen.is_all_taken() {
                return;
            }
            if seen.frozen.is_none() {
                seen.freeze(self.partitions, now);
                break;
            }
            // While the store fails, waiting does not help: the writer refuses writes above the limit.
            if matches!(due, Due::May) || seen.failing.is_some() {
                return;
            }
            drop(seen);
            self.wait(Duration::from_secs(1), |seen| seen.frozen.is_none() || seen.failing.is_some());
        }
        self.notify();
    }

    /// Returns the error that refuses writes, while checkpoints fail and memory is full.
    #[must_use]
    pub(super) fn refusal(&self) -> Option<StoreError> {
        if !self.failing.load(Ordering::Relaxed) {
            return None;
        }
        let seen = self.read();
        let detail = seen.failing.clone().filter(|_| seen.is_over(self.checkpoint_bytes))?;
        Some(StoreError::Full { detail: format!("checkpoints cannot be written: {detail}") })
    }

    /// Notes the outcome of the last write to the journal.
    pub(super) fn journal_wrote(&self, fault: Option<String>) {
        *self.journal_fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Returns the reason for which the last write to the journal or the last checkpoint failed.
    #[must_use]
    pub(super) fn fault(&self) -> Option<String> {
        let journal = self.journal_fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        journal.or_else(|| self.read().failing.clone())
    }

    /// Waits for frozen rows, for a while. `None` when there are none and there will be none.
    pub(super) fn next_frozen(&self, at_most: Duration) -> Option<Option<Frozen>> {
        self.wait(at_most, |seen| seen.frozen.is_some() || seen.stopped);
        let seen = self.read();
        match (&seen.frozen, seen.stopped) {
            (None, true) => None,
            (frozen, _) => Some(frozen.clone()),
        }
    }

    /// The frozen rows are in the store.
    pub(super) fn thaw(&self) {
        let thawed = {
            let mut seen = self.write();
            seen.failing = None;
            self.failing.store(false, Ordering::Relaxed);
            let frozen = seen.frozen.take();
            if let Some(frozen) = &frozen {
                seen.checkpointed = frozen.saved.replay_from;
            }
            frozen
        };
        self.notify();
        // Many rows are freed here, with no reader waiting for it.
        drop(thawed);
    }

    /// The frozen rows could not be written.
    pub(super) fn fail(&self, why: String) {
        self.write().failing = Some(why);
        self.failing.store(true, Ordering::Relaxed);
        self.notify();
    }

    /// Waits until everything that was frozen is in the store.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be written.
    pub(super) fn wait_for_checkpoint(&self) -> Result<(), StoreError> {
        loop {
            self.wait(Duration::from_millis(100), |seen| seen.frozen.is_none() || seen.failing.is_some());
            let seen = self.read();
            match (&seen.frozen, &seen.failing) {
                (None, _) => return Ok(()),
                (_, Some(why)) => return Err(StoreError::Unavailable { detail: why.clone() }),
                (Some(_), None) if seen.stopped => return Err(StoreError::Closed),
                (Some(_), None) => {}
            }
        }
    }

    /// Everything has ended.
    pub(super) fn stop(&self) {
        let mut seen = self.write();
        seen.stopped = true;
        for tail in seen.tails.values() {
            tail.grown.notify_waiters();
        }
        drop(seen);
        self.notify();
    }

    /// The size of the journal from which on it is made smaller, so that it does not reach its limit at once.
    fn high(&self) -> u64 {
        self.max_bytes - self.max_bytes / 10
    }

    /// Removes segments that are no longer needed; returns their ids. Those within the retention go only for room: for
    /// this many bytes below the limit, or a tenth of it.
    pub(super) fn forget_segments(&self, now: Timestamp, room: u64) -> Vec<u64> {
        let mut seen = self.write();
        let Some(checkpointed) = seen.checkpointed else { return Vec::new() };
        let max_bytes = self.high().min(self.max_bytes.saturating_sub(room));
        let reasons = Reasons { checkpointed, now, retention: self.retention, max_bytes };
        let mut catalog = std::mem::take(&mut seen.catalog);
        let removed = catalog.forget(&reasons, |segment| seen.is_settled(segment));
        self.held.store(catalog.0.values().map(|segment| segment.bytes).sum(), Ordering::Relaxed);
        seen.catalog = catalog;
        seen.removed_segments.extend(&removed);
        removed
    }

    /// Returns true if the oldest segment is settled and needs only a checkpoint to be deleted.
    pub(super) fn has_settled(&self) -> bool {
        let seen = self.read();
        let last = seen.next.map(|next| next.segment);
        let oldest = seen.catalog.0.first_key_value();
        oldest.is_some_and(|(id, segment)| Some(*id) < last && seen.is_settled(segment))
    }

    /// Begins an epoch that is not in the journal yet.
    pub(super) fn begin(&self, epoch: Epoch) {
        self.write().epoch = epoch;
    }

    /// Notifies waiters of a change.
    fn notify(&self) {
        // Waiters check the state while holding this lock, so that no change falls between the check and the wait.
        drop(self.change.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn wait(&self, at_most: Duration, ready: impl Fn(&Seen) -> bool) {
        let change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready(&self.read()) {
            drop(self.changed.wait_timeout(change, at_most));
        }
    }
}

/// Urgency of a checkpoint.
enum Due {
    Not,
    /// Write one if none is being written.
    May,
    /// Write one after the one that is being written.
    Must,
}

impl Seen {
    fn is_over(&self, checkpoint_bytes: usize) -> bool {
        let journal = REPLAY_AT.saturating_mul(2).saturating_mul(checkpoint_bytes as u64);
        self.active.bytes() >= checkpoint_bytes.saturating_mul(2) || self.journal_since_freeze >= journal
    }

    fn is_all_taken(&self) -> bool {
        let taken = self.frozen.as_ref().map_or(self.checkpointed, |frozen| frozen.saved.replay_from);
        taken == self.next
    }

    fn freeze(&mut self, partitions: u32, now: Timestamp) {
        let saved = Saved {
            partitions,
            replay_from: self.next,
            epoch: self.epoch,
            tails: self.tails.iter().map(|(at, tail)| (*at, tail.end, tail.position.clone())).collect(),
        };
        let from = self.checkpointed.map_or(0, |place| place.segment);
        let known = self.catalog.0.range(from..).map(|(id, info)| (*id, Some(info.clone())));
        let removed_segments = std::mem::take(&mut self.removed_segments).into_iter().map(|id| (id, None));
        // In order of ids: removed segments are older than the remaining ones.
        let mut segments: Vec<_> = removed_segments.chain(known).collect();
        segments.sort_unstable_by_key(|(id, _)| *id);
        segments.dedup_by_key(|(id, _)| *id);
        self.frozen = Some(Frozen {
            rows: std::mem::take(&mut self.active).into(),
            saved: saved.into(),
            segments: segments.into(),
        });
        self.journal_since_freeze = 0;
        self.frozen_at = now;
    }

    /// Returns true if every record of a consumed topic in it is settled.
    #[must_use]
    pub(super) fn is_settled(&self, segment: &SegmentInfo) -> bool {
        segment.partitions.iter().all(|(partition, there)| {
            !Topic::CONSUMED.contains(&partition.topic)
                || self.tails.get(partition).is_none_or(|tail| there.end <= tail.position.next)
        })
    }

    /// Returns a row that is in memory; `None` if only the store has it.
    #[must_use]
    pub(super) fn row(&self, key: &[u8]) -> Option<&Slot> {
        self.active.get(key).or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.rows.get(key)))
    }

    /// The offset that the next record of a partition gets.
    #[must_use]
    pub(super) fn end(&self, partition: TopicPartition) -> Offset {
        self.tails.get(&partition).map_or(0, |tail| tail.end)
    }
}
