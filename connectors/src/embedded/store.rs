//! Key-value store of the checkpoint.
//!
//! A checkpoint goes in as one sorted ingestion: rows, what is known of segments, and the place in the
//! journal. It is registered in one step and is there as a whole or not at all. Replaying from an older
//! place than needed writes the same rows again.
//!
//! # Full disks
//! Nothing is written for which there is visibly no room. A write or a merge that fails all the same leaves unfinished
//! files behind, and a failed merge ends the database's worker for good (fjall 3.1.13, `WorkerPool::start`: it poisons
//! the database). So the database is opened again before the next write, which deletes those files.

use std::num::NonZeroU64;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;

use super::catalog::SegmentInfo;
use super::generations::Generations;
use super::rows::{Range, Slot};
use super::saved::{Frozen, Saved};
use super::{OpenError, Options, Stats};

/// Key of the metadata beside the rows; it and the keys of segments sort before every row.
const SAVED: &[u8] = &[0];
/// The key of when the files were rewritten last; before those of segments, which are longer.
pub(super) const COMPACTED: &[u8] = &[0, 0];
/// Lowest key behind the keys of segments.
const ROWS: &[u8] = &[1];
/// Ingested tables that may wait for compaction: each is one more to look into for a row.
const TABLES_WAITING: usize = 12;
/// Bytes that stay free whatever is written.
const FLOOR: u64 = 1 << 20;
/// Attempts to open the database again while a read still holds it, and the pause between them.
const REOPEN_TRIES: u32 = 50;
const REOPEN_PAUSE: Duration = Duration::from_millis(20);
/// Bounds of the bytes that a rewrite copies at once, and of a merged file.
const STEP: std::ops::RangeInclusive<u64> = (64 << 10)..=(16 << 20);

/// Catalog entries of segments.
pub(super) type Segments = Vec<(u64, SegmentInfo)>;

/// The store.
pub(super) struct Store {
    dir: PathBuf,
    cache_bytes: NonZeroU64,
    /// Bytes that a rewrite copies at once.
    step: u64,
    handle: RwLock<Handle>,
    /// Held by what changes rows or the handle: checkpoints, sweeps, and the steps of a rewrite.
    writing: Mutex<()>,
    /// True after a failed write: its unfinished files are deleted when the database is opened again.
    is_broken: AtomicBool,
    /// One rewrites the files at a time.
    compacting: Mutex<()>,
    is_compacting: AtomicBool,
    stats: Arc<Stats>,
}

enum Handle {
    Open(Generations),
    /// It could not be opened again, for this reason.
    Failed(String),
    Closed,
}

pub(super) fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable { detail: format!("the checkpoint store: {error}") }
}

