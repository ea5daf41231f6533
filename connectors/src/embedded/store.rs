//! Key-value store of the checkpoint.
//!
//! A checkpoint goes in as one sorted ingestion: rows, what is known of segments, and the place in the
//! journal. It is registered in one step and is there as a whole or not at all. Replaying from an older
//! place than needed writes the same rows again.

use std::num::NonZeroU64;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;

use super::catalog::SegmentInfo;
use super::rows::{Range, Slot};
use super::saved::{Frozen, Saved};
use super::{OpenError, Stats};

/// Key of the metadata beside the rows; it and the keys of segments sort before every row.
const SAVED: &[u8] = &[0];
/// The key of when the files were rewritten last; before those of segments, which are longer.
const COMPACTED: &[u8] = &[0, 0];
/// Lowest key behind the keys of segments.
const ROWS: &[u8] = &[1];
/// Ingested tables that may wait for compaction: each is one more to look into for a row.
const TABLES_WAITING: usize = 12;

/// Number of checks that files replaced by a merge are deleted, and the pause between them: a read takes far less.
const DROPPED_WITHIN: u32 = 100;
const DROP_PAUSE: Duration = Duration::from_millis(100);

/// Catalog entries of segments.
pub(super) type Segments = Vec<(u64, SegmentInfo)>;

/// The store.
pub(super) struct Store {
    open: RwLock<Option<Open>>,
    /// One rewrites the files at a time.
    compacting: Mutex<()>,
    is_compacting: AtomicBool,
}

#[derive(Clone)]
struct Open {
    database: Database,
    rows: Keyspace,
}

impl Open {
    fn note_compacted(&self, at: Timestamp) -> Result<(), StoreError> {
        self.rows.insert(COMPACTED, at.as_micros().to_be_bytes().as_slice()).map_err(failed)
    }

    /// The files that hold rows.
    fn tables(&self) -> Result<Vec<PathBuf>, StoreError> {
        let entries = std::fs::read_dir(self.rows.path().join("tables")).map_err(failed)?;
        entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
    }

    /// Waits until files that a merge has replaced are deleted.
    ///
    /// The store keeps them as a previous version for possible readers, and checks for readers only when it makes a
    /// table of what was written singly (lsm-tree 3.1.10, `SuperVersions::maintenance`; fjall 3.1.13,
    /// `Keyspace::inner_rotate_memtable`). So a row is written here, which also advances the readers' horizon.
    fn drop_files(&self, previous: &[PathBuf], note: Timestamp) -> Result<(), StoreError> {
        for _ in 0..DROPPED_WITHIN {
            self.note_compacted(note)?;
            self.rows.rotate_memtable_and_wait().map_err(failed)?;
            if !previous.iter().any(|table| table.exists()) {
                return Ok(());
            }
            std::thread::sleep(DROP_PAUSE);
        }
        Err(failed("its previous files are still being read"))
    }
}

