//! The one thread that writes the journal.
//!
//! It takes the waiting orders, assigns offsets, writes one frame and syncs once; while it syncs, the next
//! group collects, and the announcer publishes the last one. A group is written as a whole or not at all. The bytes of
//! a failed write are truncated. If that fails too, or a sync failed and the disk's content is unknown, the
//! segment is left for good, and the next one, which begins at the same sequence number, makes the bytes at
//! its end void. Offsets of a failed group were never visible and are assigned again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{NewRecord, StoreError};
use heddle_schemas::ports::state::{Fence, Swap, Write};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, TopicPartition};
use tokio::sync::{mpsc, oneshot};

use super::announcer::{Announcement, Group, refuse};
use super::catalog::Place;
use super::codec::Encoded;
use super::disk::{Disk, SegmentFile};
use super::order::{Order, Prepared, Taken, Waiting};
use super::rows::Slot;
use super::segment;
use super::store::Store;
use super::view::View;
use super::{Options, Stats};

/// Bytes of a group at most, but for a single larger batch.
const GROUP_BYTES: usize = 4 << 20;
/// A frame buffer that a large batch has grown beyond this is freed.
const BUFFER_BYTES: usize = 2 * GROUP_BYTES;

/// Position at which the writer continues.
#[derive(Debug)]
pub(super) struct Resume {
    /// The next segment: always a new one, since the end of the last may be torn.
    pub(super) segment: u64,
    /// The sequence number of the next frame.
    pub(super) sequence: u64,
}

/// The writer.
pub(super) struct Writer {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    view: Arc<View>,
    store: Arc<Store>,
    stats: Arc<Stats>,
    partitions: u32,
    segment_bytes: u64,
    max_bytes: u64,
    segment_age: Duration,
    file: Option<Box<dyn SegmentFile>>,
    segment: u64,
    began: Timestamp,
    len: u64,
    sequence: u64,
    epoch: Epoch,
    ends: BTreeMap<TopicPartition, Offset>,
    durable_ends: BTreeMap<TopicPartition, Offset>,
    now: Timestamp,
    held: u64,
    refusal: Option<StoreError>,
    frame: Vec<u8>,
    group: Vec<Taken>,
    /// Epoch that the next frame begins: no frame could be written at the start.
    begins: Option<Epoch>,
    /// Bytes that had been written when a checkpoint was last asked for to make room.
    asked: u64,
    /// Conditional writes that are not shown yet, with the sequence number of their frame.
    swapped: HashMap<Bytes, (Slot, u64)>,
}

impl Writer {
    /// Continues behind the view's last frame.
    #[must_use]
    pub(super) fn new(
        options: &Options,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        view: Arc<View>,
        store: Arc<Store>,
        stats: Arc<Stats>,
        resume: Resume,
    ) -> Self {
        let (ends, epoch) = {
            let seen = view.read();
            (seen.tails.iter().map(|(at, tail)| (*at, tail.end)).collect::<BTreeMap<_, _>>(), seen.epoch)
        };
        Self {
            dir: options.dir.join("journal"),
            disk,
            clock,
            view,
            store,
            stats,
            partitions: options.partitions.get(),
            segment_bytes: options.segment_bytes.get(),
            max_bytes: options.max_bytes.get(),
            segment_age: options.retention / 8,
            file: None,
            segment: resume.segment,
            began: Timestamp::EPOCH,
            len: 0,
            sequence: resume.sequence,
            epoch,
            durable_ends: ends.clone(),
            ends,
            now: Timestamp::EPOCH,
            held: 0,
            refusal: None,
            frame: Vec::new(),
            group: Vec::new(),
            begins: None,
            asked: 0,
            swapped: HashMap::new(),
        }
    }

