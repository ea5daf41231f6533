//! The one thread that writes the journal.
//!
//! It takes whatever waits, gives out offsets, writes one frame, syncs once, shows what is durable and then
//! answers; while it syncs, the next group gathers. A group is all or nothing: what a failed write left
//! behind is cut off, or left behind in a segment that the next one makes void (its frames begin at the same
//! sequence number). After a failed sync nobody knows what the disk holds, so the segment is not used again.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{NewRecord, Record, StoreError};
use heddle_schemas::ports::state::{Fence, Swap, Write};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, TopicPartition};
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Store;
use super::codec::{Change, Encoded, changes};
use super::disk::{Disk, SegmentFile, cut};
use super::segment::{self, Next, Segment, SegmentError};
use super::view::{Place, Saved, View};
use super::{OpenError, Options, io};

/// Bytes of a group at most, but for a single larger batch.
const GROUP_BYTES: usize = 4 << 20;

/// What one caller wants written.
#[derive(Debug, Default)]
pub struct Prepared {
    /// As bytes.
    pub encoded: Encoded,
    /// The rows.
    pub writes: Vec<Write>,
    /// The records.
    pub records: Vec<NewRecord>,
    /// The settled records.
    pub consumed: Vec<(TopicPartition, Offset)>,
}

impl Prepared {
    /// Encodes changes.
    #[must_use]
    pub fn new(writes: Vec<Write>, records: Vec<NewRecord>, consumed: Vec<(TopicPartition, Offset)>) -> Self {
        let mut encoded = Encoded::default();
        let rows: usize = writes.iter().map(|w| w.value.as_ref().map_or(0, Bytes::len) + 96).sum();
        let values: usize = records.iter().map(|r| r.value.len() + r.key.len() + 32).sum();
        encoded.bytes.reserve(rows + values + consumed.len() * 16);
        for write in &writes {
            encoded.write(write);
        }
        for record in &records {
            encoded.record(record);
        }
        for &(partition, offset) in &consumed {
            encoded.consumed(partition, offset);
        }
        Self { encoded, writes, records, consumed }
    }
}

/// What the writer is asked.
#[derive(Debug)]
pub enum Order {
    /// Records that come in from outside: refused when the journal is full.
    Append(Prepared, oneshot::Sender<Result<Vec<Offset>, StoreError>>),
    /// A batch, under an ownership: it may use what is kept in reserve, so that work can be finished.
    Commit(Prepared, Option<Fence>, oneshot::Sender<Result<(), StoreError>>),
    /// A conditional write.
    Swap {
        /// The row, and what to set it to.
        write: Write,
        /// What it must be.
        expected: Option<Bytes>,
        /// What was found.
        done: oneshot::Sender<Result<Swap, StoreError>>,
    },
    /// Begin a checkpoint.
    Checkpoint(oneshot::Sender<()>),
    /// Write a last checkpoint and end.
    Close(oneshot::Sender<()>),
}

/// Who waits for a group.
enum Waiting {
    Append(Vec<Offset>, oneshot::Sender<Result<Vec<Offset>, StoreError>>),
    Commit(oneshot::Sender<Result<(), StoreError>>),
    Swap(Swap, oneshot::Sender<Result<Swap, StoreError>>),
}

impl Waiting {
    fn answer(self, result: Result<(), StoreError>) {
        // Who no longer waits needs no answer.
        match self {
            Self::Append(offsets, done) => drop(done.send(result.map(|()| offsets))),
            Self::Commit(done) => drop(done.send(result)),
            Self::Swap(swap, done) => drop(done.send(result.map(|()| swap))),
        }
    }
}

/// The writer.
pub struct Writer {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    view: Arc<View>,
    store: Option<Arc<Store>>,
    partitions: u32,
    segment_bytes: u64,
    max_bytes: u64,
    file: Option<Box<dyn SegmentFile>>,
    segment: u64,
    len: u64,
    sequence: u64,
    epoch: Epoch,
    ends: BTreeMap<TopicPartition, Offset>,
    frame: Vec<u8>,
    group: Vec<Change>,
    waiting: Vec<Waiting>,
    swapped: HashMap<Bytes, Option<Bytes>>,
}

