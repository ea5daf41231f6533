//! The agenda: rows by due time, in buckets of ten seconds.
//!
//! An agenda is a queue: every row is written once and deleted once, and both databases keep what is
//! deleted for a while (tombstones) and read over it. In one wide partition that would soon be too much:
//! Apache Cassandra refuses a read over 100,000 tombstones. So rows are spread over buckets by due time,
//! and a directory names the buckets of a partition that may hold rows.
//!
//! Contract: a bucket is in the directory before it holds a row. Who writes rows remembers which buckets
//! are, so the directory is written once a bucket. [`Cql::sweep_agenda`] takes out buckets that are long
//! over and empty; a row that is put so late all the same (an entry without hurry, a node that was
//! suspended) writes the directory again, and never while a bucket is being swept. The two ages lie far
//! apart, so that clocks of two nodes that differ a little don't matter.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::Scan;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::TopicPartition;
use scylla::errors::PrepareError;
use tokio::sync::{RwLock, RwLockReadGuard};

use super::Cql;
use super::place::Place;
use super::statements::{Execution, Preparer, Statement};

/// Microseconds of a bucket.
const BUCKET: i64 = 10_000_000;
/// Age, in buckets, at which empty buckets are swept.
const SWEPT_AFTER: i64 = 60;
/// Age, in buckets, at which rows of a bucket are put with their directory row.
const LATE_AFTER: i64 = 30;
/// Buckets read ahead of the one that a scan is at.
const AHEAD: usize = 4;

/// A bucket of an agenda.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Bucket {
    pub(super) partition: TopicPartition,
    pub(super) number: i64,
}

/// Returns the bucket of a row, or of a bound of rows, which may have fewer bytes than a row.
pub(super) fn bucket(row: &[u8]) -> i64 {
    let mut due = [0; 8];
    let len = row.len().min(8);
    due[..len].copy_from_slice(&row[..len]);
    i64::try_from(u64::from_be_bytes(due)).unwrap_or(i64::MAX) / BUCKET
}

/// A partition as CQL's `int`.
pub(super) fn partition_number(partition: TopicPartition) -> i32 {
    i32::try_from(partition.partition).unwrap_or(i32::MAX)
}

/// The buckets that a scan covers, first and last.
fn covered(scan: &Scan) -> (i64, i64) {
    let last = scan.to.as_deref().map_or(i64::MAX, bucket);
    (bucket(&scan.from), last)
}

fn is_late(bucket: i64, now: Timestamp) -> bool {
    bucket + LATE_AFTER < now.as_micros().div_euclid(BUCKET)
}

/// Directory entries that are known without a read.
#[derive(Debug, Default)]
struct Known {
    of: HashMap<TopicPartition, OfPartition>,
}

#[derive(Debug, Default)]
struct OfPartition {
    /// Buckets that are in the directory.
    buckets: BTreeSet<i64>,
    /// The newest timestamp of a sweep.
    swept: i64,
}

impl Known {
    /// The directory rows to write before rows of these buckets, each with its timestamp.
    fn missing(&self, buckets: &BTreeSet<Bucket>, timestamp: i64, now: Timestamp) -> Vec<(Bucket, i64)> {
        let missing = buckets.iter().filter_map(|&bucket| {
            let of = self.of.get(&bucket.partition);
            if is_late(bucket.number, now) {
                // Later than a sweep that ran since the caller took its timestamp.
                let swept = of.map_or(i64::MIN, |of| of.swept);
                return Some((bucket, timestamp.max(swept.saturating_add(1))));
            }
            let known = of.is_some_and(|of| of.buckets.contains(&bucket.number));
            (!known).then_some((bucket, timestamp))
        });
        missing.collect()
    }

    fn written(&mut self, written: &[(Bucket, i64)], now: Timestamp) {
        for &(bucket, _) in written {
            if is_late(bucket.number, now) {
                continue;
            }
            let of = self.of.entry(bucket.partition).or_default();
            of.buckets.insert(bucket.number);
            while of.buckets.first().is_some_and(|&oldest| is_late(oldest, now)) {
                of.buckets.pop_first();
            }
        }
    }

    fn swept(&mut self, bucket: Bucket, timestamp: i64) {
        let of = self.of.entry(bucket.partition).or_default();
        of.buckets.remove(&bucket.number);
        of.swept = of.swept.max(timestamp);
    }
}

/// The directories of all agendas.
#[derive(Debug)]
pub(super) struct Directory {
    put: Statement,
    delete: Statement,
    forwards: Statement,
    backwards: Statement,
    known: Mutex<Known>,
    /// Lock held for reading by writers of late rows, for writing by the sweep of a bucket.
    sweeping: RwLock<()>,
}