    /// Writes down that a new epoch begins; the group is to be shown. On a full disk there is none, and the epoch begins
    /// with the first frame for which there is room: until then nothing of it is durable, so no other process can have
    /// seen its number.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn begin_epoch(&mut self) -> io::Result<Option<Group>> {
        let epoch = Epoch(self.epoch.0 + 1);
        self.begins = Some(epoch);
        self.epoch = epoch;
        self.begin_group();
        match self.write_frame_in_room() {
            Ok((place, bytes)) => {
                self.begins = None;
                Ok(Some(Group { place, bytes, epoch: Some(epoch), taken: Vec::new() }))
            }
            Err(failed) if failed.is_full() => {
                let fault = failed.to_error(&self.dir).to_string();
                tracing::error!(error = %fault, "started on a full disk: nothing is accepted until there is room");
                self.view.journal_wrote(Some(fault));
                Ok(None)
            }
            Err(failed) => Err(failed.error),
        }
    }

    /// Returns the running epoch.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Runs until it receives [`Order::Close`] or no sender is left.
    pub(super) fn run(mut self, mut orders: mpsc::Receiver<Order>, announcements: &SyncSender<Announcement>) {
        while let Some(order) = orders.blocking_recv() {
            self.begin_group();
            if self.held > self.max_bytes - self.max_bytes / 20 && !self.make_room(announcements) {
                return;
            }
            let mut last = self.take(order);
            while last.is_none() && self.frame.len() < GROUP_BYTES {
                match orders.try_recv() {
                    Ok(order) => last = self.take(order),
                    Err(_) => break,
                }
            }
            let mut announced = self.flush(announcements);
            announced = announced
                && match last {
                    Some(Order::Tend) => self.tend(announcements),
                    Some(Order::Checkpoint(done)) => {
                        announcements.send(Announcement::Checkpoint(done)).is_ok()
                    }
                    Some(Order::Close(done)) => {
                        // Later callers get `Closed`.
                        orders.close();
                        drop(announcements.send(Announcement::Close(done)));
                        false
                    }
                    _ => true,
                };
            if !announced {
                return;
            }
        }
    }

    /// Deletes settled segments before the limit is reached. Segments that are settled but not in a checkpoint wait for
    /// one, asked for again only after more was written. Returns false when the announcer has ended.
    fn make_room(&mut self, announcements: &SyncSender<Announcement>) -> bool {
        let room = self.max_bytes / 10;
        segment::forget(&self.view, &*self.disk, &self.dir, self.now, room);
        let written = self.stats.bytes();
        let lately = written.saturating_sub(self.asked) < self.max_bytes / 40;
        if self.view.held() > self.max_bytes - self.max_bytes / 20 && !lately && self.view.has_settled() {
            self.asked = written;
            let (done, waits) = oneshot::channel();
            if announcements.send(Announcement::Checkpoint(done)).is_err() || waits.blocking_recv().is_err() {
                return false;
            }
            // If it fails, the limit refuses what comes.
            drop(self.view.wait_for_checkpoint());
            segment::forget(&self.view, &*self.disk, &self.dir, self.now, room);
        }
        self.held = self.view.held();
        true
    }

    fn begin_group(&mut self) {
        segment::begin(&mut self.frame);
        if let Some(epoch) = self.begins {
            let mut encoded = Encoded::default();
            encoded.epoch(epoch);
            self.frame.extend_from_slice(&encoded.bytes);
        }
        self.now = self.clock.now();
        self.held = self.view.held();
        self.refusal = self.view.refusal();
        if !self.swapped.is_empty() {
            let shown = self.view.shown();
            self.swapped.retain(|_, (_, sequence)| *sequence >= shown);
        }
    }

    /// Takes an order into the group, or returns one that ends the group.
    fn take(&mut self, order: Order) -> Option<Order> {
        match order {
            Order::Append(prepared, done) => match self.admit(self.max_bytes) {
                Ok(()) => self.add(prepared, Waiting::Append(done)),
                Err(error) => drop(done.send(Err(error))),
            },
            Order::Commit(prepared, fence, done) => match self.admit_commit(&prepared, fence) {
                Ok(()) => self.add(prepared, Waiting::Commit(done)),
                Err(error) => drop(done.send(Err(error))),
            },
            Order::Swap { write, prepared, expected, done } => match self.swap(write, prepared, expected) {
                Ok((swap, prepared)) => self.add(prepared, Waiting::Swap(swap, done)),
                Err(error) => drop(done.send(Err(error))),
            },
            end => return Some(end),
        }
        None
    }

    fn admit_commit(&mut self, prepared: &Prepared, fence: Option<Fence>) -> Result<(), StoreError> {
        match fence {
            Some(Fence { partition, epoch }) if epoch != self.epoch => {
                Err(StoreError::Fenced { partition, epoch })
            }
            // Settling records frees room.
            _ if prepared.only_settles() => Ok(()),
            _ => self.admit(self.with_reserve()),
        }
    }

    /// Returns the limit for settling writes, so that a full journal can still be drained.
    fn with_reserve(&self) -> u64 {
        self.max_bytes.saturating_add(2 * self.segment_bytes)
    }

    fn admit(&mut self, most: u64) -> Result<(), StoreError> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        if self.held + self.frame.len() as u64 > most {
            let room = self.frame.len() as u64 + self.segment_bytes;
            segment::forget(&self.view, &*self.disk, &self.dir, self.now, room);
            self.held = self.view.held();
        }
        if self.held + self.frame.len() as u64 > most {
            let detail = format!(
                "the journal has reached {most} bytes and holds only unsettled records; wait, or \
                 raise log.max_bytes"
            );
            return Err(StoreError::Full { detail });
        }
        Ok(())
    }

    fn add(&mut self, prepared: Prepared, waiting: Waiting) {
        let Prepared { mut encoded, writes, records, consumed } = prepared;
        let mut offsets = Vec::with_capacity(records.len());
        let places = std::mem::take(&mut encoded.records);
        for (place, NewRecord { partition, .. }) in places.into_iter().zip(&records) {
            let end = self.ends.entry(*partition).or_default();
            encoded.fill(place, *end, self.now);
            offsets.push(*end);
            *end += 1;
        }
        self.frame.extend_from_slice(&encoded.bytes);
        self.group.push(Taken { writes, records, offsets, at: self.now, consumed, waiting });
    }

    fn swap(
        &mut self,
        write: Write,
        prepared: Prepared,
        expected: Option<Bytes>,
    ) -> Result<(Swap, Prepared), StoreError> {
        let key = write.key.as_bytes();
        let found = match self.swapped.get(key) {
            Some((slot, _)) => Some(slot.clone()),
            None => self.current(key)?,
        };
        let found = found.and_then(|slot| slot.live(self.now).cloned());
        if found != expected {
            // Answered with the group: the value that it read may not be durable before.
            return Ok((Swap::Found(found), Prepared::default()));
        }
        self.admit(self.with_reserve())?;
        let slot = Slot { value: write.value, expires: write.expires };
        self.swapped.insert(key.clone(), (slot, self.sequence));
        Ok((Swap::Done, prepared))
    }

    fn current(&self, key: &Bytes) -> Result<Option<Slot>, StoreError> {
        if let Some(slot) = self.view.read().row(key) {
            return Ok(Some(slot.clone()));
        }
        self.store.get(key)
    }

    /// Makes the group durable and announces it, or refuses it. Returns false when the announcer has ended.
    fn flush(&mut self, announcements: &SyncSender<Announcement>) -> bool {
        if self.group.is_empty() {
            return true;
        }
        if self.group.iter().all(Taken::is_empty) {
            // Nothing to write: the results of conditional writes come from durable changes that are published soon.
            return announcements.send(Announcement::Found(std::mem::take(&mut self.group))).is_ok();
        }
        match self.write_frame_in_room() {
            Ok((place, bytes)) => {
                self.durable_ends.clone_from(&self.ends);
                let taken = std::mem::take(&mut self.group);
                self.group.reserve(taken.len());
                let epoch = self.begins.take();
                announcements.send(Announcement::Group(Group { place, bytes, epoch, taken })).is_ok()
            }
            Err(failed) => {
                tracing::error!(error = %failed.error, dir = %self.dir.display(), "the journal cannot be written");
                self.ends.clone_from(&self.durable_ends);
                refuse(std::mem::take(&mut self.group), &failed.to_error(&self.dir));
                // Results of conditional writes in this group are void; results of earlier groups are published soon.
                let (done, waits) = oneshot::channel();
                let announced =
                    announcements.send(Announcement::Barrier(done)).is_ok() && waits.blocking_recv().is_ok();
                self.swapped.clear();
                announced
            }
        }
    }

    /// Ends a segment that has been written to for too long, so that retention can take it.
    fn tend(&mut self, announcements: &SyncSender<Announcement>) -> bool {
        let old = self.file.is_some() && self.clock.now().since(self.began) >= self.segment_age;
        if old && self.len > segment::HEADER as u64 {
            self.leave();
            self.begin_group();
            // A frame without changes: the checkpoint after it begins in the new segment.
            match self.write_frame() {
                Ok((place, bytes)) => {
                    let epoch = self.begins.take();
                    let group = Group { place, bytes, epoch, taken: Vec::new() };
                    if announcements.send(Announcement::Group(group)).is_err() {
                        return false;
                    }
                }
                Err(failed) => tracing::warn!(error = %failed.error, "a new segment cannot be created"),
            }
        }
        announcements.send(Announcement::Tend).is_ok()
    }

    fn leave(&mut self) {
        self.file = None;
        self.segment += 1;
    }

    /// Writes the frame. If the disk is full, it deletes a settled segment and tries once more.
    fn write_frame_in_room(&mut self) -> Result<(Place, u64), Failed> {
        let written = match self.write_frame() {
            Err(failed) if failed.is_full() && self.give_way() => self.write_frame(),
            written => written,
        };
        let fault = written.as_ref().err().map(|failed| failed.to_error(&self.dir).to_string());
        self.view.journal_wrote(fault);
        written
    }

    fn give_way(&mut self) -> bool {
        let room = self.max_bytes.saturating_sub(self.view.held()) + 1;
        segment::forget(&self.view, &*self.disk, &self.dir, self.now, room)
    }

    fn write_frame(&mut self) -> Result<(Place, u64), Failed> {
        segment::finish(&mut self.frame, self.sequence);
        let bytes = self.frame.len() as u64;
        if self.file.is_some() && self.len + bytes > self.segment_bytes && self.len > segment::HEADER as u64 {
            self.leave();
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create()?,
        };
        let place = Place { segment: self.segment, at: self.len, sequence: self.sequence };
        if let Err(error) = file.append(&self.frame) {
            // Unsynced bytes that are truncated were never there.
            let cut = file.truncate(self.len).is_ok();
            if cut {
                self.file = Some(file);
            } else {
                self.segment += 1;
            }
            return Err(Failed { error, undone: cut });
        }
        if let Err(error) = file.sync() {
            // Even if truncation works, the system may have dropped buffered bytes: the file is not used again.
            let cut = file.truncate(self.len).is_ok();
            self.segment += 1;
            return Err(Failed { error, undone: cut });
        }
        self.file = Some(file);
        self.len += bytes;
        self.sequence += 1;
        self.stats.wrote(bytes, self.group.len() as u64);
        if self.frame.capacity() > BUFFER_BYTES {
            self.frame = Vec::new();
        }
        Ok((place, bytes))
    }

    /// Begins the segment.
    fn create(&mut self) -> Result<Box<dyn SegmentFile>, Failed> {
        let path = segment::path(&self.dir, self.segment);
        let begun = self.disk.create(&path).and_then(|mut file| {
            file.append(&segment::header(self.partitions, self.segment, self.sequence)).map(|()| file)
        });
        match begun {
            Ok(file) => {
                self.len = segment::HEADER as u64;
                self.began = self.now;
                Ok(file)
            }
            Err(error) => {
                // On a full disk this is tried again and again: no file may be left each time.
                match self.disk.remove(&path) {
                    Err(left) if left.kind() != io::ErrorKind::NotFound => self.segment += 1,
                    _ => {}
                }
                Err(Failed { error, undone: true })
            }
        }
    }
}

/// Failure of writing a frame.
struct Failed {
    error: io::Error,
    /// True if no bytes of it are left.
    undone: bool,
}

impl Failed {
    fn is_full(&self) -> bool {
        let full = matches!(self.error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        full && self.undone
    }

    fn to_error(&self, dir: &std::path::Path) -> StoreError {
        if self.is_full() {
            StoreError::Full { detail: format!("no space left for {}; free some", dir.display()) }
        } else {
            StoreError::Unavailable { detail: format!("{}: {}", dir.display(), self.error) }
        }
    }
}
