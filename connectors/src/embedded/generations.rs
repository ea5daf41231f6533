//! Database of the checkpoint, and the rewrite of its rows into a new keyspace.
//!
//! A row that was deleted or overwritten stays in some file until a merge reaches it. A rewrite gets rid of all such bytes:
//! it copies the rows that are there, in order of their keys and a range at a time, from the current keyspace into the
//! next one. Keys before the *boundary* are the next keyspace's; what a checkpoint brings goes where its key belongs. The
//! boundary moves, durably, when a range is copied; copies that a crash left beyond it are deleted at the next start.
//! Behind it, files of the current keyspace that hold only moved keys are deleted; so the rewrite needs room for one
//! range and for the few files that span many, not for all rows once more. At the end the next keyspace is the current one.
//!
//! Keyspaces are called `rows`, `rows-1`, `rows-2` and so on; of two, the higher one is the next.

use std::num::NonZeroU64;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::CompressionPolicy;
use fjall::{AbstractTree as _, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;

use super::rows::Range;
use super::store::{COMPACTED, Ordered, failed};

/// Key behind every row; in the next keyspace it holds the boundary.
const END: &[u8] = &[0xff];
/// Number of checks that replaced files are deleted, and the pause between them: a read takes far less.
const DROPPED_WITHIN: u32 = 100;
const DROP_PAUSE: Duration = Duration::from_millis(100);
/// Number of times that the database is asked to delete moved files before the next range is copied.
const RELEASED_WITHIN: u32 = 20;
/// Number of checks that a table is written, and the pause between them: a merge may be in front of it.
const FLUSHED_WITHIN: u32 = 6_000;
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

/// The database with its current keyspace, and the next one during a rewrite.
#[derive(Clone)]
pub(super) struct Generations {
    database: Database,
    rows: Keyspace,
    number: u64,
    next: Option<Next>,
    table_bytes: u64,
}

/// The keyspace that rows are copied into.
#[derive(Clone)]
struct Next {
    rows: Keyspace,
    number: u64,
    /// Keys before it are here.
    boundary: Bytes,
    /// Start of the rewrite.
    began: Timestamp,
}

/// The keyspace that a rewrite has replaced.
pub(super) struct Previous {
    /// Its rows.
    pub(super) rows: Keyspace,
    /// Start of the rewrite.
    pub(super) began: Timestamp,
}

fn name(number: u64) -> String {
    if number == 0 { "rows".to_owned() } else { format!("rows-{number}") }
}

fn number_of(name: &str) -> Option<u64> {
    match name.strip_prefix("rows")? {
        "" => Some(0),
        rest => rest.strip_prefix('-')?.parse().ok(),
    }
}

/// Files of about `table_bytes`: small ones span few keys, and are deleted soon behind the boundary.
fn options(table_bytes: u64) -> KeyspaceCreateOptions {
    // Nearly everything is sealed, and sealed bytes do not compress.
    KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(table_bytes)))
}

impl Generations {
    /// Opens the database in this folder. A rewrite that is complete but for its end is ended.
    pub(super) fn open(dir: &Path, cache_bytes: NonZeroU64, table_bytes: u64) -> Result<Self, fjall::Error> {
        let options = || options(table_bytes);
        let database = Database::builder(dir).cache_size(cache_bytes.get()).worker_threads(1).open()?;
        let names = database.list_keyspace_names();
        let mut numbers: Vec<_> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        let newest = numbers.pop().unwrap_or(0);
        let rows = database.keyspace(&name(newest), options)?;
        let Some(number) = numbers.pop() else {
            return Ok(Self { database, rows, number: newest, next: None, table_bytes });
        };
        let previous = database.keyspace(&name(number), options)?;
        let Some((began, boundary)) = boundary(&rows)? else {
            // Nothing was copied.
            database.delete_keyspace(rows)?;
            return Ok(Self { database, rows: previous, number, next: None, table_bytes });
        };
        if *boundary == *END {
            database.delete_keyspace(previous)?;
            return Ok(Self { database, rows, number: newest, next: None, table_bytes });
        }
        delete_from(&rows, &boundary)?;
        let next = Next { rows, number: newest, boundary, began };
        Ok(Self { database, rows: previous, number, next: Some(next), table_bytes })
    }

    /// Returns true if the database refuses writes because one of its own failed.
    pub(super) fn is_poisoned(&self) -> bool {
        matches!(self.database.persist(PersistMode::Buffer), Err(fjall::Error::Poisoned))
    }

    /// Returns the number of ingested tables that wait for a merge.
    pub(super) fn waiting_tables(&self) -> usize {
        let next = self.next.as_ref().map_or(0, |next| next.rows.l0_table_count());
        self.rows.l0_table_count() + next
    }

