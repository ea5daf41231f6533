//! The key-value store that holds what is checkpointed.
//!
//! A checkpoint goes in as one sorted ingestion: rows, what is known of segments, and the place in the
//! journal. It is registered in one step and is there as a whole or not at all. Replaying from an older
//! place than needed writes the same rows again.

use std::num::NonZeroU64;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;

use super::OpenError;
use super::catalog::SegmentInfo;
use super::rows::{Range, Slot};
use super::saved::{Frozen, Saved};

/// The key of what is saved beside the rows; it and those of segments sort before every row.
const SAVED: &[u8] = &[0];
/// What follows the keys of segments.
const ROWS: &[u8] = &[1];
/// Ingested tables that may wait for compaction: each is one more to look into for a row.
const TABLES_WAITING: usize = 12;

/// What is known of segments.
pub(super) type Segments = Vec<(u64, SegmentInfo)>;

/// The store.
pub(super) struct Store(RwLock<Option<Open>>);

#[derive(Clone)]
struct Open {
    database: Database,
    rows: Keyspace,
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
        Ok(Self(RwLock::new(Some(Open { database, rows }))))
    }

    fn open_one(&self) -> Result<Open, StoreError> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StoreError::Closed)
    }

    /// Closes it, so that it can be opened again.
    pub(super) fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the newest checkpoint saved, and the segments it knows.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read_saved(&self) -> Result<Option<(Saved, Segments)>, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let rows = self.open_one().map_err(|error| told(&error))?.rows;
        let Some(stored) = rows.get(SAVED).map_err(|error| told(&error))? else { return Ok(None) };
        let saved = serde_json::from_slice(&stored).map_err(|error| told(&error))?;
        let mut segments = Vec::new();
        for entry in rows.range::<&[u8], _>((Bound::Excluded(SAVED), Bound::Excluded(ROWS))) {
            let (key, value) = entry.into_inner().map_err(|error| told(&error))?;
            let id = key.get(1..9).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
            let id = id.ok_or_else(|| format!("a segment is known as {key:?}"))?;
            segments.push((id, serde_json::from_slice(&value).map_err(|error| told(&error))?));
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

    /// Whether so many checkpoints wait to be merged that reading would suffer from one more.
    #[must_use]
    pub(super) fn is_behind(&self) -> bool {
        self.open_one().is_ok_and(|open| open.rows.l0_table_count() > TABLES_WAITING)
    }

    /// Writes frozen rows and what goes with them. Rows whose time is over are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then nothing of it is there.
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

    /// Looks at `count` rows from `from` on, and deletes those whose time is over, if they may `go`.
    /// Returns the row to go on from, `None` at the end.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn sweep(
        &self,
        from: Option<&Bytes>,
        count: usize,
        now: Timestamp,
        go: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Bytes>, StoreError> {
        let open = self.open_one()?;
        let from = from.map_or(ROWS, |from| from);
        for (looked_at, entry) in open.rows.range(from..).enumerate() {
            let (key, value) = entry.into_inner().map_err(failed)?;
            if looked_at >= count {
                return Ok(Some(Bytes::copy_from_slice(&key)));
            }
            let expires = value.first_chunk::<8>().map_or(i64::MAX, |at| i64::from_be_bytes(*at));
            if expires <= now.as_micros() && go(&key) {
                open.rows.remove(key).map_err(failed)?;
            }
        }
        Ok(None)
    }

    /// Rewrites everything, so that nothing is left of what was deleted or written over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        self.open_one()?.rows.major_compact().map_err(failed)
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