fn segment_key(id: u64) -> [u8; 9] {
    let mut key = [SAVED[0]; 9];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

impl Store {
    /// Opens it in this folder.
    ///
    /// # Errors
    /// [`OpenError::Checkpoint`].
    pub(super) fn open(options: &Options, stats: Arc<Stats>) -> Result<Self, OpenError> {
        let dir = Self::path(&options.dir);
        let step = (options.checkpoint_bytes.get() / 4).clamp(*STEP.start(), *STEP.end());
        let opened = Generations::open(&dir, options.cache_bytes, step);
        let opened =
            opened.map_err(|error| OpenError::Checkpoint { dir: dir.clone(), detail: error.to_string() })?;
        Ok(Self {
            dir,
            cache_bytes: options.cache_bytes,
            step,
            handle: RwLock::new(Handle::Open(opened)),
            writing: Mutex::new(()),
            is_broken: AtomicBool::new(false),
            compacting: Mutex::new(()),
            is_compacting: AtomicBool::new(false),
            stats,
        })
    }

    fn open_one(&self) -> Result<Generations, StoreError> {
        self.read(Generations::clone)
    }

    /// Begins a read. The files that it needs stay: a rewrite deletes what it has moved only after it has replaced the
    /// handle, which waits for reads that begin by the one before.
    fn read<T>(&self, begin: impl FnOnce(&Generations) -> T) -> Result<T, StoreError> {
        match &*self.handle.read().unwrap_or_else(PoisonError::into_inner) {
            Handle::Open(open) => Ok(begin(open)),
            Handle::Failed(why) => Err(failed(why)),
            Handle::Closed => Err(StoreError::Closed),
        }
    }

    fn replace(&self, open: Generations) {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*handle, Handle::Closed) {
            *handle = Handle::Open(open);
        }
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes it, so that it can be opened again.
    pub(super) fn close(&self) {
        *self.handle.write().unwrap_or_else(PoisonError::into_inner) = Handle::Closed;
    }

    /// Returns a database that can be written to, opened again if the last write or merge failed. The caller holds
    /// `writing`.
    fn sound(&self) -> Result<Generations, StoreError> {
        match self.open_one() {
            Ok(open) if !self.is_broken.load(Ordering::Relaxed) && !open.is_poisoned() => return Ok(open),
            Err(StoreError::Closed) => return Err(StoreError::Closed),
            Ok(_) | Err(_) => {}
        }
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*handle, Handle::Closed) {
            return Err(StoreError::Closed);
        }
        // Dropped first: the folder is locked as long as it is open.
        *handle = Handle::Failed("it is being opened again".to_owned());
        let mut opened = Generations::open(&self.dir, self.cache_bytes, self.step);
        for _ in 0..REOPEN_TRIES {
            if !matches!(opened, Err(fjall::Error::Locked)) {
                break;
            }
            std::thread::sleep(REOPEN_PAUSE);
            opened = Generations::open(&self.dir, self.cache_bytes, self.step);
        }
        match opened {
            Ok(open) => {
                *handle = Handle::Open(open.clone());
                self.is_broken.store(false, Ordering::Relaxed);
                self.stats.reopened();
                tracing::warn!("the checkpoint store was opened again after a failed write or merge");
                Ok(open)
            }
            Err(error) => {
                *handle = Handle::Failed(error.to_string());
                Err(failed(error))
            }
        }
    }

    /// Notes that a write failed, so that its unfinished files are deleted before the next.
    fn outcome<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.is_broken.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Refuses a write of this many bytes for which the disk has no room.
    fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let needed = bytes + bytes / 8 + FLOOR;
        match free_bytes(&self.dir) {
            Some(free) if free < needed => Err(StoreError::Full {
                detail: format!(
                    "{} has {} KiB free, and {} KiB are needed; free some",
                    self.dir.display(),
                    free >> 10,
                    needed >> 10
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Reads the newest checkpoint's metadata and the segments it knows.
    ///
    /// # Errors
    /// A description of the fault.
    pub(super) fn read_saved(&self) -> Result<Option<(Saved, Segments)>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let rows = self.open_one().map_err(|error| text(&error))?;
        let Some(stored) = rows.get(SAVED).map_err(|error| text(&error))? else { return Ok(None) };
        let saved = serde_json::from_slice(&stored).map_err(|error| text(&error))?;
        let mut segments = Vec::new();
        let known =
            (Bound::Excluded(Bytes::from_static(COMPACTED)), Bound::Excluded(Bytes::from_static(ROWS)));
        for entry in rows.range(known) {
            let (key, value) = entry.into_inner().map_err(|error| text(&error))?;
            let id = key.get(1..9).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
            let id = id.ok_or_else(|| format!("a segment is known as {key:?}"))?;
            segments.push((id, serde_json::from_slice(&value).map_err(|error| text(&error))?));
        }
        Ok(Some((saved, segments)))
    }

    /// A row.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Slot>, StoreError> {
        let stored = self.read(|open| open.get(key))?.map_err(failed)?;
        stored.map(|stored| slot(Bytes::copy_from_slice(&stored))).transpose()
    }

    /// The rows in a range of keys, in order, as they are now.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub(super) fn range(
        &self,
        range: Range,
    ) -> Result<impl DoubleEndedIterator<Item = Result<(Bytes, Slot), StoreError>> + use<>, StoreError> {
        Ok(self.read(|open| open.range(range))?.map(|entry| {
            let (key, value) = entry.into_inner().map_err(failed)?;
            Ok((Bytes::copy_from_slice(&key), slot(Bytes::copy_from_slice(&value))?))
        }))
    }

    /// Returns true while all of the store is being rewritten.
    #[must_use]
    pub(super) fn is_compacting(&self) -> bool {
        self.is_compacting.load(Ordering::Relaxed)
    }

    /// Returns true if one more unmerged checkpoint would slow reads down. During a rewrite of everything nothing
    /// else is merged; waiting for it would only stop commits, so the answer is then false.
    #[must_use]
    pub(super) fn is_behind(&self) -> bool {
        // A database whose merges have ended is opened again by the next write, and waiting does not help.
        let is_behind = |open: Generations| open.waiting_tables() > TABLES_WAITING && !open.is_poisoned();
        !self.is_compacting() && self.open_one().is_ok_and(is_behind)
    }

    /// Writes frozen rows and the metadata that goes with them. Expired rows are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then nothing was written.
    pub(super) fn ingest(&self, frozen: &Frozen, now: Timestamp) -> Result<(), StoreError> {
        let _writing = self.writing();
        let open = self.sound()?;
        self.check_room(frozen.rows.bytes() as u64)?;
        self.outcome(open.write(&Checkpoint { frozen, now }))?;
        self.stats.checkpointed();
        Ok(())
    }

    /// Checks `count` rows from `from` on, and deletes those that are expired, if they may `go`.
    /// Returns the row to continue from, `None` at the end, and the number of rows deleted.
    ///
    /// The deletes are an ingestion, like all writes here: what goes through the store's own journal stays in it for
    /// as long as little else is written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn sweep(
        &self,
        from: Option<&Bytes>,
        count: usize,
        now: Timestamp,
        go: impl Fn(&[u8]) -> bool,
    ) -> Result<(Option<Bytes>, usize), StoreError> {
        let _writing = self.writing();
        let open = self.sound()?;
        let from = from.cloned().unwrap_or(Bytes::from_static(ROWS));
        let (mut ended, mut next) = (Vec::new(), None);
        for (looked_at, entry) in open.range((Bound::Included(from), Bound::Unbounded)).enumerate() {
            let (key, value) = entry.into_inner().map_err(failed)?;
            if looked_at >= count {
                next = Some(Bytes::copy_from_slice(&key));
                break;
            }
            let expires = value.first_chunk::<8>().map_or(i64::MAX, |at| i64::from_be_bytes(*at));
            if expires <= now.as_micros() && go(&key) {
                ended.push(Bytes::copy_from_slice(&key));
            }
        }
        let count = ended.len();
        if count > 0 {
            self.check_room(ended.iter().map(|key| key.len() as u64 + 64).sum())?;
            self.outcome(open.write(&Tombstones(ended)))?;
        }
        Ok((next, count))
    }

    /// Returns the time of the last rewrite of the files.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn compacted_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let stored = self.read(|open| open.get(COMPACTED))?.map_err(failed)?;
        let at = stored.as_deref().and_then(|stored| stored.first_chunk::<8>());
        Ok(at.map(|at| Timestamp::from_micros(i64::from_be_bytes(*at))))
    }

    /// Notes when the files were rewritten.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn note_compacted(&self, at: Timestamp) -> Result<(), StoreError> {
        let _writing = self.writing();
        let open = self.sound()?;
        self.outcome(open.note_compacted(at))
    }

    /// Rewrites everything, so that no bytes are left of what was deleted or overwritten before. Checkpoints may be
    /// written meanwhile.
    ///
    /// It goes range by range ([`super::generations`]), so that it needs little room beside the rows. A rewrite that was
    /// interrupted, also by a lack of room, is continued.
    ///
    /// # Errors
    /// [`StoreError::Full`] if there is no room for one range; [`StoreError::Unavailable`], also if a reader holds the
    /// previous files for too long: they then still exist.
    pub(super) fn compact(&self, clock: &dyn Clock) -> Result<(), StoreError> {
        let _one = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        let began = clock.elapsed();
        self.is_compacting.store(true, Ordering::Relaxed);
        let rewritten = self.rewrite(clock.now());
        self.is_compacting.store(false, Ordering::Relaxed);
        self.stats.compaction_refused(matches!(rewritten, Err(StoreError::Full { .. })));
        rewritten?;
        let took = clock.elapsed().saturating_sub(began);
        self.stats.compacted(took);
        tracing::info!(took_ms = took.as_millis(), "rewrote the store's files without removed rows");
        Ok(())
    }

    fn rewrite(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut is_first = true;
        loop {
            let writing = self.writing();
            let open = self.sound()?;
            // Beside the copy, the tables that the range shares with the next one.
            self.check_room(2 * self.step)?;
            let open = if is_first { self.outcome(open.begin(now))? } else { open };
            is_first = false;
            let moved = self.outcome(open.copy_range(self.step))?;
            self.replace(moved.clone());
            if moved.is_all_moved() {
                let (done, previous) = moved.adopt();
                self.replace(done.clone());
                drop((open, moved));
                drop(writing);
                self.outcome(done.delete(previous.rows))?;
                return self.note_compacted(previous.began);
            }
            drop(open);
            drop(writing);
            self.outcome(moved.drop_moved())?;
        }
    }

    /// The folder of the store inside that of the embedded store.
    #[must_use]
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("rows")
    }
}