impl Writer {
    /// Replays what came after the checkpoint into the view, and gets ready to write after it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn replay(
        options: &Options,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        view: Arc<View>,
        saved: Saved,
    ) -> Result<Self, OpenError> {
        let dir = options.dir.join("journal");
        let from = saved.replay_from;
        view.restore(saved);
        let ids = segment::list(&dir).map_err(|source| io(&dir, source))?;
        let ids: Vec<_> = ids.into_iter().filter(|&id| from.is_none_or(|from| id >= from.segment)).collect();
        let mut replay =
            Replay { dir: &dir, options, view: &view, sequence: from.map_or(0, |from| from.sequence) };
        for (index, &id) in ids.iter().enumerate() {
            replay.segment(id, ids.get(index + 1).copied(), from)?;
        }
        let sequence = replay.sequence;
        let segment = ids.last().copied().max(from.map(|from| from.segment));
        let (ends, epoch) = {
            let seen = view.read();
            (seen.tails.iter().map(|(at, tail)| (*at, tail.end)).collect(), seen.epoch)
        };
        Ok(Self {
            dir,
            disk,
            clock,
            view,
            store: None,
            partitions: options.partitions.get(),
            segment_bytes: options.segment_bytes.get(),
            max_bytes: options.max_bytes.get(),
            file: None,
            // Always a new one: what is at the end of the last may be torn.
            segment: segment.map_or(0, |segment| segment + 1),
            len: 0,
            sequence,
            epoch,
            ends,
            frame: Vec::new(),
            group: Vec::new(),
            waiting: Vec::new(),
            swapped: HashMap::new(),
        })
    }

    /// Writes down that a new epoch begins.
    ///
    /// # Errors
    /// The system's.
    pub fn begin_epoch(&mut self) -> std::io::Result<Epoch> {
        self.epoch = Epoch(self.epoch.0 + 1);
        let mut encoded = Encoded::default();
        encoded.epoch(self.epoch);
        segment::begin(&mut self.frame);
        self.frame.extend_from_slice(&encoded.bytes);
        self.group.push(Change::Epoch(self.epoch));
        self.write_frame()?;
        Ok(self.epoch)
    }

    /// Conditional writes read rows that are only in the store.
    pub fn reads(&mut self, store: Arc<Store>) {
        self.store = Some(store);
    }

    /// Runs until it is told to close, or nobody is left to tell it.
    pub fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.blocking_recv() {
            segment::begin(&mut self.frame);
            let mut last = self.take(order);
            while last.is_none() && self.frame.len() < GROUP_BYTES {
                match orders.try_recv() {
                    Ok(order) => last = self.take(order),
                    Err(_) => break,
                }
            }
            self.flush();
            match last {
                Some(Order::Checkpoint(done)) => {
                    self.view.freeze(self.place(), true);
                    // Nobody has to wait for it.
                    let _ = done.send(());
                }
                Some(Order::Close(done)) => {
                    self.view.freeze(self.place(), true);
                    self.view.wait_for_checkpoint();
                    let _ = done.send(());
                    return;
                }
                _ => self.view.freeze(self.place(), false),
            }
        }
    }

    fn place(&self) -> Place {
        Place { segment: self.segment, at: self.len, sequence: self.sequence }
    }

    /// Takes an order into the group, or returns one that ends the group.
    fn take(&mut self, order: Order) -> Option<Order> {
        match order {
            Order::Append(prepared, done) => match self.admit(&prepared, self.max_bytes) {
                Ok(()) => {
                    let offsets = self.add(prepared);
                    self.waiting.push(Waiting::Append(offsets, done));
                }
                Err(error) => drop(done.send(Err(error))),
            },
            Order::Commit(prepared, fence, done) => {
                let reserve = 2 * self.segment_bytes;
                let admitted = match fence {
                    Some(Fence { partition, epoch }) if epoch != self.epoch => {
                        Err(StoreError::Fenced { partition, epoch })
                    }
                    _ => self.admit(&prepared, self.max_bytes.saturating_add(reserve)),
                };
                match admitted {
                    Ok(()) => {
                        self.add(prepared);
                        self.waiting.push(Waiting::Commit(done));
                    }
                    Err(error) => drop(done.send(Err(error))),
                }
            }
            Order::Swap { write, expected, done } => match self.swap(write, expected) {
                Ok(swap) => self.waiting.push(Waiting::Swap(swap, done)),
                Err(error) => drop(done.send(Err(error))),
            },
            end => return Some(end),
        }
        None
    }

    fn admit(&self, prepared: &Prepared, most: u64) -> Result<(), StoreError> {
        let bytes = prepared.encoded.bytes.len();
        let limit = segment::MAX_PAYLOAD / 4;
        if bytes > limit {
            return Err(StoreError::TooLarge { bytes, limit });
        }
        let long = prepared.records.iter().map(|record| record.key.len());
        let long = long.chain(prepared.writes.iter().map(|write| write.key.as_bytes().len())).max();
        if let Some(bytes) = long.filter(|&len| len > usize::from(u16::MAX)) {
            return Err(StoreError::TooLarge { bytes, limit: usize::from(u16::MAX) });
        }
        if self.view.journal_bytes() > most {
            let detail = format!(
                "the journal has reached {most} bytes and holds only what is not worked off or too young; \
                 wait, raise log.max_bytes or lower log.retention"
            );
            return Err(StoreError::Full { detail });
        }
        Ok(())
    }

    fn add(&mut self, prepared: Prepared) -> Vec<Offset> {
        let Prepared { mut encoded, writes, records, consumed } = prepared;
        let at = if records.is_empty() { Timestamp::EPOCH } else { self.clock.now() };
        let mut offsets = Vec::with_capacity(records.len());
        let places = std::mem::take(&mut encoded.records);
        for write in writes {
            let key = write.key.as_bytes().clone();
            self.group.push(match write.value {
                Some(value) => Change::Put { key, value, expires: write.expires },
                None => Change::Delete { key },
            });
        }
        for (place, NewRecord { partition, key, value }) in places.into_iter().zip(records) {
            let end = self.ends.entry(partition).or_default();
            let offset = *end;
            *end += 1;
            encoded.fill(place, offset, at);
            offsets.push(offset);
            self.group.push(Change::Record(Record { partition, offset, key, value, at }));
        }
        self.group
            .extend(consumed.into_iter().map(|(partition, offset)| Change::Consumed(partition, offset)));
        self.frame.extend_from_slice(&encoded.bytes);
        offsets
    }

    fn swap(&mut self, write: Write, expected: Option<Bytes>) -> Result<Swap, StoreError> {
        let key = write.key.as_bytes().clone();
        let found = match self.swapped.get(&key) {
            Some(found) => found.clone(),
            None => self.current(&key)?,
        };
        if found != expected {
            return Ok(Swap::Found(found));
        }
        let value = write.value.clone();
        let prepared = Prepared::new(vec![write], Vec::new(), Vec::new());
        self.admit(&prepared, u64::MAX)?;
        self.swapped.insert(key, value);
        self.add(prepared);
        Ok(Swap::Done)
    }

    fn current(&self, key: &Bytes) -> Result<Option<Bytes>, StoreError> {
        let now = self.clock.now();
        let seen = self.view.read();
        let slot = match (seen.row(key), &self.store) {
            (Some(slot), _) => Some(slot.clone()),
            (None, Some(store)) => store.get(key)?,
            (None, None) => None,
        };
        Ok(slot.and_then(|slot| slot.live(now).cloned()))
    }

    /// Makes the group durable, shows it and answers.
    fn flush(&mut self) {
        let result = if self.group.is_empty() { Ok(()) } else { self.write_frame() };
        let result = result.map_err(|error| {
            tracing::error!(%error, dir = %self.dir.display(), "the journal cannot be written");
            // Nothing of the group is durable: its offsets are free again.
            self.group.clear();
            let seen = self.view.read();
            self.ends = seen.tails.iter().map(|(at, tail)| (*at, tail.end)).collect();
            match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full {
                    detail: format!("no space left for {}; free some", self.dir.display()),
                },
                _ => StoreError::Unavailable { detail: format!("{}: {error}", self.dir.display()) },
            }
        });
        self.swapped.clear();
        for waiting in self.waiting.drain(..) {
            waiting.answer(result.clone());
        }
    }

    fn write_frame(&mut self) -> std::io::Result<()> {
        segment::finish(&mut self.frame, self.sequence);
        let bytes = self.frame.len() as u64;
        if self.file.is_some() && self.len + bytes > self.segment_bytes && self.len > segment::HEADER as u64 {
            self.file = None;
            self.segment += 1;
        }
        let result = self.try_write();
        if let Err(error) = result {
            self.undo();
            return Err(error);
        }
        let place = self.place();
        self.len += bytes;
        self.sequence += 1;
        self.view.show(place, bytes, self.group.drain(..));
        Ok(())
    }

    fn try_write(&mut self) -> std::io::Result<()> {
        if self.file.is_none() {
            let mut file = self.disk.create(&segment::path(&self.dir, self.segment))?;
            let header = segment::header(self.partitions, self.segment, self.sequence);
            file.append(&header)?;
            self.len = header.len() as u64;
            self.view.begin_segment(self.segment, self.len);
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.append(&self.frame)?;
        file.sync()
    }

    /// Leaves the segment as it was before a failed write, or leaves it for good.
    fn undo(&mut self) {
        // Even where cutting works, a failed sync says that the system may have dropped what it held.
        if let Some(mut file) = self.file.take()
            && let Err(error) = file.truncate(self.len)
        {
            tracing::warn!(%error, segment = self.segment, "what a failed write left cannot be cut off");
        }
        self.segment += 1;
        self.len = 0;
    }
}