impl Directory {
    pub(super) async fn prepare(preparer: Preparer<'_>) -> Result<Self, PrepareError> {
        let statement = |what: &str, cql: &str, execution| {
            preparer.prepare(format!("{what} agenda_bucket"), cql.to_owned(), execution)
        };
        let scan = "SELECT bucket FROM {}.agenda_bucket \
                    WHERE topic = ? AND partition = ? AND bucket >= ? AND bucket <= ?";
        let backwards = format!("{scan} ORDER BY bucket DESC");
        Ok(Self {
            put: statement(
                "write",
                "INSERT INTO {}.agenda_bucket (topic, partition, bucket) VALUES (?, ?, ?)",
                Execution::Write,
            )
            .await?,
            delete: statement(
                "delete",
                "DELETE FROM {}.agenda_bucket WHERE topic = ? AND partition = ? AND bucket = ?",
                Execution::Write,
            )
            .await?,
            forwards: statement("scan", scan, Execution::Read).await?,
            backwards: statement("scan", &backwards, Execution::Read).await?,
            known: Mutex::default(),
            sweeping: RwLock::default(),
        })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A row is being put so late that its bucket must not be swept meanwhile.
pub(super) struct Late<'d>(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'d, ()>);

impl Cql {
    /// Sees to it that buckets are in the directory before rows are put into them. What is returned is
    /// held until the rows are.
    pub(super) async fn enter_buckets(
        &self,
        buckets: &BTreeSet<Bucket>,
        timestamp: i64,
        now: Timestamp,
    ) -> Result<Option<Late<'_>>, StoreError> {
        let directory = &self.directory;
        let late = match buckets.iter().any(|bucket| is_late(bucket.number, now)) {
            true => Some(Late(directory.sweeping.read().await)),
            false => None,
        };
        let missing = directory.known().missing(buckets, timestamp, now);
        let written = missing.iter().map(|&(bucket, timestamp)| self.enter(bucket, timestamp));
        join_all(written).await.into_iter().collect::<Result<(), _>>()?;
        directory.known().written(&missing, now);
        Ok(late)
    }

    async fn enter(&self, bucket: Bucket, timestamp: i64) -> Result<(), StoreError> {
        self.write_directory(&self.directory.put, bucket, timestamp).await
    }

    async fn write_directory(
        &self,
        statement: &Statement,
        bucket: Bucket,
        timestamp: i64,
    ) -> Result<(), StoreError> {
        let Bucket { partition, number } = bucket;
        let mut prepared = statement.prepared.clone();
        prepared.set_timestamp(Some(timestamp));
        let values = (partition.topic.as_str(), partition_number(partition), number);
        self.run(&statement.what, self.session.execute_unpaged(&prepared, values)).await.map(drop)
    }

    /// The buckets of a partition from `first` to `last`, both included, that may hold rows.
    async fn buckets(
        &self,
        partition: TopicPartition,
        (first, last): (i64, i64),
        reverse: bool,
    ) -> Result<Vec<Bucket>, StoreError> {
        let directory = &self.directory;
        let statement = if reverse { &directory.backwards } else { &directory.forwards };
        let values = (partition.topic.as_str(), partition_number(partition), first, last);
        let mut buckets = Vec::new();
        self.pages(&statement.what, &statement.prepared, &values, |(number,): (i64,)| {
            buckets.push(Bucket { partition, number });
            true
        })
        .await?;
        Ok(buckets)
    }

    /// Rows of an agenda in order, bucket by bucket.
    pub(super) async fn scan_agenda(
        &self,
        partition: TopicPartition,
        scan: &Scan,
        now: Timestamp,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let buckets = self.buckets(partition, covered(scan), scan.reverse).await?;
        let mut reads = stream::iter(buckets)
            .map(|bucket| async move { self.scan_within(Place::within_bucket(bucket), scan, now).await })
            .buffered(AHEAD);
        let mut rows = Vec::new();
        while let Some(more) = reads.next().await {
            rows.extend(more?);
            if rows.len() >= scan.limit {
                break;
            }
        }
        rows.truncate(scan.limit);
        Ok(rows)
    }