/// Takes a key, and its value or none to delete it.
pub(super) type Sink<'a> = dyn FnMut(&[u8], Option<&[u8]>) -> Result<(), StoreError> + 'a;

/// Rows that one ingestion writes, in order of their keys.
pub(super) trait Ordered {
    /// Calls `write` with each key that is `within`, and its value, or none to delete it.
    ///
    /// # Errors
    /// Those of `write`.
    fn each(&self, within: &dyn Fn(&[u8]) -> bool, write: &mut Sink<'_>) -> Result<(), StoreError>;
}

/// A checkpoint: metadata, segments, and rows without the expired ones.
struct Checkpoint<'a> {
    frozen: &'a Frozen,
    now: Timestamp,
}

impl Ordered for Checkpoint<'_> {
    fn each(&self, within: &dyn Fn(&[u8]) -> bool, write: &mut Sink<'_>) -> Result<(), StoreError> {
        if within(SAVED) {
            write(SAVED, Some(&serde_json::to_vec(&*self.frozen.saved).map_err(failed)?))?;
        }
        for (id, info) in &*self.frozen.segments {
            let key = segment_key(*id);
            if within(&key) {
                let info = info.as_ref().map(serde_json::to_vec).transpose().map_err(failed)?;
                write(&key, info.as_deref())?;
            }
        }
        let mut stored = Vec::new();
        for (key, row) in self.frozen.rows.sorted().filter(|(key, _)| within(key)) {
            let value = row.live(self.now).map(|value| {
                let expires = row.expires.map_or(i64::MAX, Timestamp::as_micros);
                stored.clear();
                stored.extend_from_slice(&expires.to_be_bytes());
                stored.extend_from_slice(value);
                &*stored
            });
            write(key, value)?;
        }
        Ok(())
    }
}

/// Deletes of these keys.
struct Tombstones(Vec<Bytes>);

impl Ordered for Tombstones {
    fn each(&self, within: &dyn Fn(&[u8]) -> bool, write: &mut Sink<'_>) -> Result<(), StoreError> {
        self.0.iter().filter(|key| within(key)).try_for_each(|key| write(key, None))
    }
}

/// Returns the bytes that are free for this process on the disk of a folder; none if that is not known.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn slot(stored: Bytes) -> Result<Slot, StoreError> {
    let Some(expires) = stored.first_chunk::<8>() else {
        let detail = format!("a checkpointed row of {} bytes; restore the folder from a copy", stored.len());
        return Err(StoreError::Corrupt { detail });
    };
    let expires = i64::from_be_bytes(*expires);
    let expires = Some(expires).filter(|&at| at != i64::MAX).map(Timestamp::from_micros);
    Ok(Slot { value: Some(stored.slice(8..)), expires })
}