    /// A row as it is stored.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<fjall::Slice>, fjall::Error> {
        match &self.next {
            Some(next) if key < &*next.boundary => next.rows.get(key),
            _ => self.rows.get(key),
        }
    }

    /// The rows in a range of keys, in order, as they are now.
    pub(super) fn range(&self, (from, to): Range) -> impl DoubleEndedIterator<Item = fjall::Guard> + use<> {
        let end = Bytes::from_static(END);
        let to = match to {
            Bound::Unbounded => Bound::Excluded(end),
            to => to,
        };
        let (moved, rest) = match &self.next {
            None => (None, Some((from, to))),
            Some(next) => split((from, to), &next.boundary),
        };
        let moved = moved.and_then(|range| Some(self.next.as_ref()?.rows.range(range)));
        let rest = rest.map(|range| self.rows.range(range));
        moved.into_iter().flatten().chain(rest.into_iter().flatten())
    }

    /// Writes rows, each into the keyspace of its key, in one ingestion for each of the two.
    ///
    /// The lower keys go last: among them is the checkpoint's place, which says that the others are there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn write(&self, rows: &dyn Ordered) -> Result<(), StoreError> {
        let Some(next) = &self.next else { return ingest(&self.rows, rows, &|_| true) };
        ingest(&self.rows, rows, &|key| key >= &*next.boundary)?;
        ingest(&next.rows, rows, &|key| key < &*next.boundary)
    }

    /// Notes when the files were rewritten.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn note_compacted(&self, at: Timestamp) -> Result<(), StoreError> {
        self.rows.insert(COMPACTED, at.as_micros().to_be_bytes().as_slice()).map_err(failed)
    }

    /// Begins a rewrite, or continues the one that was begun.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn begin(&self, now: Timestamp) -> Result<Self, StoreError> {
        let mut begun = self.clone();
        if begun.next.is_none() {
            // Rows that were inserted singly wait in memory, and their bytes in the database's own journal.
            self.flush(&self.rows)?;
            let number = self.number + 1;
            let rows = self.database.keyspace(&name(number), || options(self.table_bytes)).map_err(failed)?;
            begun.next = Some(Next { rows, number, boundary: Bytes::new(), began: now });
        }
        Ok(begun)
    }

    /// Copies the next rows, up to this many bytes, and moves the boundary behind them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then the boundary is where it was, and the database has to be opened again.
    pub(super) fn copy_range(&self, bytes: u64) -> Result<Self, StoreError> {
        let mut moved = self.clone();
        let Some(next) = &mut moved.next else { return Ok(moved) };
        let mut ingestion = next.rows.start_ingestion().map_err(failed)?;
        let (mut copied, mut boundary) = (0, Bytes::from_static(END));
        let rest = (Bound::Included(next.boundary.clone()), Bound::Excluded(Bytes::from_static(END)));
        for entry in self.rows.range(rest) {
            let (key, value) = entry.into_inner().map_err(failed)?;
            if copied >= bytes {
                boundary = Bytes::copy_from_slice(&key);
                break;
            }
            copied += (key.len() + value.len()) as u64;
            ingestion.write(key, value).map_err(failed)?;
        }
        let mut note = next.began.as_micros().to_be_bytes().to_vec();
        note.extend_from_slice(&boundary);
        ingestion.finish().map_err(failed)?;
        // Not in the ingestion: its files would then span all keys up to this one.
        next.rows.insert(END, note).map_err(failed)?;
        self.database.persist(PersistMode::SyncAll).map_err(failed)?;
        next.boundary = boundary;
        Ok(moved)
    }

    /// Returns true if every row is in the next keyspace.
    pub(super) fn is_all_moved(&self) -> bool {
        self.next.as_ref().is_some_and(|next| *next.boundary == *END)
    }

    /// Deletes files that hold only rows that were moved.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) fn drop_moved(&self) -> Result<(), StoreError> {
        let Some(next) = &self.next else { return Ok(()) };
        self.rows.tree.drop_range(..&*next.boundary).map_err(failed)?;
        for _ in 0..RELEASED_WITHIN {
            self.release(&self.rows)?;
            let files = std::fs::read_dir(self.rows.path().join("tables")).map_err(failed)?.count();
            // What a merge is writing is no table yet.
            if files <= self.rows.table_count() {
                break;
            }
            std::thread::sleep(FLUSH_PAUSE);
        }
        Ok(())
    }

    /// Has the database delete replaced files.
    ///
    /// It keeps them for possible readers, and checks for readers only when it makes a table of what was inserted singly
    /// (lsm-tree 3.1.10, `SuperVersions::maintenance`). The key was moved: it is no row of this keyspace any more.
    fn release(&self, rows: &Keyspace) -> Result<(), StoreError> {
        rows.insert(COMPACTED, [0_u8; 8].as_slice()).map_err(failed)?;
        self.flush(rows)
    }

    /// Makes the next keyspace the current one.
    pub(super) fn adopt(&self) -> (Self, Previous) {
        let (rows, number, began) = match &self.next {
            Some(next) => (next.rows.clone(), next.number, next.began),
            None => (self.rows.clone(), self.number, Timestamp::EPOCH),
        };
        let done = Self { rows, number, next: None, ..self.clone() };
        (done, Previous { rows: self.rows.clone(), began })
    }

    /// Deletes the keyspace that was the current one, with its files.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also if a reader holds the files for too long.
    pub(super) fn delete(&self, previous: Keyspace) -> Result<(), StoreError> {
        let entries = std::fs::read_dir(previous.path().join("tables")).map_err(failed)?;
        let tables = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
        let tables = tables.map_err(failed)?;
        previous.tree.drop_range::<&[u8], _>(..).map_err(failed)?;
        for _ in 0..DROPPED_WITHIN {
            self.release(&previous)?;
            if !tables.iter().any(|table| table.exists()) {
                return self.database.delete_keyspace(previous).map_err(failed);
            }
            std::thread::sleep(DROP_PAUSE);
        }
        Err(failed("its previous files are still being read"))
    }

    /// Makes a table of what was inserted singly, and waits for it. The database's own wait does not end if it fails.
    fn flush(&self, rows: &Keyspace) -> Result<(), StoreError> {
        rows.rotate_memtable().map_err(failed)?;
        for _ in 0..FLUSHED_WITHIN {
            if rows.sealed_memtable_count() == 0 {
                return Ok(());
            }
            if self.is_poisoned() {
                break;
            }
            std::thread::sleep(FLUSH_PAUSE);
        }
        Err(failed("a table cannot be written"))
    }
}