fn failed(error: impl std::fmt::Display) -> StoreError {
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
    pub(super) fn open(dir: &Path, cache_bytes: NonZeroU64) -> Result<Self, OpenError> {
        let damaged =
            |error: fjall::Error| OpenError::Checkpoint { dir: dir.into(), detail: error.to_string() };
        let database =
            Database::builder(dir).cache_size(cache_bytes.get()).worker_threads(1).open().map_err(damaged)?;
        // Nearly everything is sealed, and sealed bytes do not compress.
        let options = || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        };
        let rows = database.keyspace("rows", options).map_err(damaged)?;
        Ok(Self {
            open: RwLock::new(Some(Open { database, rows })),
            compacting: Mutex::new(()),
            is_compacting: AtomicBool::new(false),
        })
    }

    fn open_one(&self) -> Result<Open, StoreError> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StoreError::Closed)
    }

    /// Closes it, so that it can be opened again.
    pub(super) fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Reads the newest checkpoint's metadata and the segments it knows.
    ///
    /// # Errors
    /// A description of the fault.
    pub(super) fn read_saved(&self) -> Result<Option<(Saved, Segments)>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let rows = self.open_one().map_err(|error| text(&error))?.rows;
        let Some(stored) = rows.get(SAVED).map_err(|error| text(&error))? else { return Ok(None) };
        let saved = serde_json::from_slice(&stored).map_err(|error| text(&error))?;
        let mut segments = Vec::new();
        for entry in rows.range::<&[u8], _>((Bound::Excluded(COMPACTED), Bound::Excluded(ROWS))) {
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
        let stored = self.open_one()?.rows.get(key).map_err(failed)?;
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
        Ok(self.open_one()?.rows.range(range).map(|entry| {
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
        !self.is_compacting() && self.open_one().is_ok_and(|open| open.rows.l0_table_count() > TABLES_WAITING)
    }

    /// Writes frozen rows and the metadata that goes with them. Expired rows are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then nothing was written.
    pub(super) fn ingest(&self, frozen: &Frozen, now: Timestamp) -> Result<(), StoreError> {
        let open = self.open_one()?;
        let mut ingestion = open.rows.start_ingestion().map_err(failed)?;
        ingestion.write(SAVED, serde_json::to_vec(&*frozen.saved).map_err(failed)?).map_err(failed)?;
        for (id, info) in &*frozen.segments {
            let key = segment_key(*id);
            match info {
                Some(info) => {
                    ingestion
                        .write(key.as_slice(), serde_json::to_vec(info).map_err(failed)?)
                        .map_err(failed)?;
                }
                None => ingestion.write_tombstone(key.as_slice()).map_err(failed)?,
            }
        }
        let mut stored = Vec::new();
        for (key, row) in frozen.rows.sorted() {
            match row.live(now) {
                Some(value) => {
                    let expires = row.expires.map_or(i64::MAX, Timestamp::as_micros);
                    stored.clear();
                    stored.extend_from_slice(&expires.to_be_bytes());
                    stored.extend_from_slice(value);
                    ingestion.write(&**key, stored.as_slice()).map_err(failed)?;
                }
                None => ingestion.write_tombstone(&**key).map_err(failed)?,
            }
        }
        ingestion.finish().map_err(failed)?;
        open.database.persist(PersistMode::SyncAll).map_err(failed)
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
        let open = self.open_one()?;
        let from = from.map_or(ROWS, |from| from);
        let (mut ended, mut next) = (Vec::new(), None);
        for (looked_at, entry) in open.rows.range(from..).enumerate() {
            let (key, value) = entry.into_inner().map_err(failed)?;
            if looked_at >= count {
                next = Some(Bytes::copy_from_slice(&key));
                break;
            }
            let expires = value.first_chunk::<8>().map_or(i64::MAX, |at| i64::from_be_bytes(*at));
            if expires <= now.as_micros() && go(&key) {
                ended.push(key);
            }
        }
        let count = ended.len();
        if count > 0 {
            let mut ingestion = open.rows.start_ingestion().map_err(failed)?;
            for key in ended {
                ingestion.write_tombstone(key).map_err(failed)?;
            }
            ingestion.finish().map_err(failed)?;
        }
        Ok((next, count))
    }

    /// Returns the time of the last rewrite of the files.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn compacted_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let stored = self.open_one()?.rows.get(COMPACTED).map_err(failed)?;
        let at = stored.as_deref().and_then(|stored| stored.first_chunk::<8>());
        Ok(at.map(|at| Timestamp::from_micros(i64::from_be_bytes(*at))))
    }

    /// Notes when the files were rewritten.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn note_compacted(&self, at: Timestamp) -> Result<(), StoreError> {
        self.open_one()?.note_compacted(at)
    }

    /// Rewrites everything, so that no bytes are left of what was deleted or overwritten before. Checkpoints may be
    /// written meanwhile; the store merges none of them until the rewrite is done.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also if a reader holds the previous files for too long: they then still exist.
    pub(super) fn compact(&self, clock: &dyn Clock, stats: &Stats) -> Result<(), StoreError> {
        let _one = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, began) = (clock.now(), clock.elapsed());
        let previous_at = self.compacted_at()?;
        let open = self.open_one()?;
        let previous = open.tables()?;
        self.is_compacting.store(true, Ordering::Relaxed);
        let rewritten = open.rows.major_compact();
        self.is_compacting.store(false, Ordering::Relaxed);
        rewritten.map_err(failed)?;
        open.drop_files(&previous, previous_at.unwrap_or(at))?;
        open.note_compacted(at)?;
        let took = clock.elapsed().saturating_sub(began);
        stats.compacted(took);
        tracing::info!(took_ms = took.as_millis(), "rewrote the store's files without removed rows");
        Ok(())
    }

    /// The folder of the store inside that of the embedded store.
    #[must_use]
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("rows")
    }
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