/// The replay of the segments, in order.
struct Replay<'a> {
    dir: &'a std::path::Path,
    options: &'a Options,
    view: &'a View,
    sequence: u64,
}

impl Replay<'_> {
    /// Replays a segment up to where the next one begins.
    fn segment(&mut self, id: u64, next: Option<u64>, from: Option<Place>) -> Result<(), OpenError> {
        let Some(mut segment) = Segment::read(self.dir, id)? else {
            // Its header was not written whole, so nothing in it was acknowledged.
            let path = segment::path(self.dir, id);
            if next.is_none() {
                tracing::warn!(path = %path.display(), "a segment without a whole header is removed");
            }
            std::fs::remove_file(&path).map_err(|source| io(&path, source))?;
            return Ok(());
        };
        let asked = self.options.partitions.get();
        if segment.partitions != asked {
            let dir = self.options.dir.clone();
            return Err(OpenError::Partitions { dir, made: segment.partitions, asked });
        }
        match from {
            Some(from) if from.segment == id && from.at > 0 => segment.seek(from.at, from.sequence),
            _ if segment.first_sequence != self.sequence => {
                // A later one begins where an earlier one ended; this one begins elsewhere.
                let detail = format!("begins with frame {}, not {}", segment.first_sequence, self.sequence);
                return Err(SegmentError::Corrupt { path: segment.path.clone(), at: 0, detail }.into());
            }
            _ => {}
        }
        self.view.begin_segment(id, segment.len());
        let until = match next {
            Some(next) => Segment::read(self.dir, next)?.map(|next| next.first_sequence),
            None => None,
        };
        let path = segment.path.clone();
        let corrupt =
            |at: u64, detail: &str| SegmentError::Corrupt { path: path.clone(), at, detail: detail.into() };
        loop {
            // What is behind it was written again in the next segment, and never acknowledged here.
            if until == Some(self.sequence) {
                return Ok(());
            }
            match segment.advance() {
                Next::Frame(frame) => {
                    let place = Place { segment: id, at: frame.at, sequence: frame.sequence };
                    let bytes = (segment::FRAME + frame.payload.len()) as u64;
                    let read: Option<Vec<_>> = changes(frame.payload).collect();
                    let read = read.ok_or_else(|| corrupt(frame.at, "a frame holds no changes"))?;
                    self.view.show(place, bytes, read.into_iter());
                    self.sequence = frame.sequence + 1;
                }
                Next::End if until.is_none() => return Ok(()),
                Next::End => return Err(corrupt(segment.len(), "it ends before the next begins").into()),
                Next::Torn(at) if until.is_none() => {
                    tracing::warn!(
                        path = %segment.path.display(), at, bytes = segment.len() - at,
                        "a torn write, never acknowledged, is cut off"
                    );
                    cut(&segment.path, at).map_err(|source| io(&segment.path, source))?;
                    self.view.end_segment(id, at);
                    return Ok(());
                }
                Next::Torn(at) | Next::Corrupt(at) => {
                    return Err(corrupt(at, "a frame does not match its checksum").into());
                }
            }
        }
    }
}