/// The start of a rewrite and its boundary, if it has copied anything.
fn boundary(next: &Keyspace) -> Result<Option<(Timestamp, Bytes)>, fjall::Error> {
    let stored = next.get(END)?;
    Ok(stored.and_then(|stored| {
        let began = i64::from_be_bytes(*stored.first_chunk::<8>()?);
        Some((Timestamp::from_micros(began), Bytes::copy_from_slice(&stored[8..])))
    }))
}

/// Deletes copies of rows from a key on: of the range that was being copied when the process ended.
fn delete_from(next: &Keyspace, boundary: &Bytes) -> Result<(), fjall::Error> {
    let mut ingestion = None;
    for entry in next.range::<&[u8], _>((Bound::Included(&**boundary), Bound::Excluded(END))) {
        if ingestion.is_none() {
            ingestion = Some(next.start_ingestion()?);
        }
        let (key, _) = entry.into_inner()?;
        if let Some(ingestion) = &mut ingestion {
            ingestion.write_tombstone(key)?;
        }
    }
    ingestion.map_or(Ok(()), |ingestion| ingestion.finish())
}

/// The parts of a range before a key, and from it on; a part that is empty for sure is left out.
fn split((from, to): Range, at: &Bytes) -> (Option<Range>, Option<Range>) {
    let begins_before = match &from {
        Bound::Included(from) | Bound::Excluded(from) => from < at,
        Bound::Unbounded => true,
    };
    let ends_before = match &to {
        Bound::Included(to) => to < at,
        Bound::Excluded(to) => to <= at,
        Bound::Unbounded => false,
    };
    match (begins_before, ends_before) {
        (true, true) => (Some((from, to)), None),
        (true, false) => (Some((from, Bound::Excluded(at.clone()))), Some((Bound::Included(at.clone()), to))),
        (false, _) => (None, Some((from, to))),
    }
}

fn ingest(into: &Keyspace, rows: &dyn Ordered, within: &dyn Fn(&[u8]) -> bool) -> Result<(), StoreError> {
    let mut ingestion = into.start_ingestion().map_err(failed)?;
    let mut written = false;
    rows.each(within, &mut |key, value| {
        written = true;
        match value {
            Some(value) => ingestion.write(key, value),
            None => ingestion.write_tombstone(key),
        }
        .map_err(failed)
    })?;
    // The tables, their folder and the version that names them are synced by the end of an ingestion; the database's
    // journal, which persisting is about, has no part in it.
    if written { ingestion.finish().map_err(failed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn a_range_is_split_at_the_boundary() {
        let range = |from: &str, to: &str| (Bound::Included(bytes(from)), Bound::Excluded(bytes(to)));
        let at = bytes("m");
        assert_eq!(split(range("a", "m"), &at), (Some(range("a", "m")), None));
        assert_eq!(split(range("m", "z"), &at), (None, Some(range("m", "z"))));
        assert_eq!(split(range("a", "z"), &at), (Some(range("a", "m")), Some(range("m", "z"))));
        assert_eq!(split(range("a", "z"), &Bytes::new()), (None, Some(range("a", "z"))));
    }
}
