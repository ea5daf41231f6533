//! The checkpoint: a key-value store that takes the changed rows when they are many.
//!
//! Rows and the place in the journal go in as one sorted ingestion, which is one table of the store: it is
//! there as a whole or not at all. Replaying from an older place than needed writes the same rows again.
//! Rows whose time is over are left out when they are written, and swept out later, a piece at a time.

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;

use super::view::{Frozen, Saved, Slot, View};
use super::{OpenError, Options, segment};

/// The key of what is saved beside the rows; it sorts before every row.
const SAVED: &[u8] = &[0];
/// Rows that one sweep looks at.
const SWEPT_AT_ONCE: usize = 20_000;

/// The key-value store.
pub struct Store {
    database: Database,
    rows: Keyspace,
    journal: std::path::PathBuf,
    /// Where the next sweep begins.
    sweep_from: Mutex<Bytes>,
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable { detail: format!("the checkpoint store: {error}") }
}

impl Store {
    /// Opens it in this folder.
    ///
    /// # Errors
    /// [`OpenError::Checkpoint`].
    pub fn open(dir: &Path, cache_bytes: std::num::NonZeroU64) -> Result<Self, OpenError> {
        let damaged =
            |error: fjall::Error| OpenError::Checkpoint { dir: dir.into(), detail: error.to_string() };
        let database =
            Database::builder(dir).cache_size(cache_bytes.get()).worker_threads(1).open().map_err(damaged)?;
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default).map_err(damaged)?;
        let journal = dir.parent().unwrap_or(dir).join("journal");
        Ok(Self { database, rows, journal, sweep_from: Mutex::default() })
    }

    /// What the newest checkpoint saved.
    ///
    /// # Errors
    /// [`OpenError::Checkpoint`], [`OpenError::Partitions`].
    pub fn read_saved(&self, options: &Options) -> Result<Saved, OpenError> {
        let dir = &options.dir;
        let damaged = |detail: String| OpenError::Checkpoint { dir: dir.join("rows"), detail };
        let asked = options.partitions.get();
        let saved = match self.rows.get(SAVED).map_err(|error| damaged(error.to_string()))? {
            Some(stored) => {
                serde_json::from_slice::<Saved>(&stored).map_err(|error| damaged(error.to_string()))?
            }
            None => Saved { partitions: asked, ..Saved::default() },
        };
        if saved.partitions != asked {
            return Err(OpenError::Partitions { dir: dir.clone(), made: saved.partitions, asked });
        }
        Ok(saved)
    }

    /// A row.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Slot>, StoreError> {
        let stored = self.rows.get(key).map_err(failed)?;
        stored.map(|stored| slot(Bytes::from(stored.to_vec()))).transpose()
    }

    /// The rows in a range of keys, in order.
    pub fn range(
        &self,
        range: (Bound<Bytes>, Bound<Bytes>),
    ) -> impl DoubleEndedIterator<Item = Result<(Bytes, Slot), StoreError>> + use<> {
        self.rows.range(range).map(|entry| {
            let (key, value) = entry.into_inner().map_err(failed)?;
            Ok((Bytes::from(key.to_vec()), slot(Bytes::from(value.to_vec()))?))
        })
    }

    /// Writes frozen rows and what goes with them.
    fn ingest(&self, frozen: &Frozen, now: Timestamp) -> Result<(), fjall::Error> {
        let mut ingestion = self.rows.start_ingestion()?;
        let saved = serde_json::to_vec(&*frozen.saved).map_err(std::io::Error::other)?;
        ingestion.write(SAVED, saved)?;
        for (key, row) in &*frozen.rows {
            match row.live(now) {
                Some(value) => {
                    let mut stored = Vec::with_capacity(8 + value.len());
                    let expires = row.expires.map_or(i64::MAX, Timestamp::as_micros);
                    stored.extend_from_slice(&expires.to_be_bytes());
                    stored.extend_from_slice(value);
                    ingestion.write(&**key, stored)?;
                }
                None => ingestion.write_tombstone(&**key)?,
            }
        }
        ingestion.finish()?;
        self.database.persist(PersistMode::SyncAll)
    }

    /// Deletes rows whose time is over, in the next piece of the store. Only rows that nobody has changed
    /// since: a changed one is in memory, and goes in with the next checkpoint.
    fn sweep(&self, view: &View, now: Timestamp) -> Result<usize, fjall::Error> {
        let from = self.sweep_from.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut swept = 0;
        let mut next = Bytes::new();
        let range = (Bound::Excluded(from.to_vec()), Bound::<Vec<u8>>::Unbounded);
        for (count, entry) in self.rows.range(range).enumerate() {
            let (key, value) = entry.into_inner()?;
            if count >= SWEPT_AT_ONCE {
                next = Bytes::from(key.to_vec());
                break;
            }
            let expired =
                &*key != SAVED && slot(Bytes::from(value.to_vec())).is_ok_and(|row| row.live(now).is_none());
            // An ingestion of this very row cannot run meanwhile: it is this thread's work.
            if expired && view.read().row(&Bytes::from(key.to_vec())).is_none() {
                self.rows.remove(key)?;
                swept += 1;
            }
        }
        *self.sweep_from.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(swept)
    }
}

fn slot(stored: Bytes) -> Result<Slot, StoreError> {
    let Some(expires) = stored.first_chunk::<8>() else {
        let detail = format!("a checkpointed row of {} bytes", stored.len());
        return Err(StoreError::Corrupt { detail });
    };
    let expires = i64::from_be_bytes(*expires);
    let expires = Some(expires).filter(|&at| at != i64::MAX).map(Timestamp::from_micros);
    Ok(Slot { value: Some(stored.slice(8..)), expires })
}

/// The thread that writes checkpoints and clears away what is old.
pub struct Checkpointer {
    /// Where to.
    pub store: Arc<Store>,
    /// What from.
    pub view: Arc<View>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Checkpointer {
    /// Runs until the writer has ended and its last rows are written.
    pub fn run(self) {
        while let Some(frozen) = self.view.next_frozen() {
            let now = self.clock.now();
            if let Some(frozen) = frozen {
                if let Err(error) = self.store.ingest(&frozen, now) {
                    // The rows stay in memory and in the journal; the writer waits when they are too many.
                    tracing::error!(%error, "a checkpoint cannot be written; it is tried again");
                    std::thread::sleep(std::time::Duration::from_secs(1));
                    if self.view.is_stopped() {
                        return;
                    }
                    continue;
                }
                self.view.thaw();
            }
            self.clear(now);
        }
    }

    fn clear(&self, now: Timestamp) {
        for id in self.view.forget_segments(now) {
            let path = segment::path(&self.store.journal, id);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "an old segment cannot be deleted");
            }
        }
        if let Err(error) = self.store.sweep(&self.view, now) {
            tracing::warn!(%error, "rows whose time is over cannot be swept out");
        }
    }
}