    /// Takes buckets out of a partition's directory that were over ten minutes ago and hold no rows, and
    /// returns how many. Only the partition's owner does it, with a timestamp of its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: buckets that were not reached are left to the next sweep.
    pub async fn sweep_agenda(
        &self,
        partition: TopicPartition,
        now: Timestamp,
        timestamp: i64,
    ) -> Result<usize, StoreError> {
        let newest = now.as_micros().div_euclid(BUCKET) - SWEPT_AFTER - 1;
        let mut swept = 0;
        for bucket in self.buckets(partition, (0, newest), false).await? {
            swept += usize::from(self.sweep(bucket, timestamp, now).await?);
        }
        Ok(swept)
    }

    async fn sweep(&self, bucket: Bucket, timestamp: i64, now: Timestamp) -> Result<bool, StoreError> {
        let directory = &self.directory;
        let _sweeping = directory.sweeping.write().await;
        let any = Scan {
            partition: heddle_schemas::table::Partition::agenda(bucket.partition),
            from: Bytes::new(),
            to: None,
            limit: 1,
            reverse: false,
        };
        if !self.scan_within(Place::within_bucket(bucket), &any, now).await?.is_empty() {
            return Ok(false);
        }
        // Recorded before the delete: if the answer is lost, later puts still know of the sweep.
        directory.known().swept(bucket, timestamp);
        self.write_directory(&directory.delete, bucket, timestamp).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use heddle_schemas::table::{Partition, agenda_bound};
    use heddle_schemas::topic::Topic;

    use super::*;

    const PARTITION: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 3 };
    const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);
    const NOW_BUCKET: i64 = 176_722_560;

    fn at(number: i64) -> BTreeSet<Bucket> {
        BTreeSet::from([Bucket { partition: PARTITION, number }])
    }

    #[test]
    fn a_bucket_holds_ten_seconds() {
        assert_eq!(bucket(&agenda_bound(NOW)), NOW_BUCKET);
        assert_eq!(bucket(&agenda_bound(Timestamp::from_micros(NOW.as_micros() - 1))), NOW_BUCKET - 1);
        assert_eq!(bucket(&agenda_bound(Timestamp::from_micros(NOW.as_micros() + BUCKET - 1))), NOW_BUCKET);
        assert_eq!(bucket(b""), 0);
        assert_eq!(bucket(&[0xff; 20]), i64::MAX / BUCKET);
    }

    #[test]
    fn a_scan_covers_the_buckets_of_its_bounds() {
        let scan = Scan {
            from: Bytes::copy_from_slice(&agenda_bound(NOW)),
            to: Some(Bytes::copy_from_slice(&agenda_bound(NOW)[..7])),
            ..Scan::first(Partition::agenda(PARTITION), 1)
        };
        let (first, last) = covered(&scan);
        assert_eq!(first, NOW_BUCKET);
        assert!(last <= NOW_BUCKET, "a bound that is cut off is not after the whole one");
        assert_eq!(covered(&Scan::first(Partition::agenda(PARTITION), 1)), (0, i64::MAX));
    }

    #[test]
    fn the_directory_is_written_once_a_bucket() {
        let mut known = Known::default();
        let missing = known.missing(&at(NOW_BUCKET), 5, NOW);
        assert_eq!(missing, [(Bucket { partition: PARTITION, number: NOW_BUCKET }, 5)]);
        known.written(&missing, NOW);
        assert_eq!(known.missing(&at(NOW_BUCKET), 6, NOW), []);
        assert_eq!(known.missing(&at(NOW_BUCKET + 1), 6, NOW).len(), 1);
    }

    #[test]
    fn a_late_row_writes_the_directory_again_and_later_than_the_sweep() {
        let mut known = Known::default();
        let late = NOW_BUCKET - LATE_AFTER - 1;
        let bucket = Bucket { partition: PARTITION, number: late };
        known.written(&[(bucket, 5)], NOW);
        assert_eq!(known.missing(&at(late), 6, NOW), [(bucket, 6)], "it is never taken for known");
        known.swept(bucket, 100);
        assert_eq!(known.missing(&at(late), 6, NOW), [(bucket, 101)]);
        assert_eq!(known.missing(&at(late), 200, NOW), [(bucket, 200)]);
    }

    #[test]
    fn known_directories_stay_bounded() {
        let mut known = Known::default();
        for passed in 0..1_000 {
            let now = Timestamp::from_micros(NOW.as_micros() + passed * BUCKET);
            let missing = known.missing(&at(NOW_BUCKET + passed), 1, now);
            known.written(&missing, now);
        }
        assert!(known.of[&PARTITION].buckets.len() <= 1 + LATE_AFTER as usize);
    }

    const _: () = assert!(LATE_AFTER < SWEPT_AFTER);
}
