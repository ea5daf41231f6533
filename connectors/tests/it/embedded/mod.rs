//! Behaviour of the embedded store beyond its ports: damage, full disks, crashes, retention.
//!
//! Files are real, in a folder that is deleted with the test. A crash is a store that is dropped without being
//! closed, a disk that dies in the middle of a write, or a process that is killed.

mod bytes;
mod crash;
mod damage;
mod disk;
mod folder;
mod full;
mod older;
mod process;
mod retention;
mod rewrite;
mod small_disk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::embedded::disk::{Disk, RealDisk};
use heddle_connectors::embedded::{Embedded, OpenError, Options};
use heddle_memory::ManualClock;
use heddle_schemas::ports::log::{FetchLimit, Log as _, NewRecord, Record};
use heddle_schemas::ports::state::{Batch, State as _, Write};
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};

const INBOUND: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 0 };
const OUTBOUND: TopicPartition = TopicPartition { topic: Topic::Outbound, partition: 0 };
const LIMIT: FetchLimit = FetchLimit { records: 1_000, bytes: 1 << 20 };
/// Of a segment: `HEDDLOG1`, partitions, id, first sequence number, checksum.
const HEADER: usize = 32;
/// Of a frame: length, checksum, sequence number.
const FRAME: usize = 16;

/// A folder, and the options of opening it.
struct Fixture {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    options: Options,
}

impl Fixture {
    /// Small in everything, so that little work meets every limit.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { partitions: 2.try_into().unwrap(), ..Options::new(dir.path().join("data")) };
        // 2026-01-01T00:00:00Z.
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_767_225_600)));
        Self { dir, clock, options }
    }

    fn small() -> Self {
        let mut fixture = Self::new();
        fixture.options.segment_bytes = 2_048.try_into().unwrap();
        fixture.options.checkpoint_bytes = 8_192.try_into().unwrap();
        fixture.options.tail_bytes = 1_024;
        fixture
    }

    fn open(&self) -> Arc<Embedded> {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Arc<Embedded>, OpenError> {
        self.open_on(Arc::new(RealDisk))
    }

    fn open_on(&self, disk: Arc<dyn Disk>) -> Result<Arc<Embedded>, OpenError> {
        Embedded::open_on(self.options.clone(), self.clock.clone(), disk)
    }

    fn journal(&self) -> PathBuf {
        self.options.dir.join("journal")
    }

    /// The segments' files, the oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> =
            std::fs::read_dir(self.journal()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// Another folder with these segments and no checkpoint.
    fn with_segments(&self, segments: &[(PathBuf, Vec<u8>)]) -> Self {
        let other = Self { options: self.options.clone(), ..Self::new() };
        let options = Options { dir: other.dir.path().join("data"), ..other.options.clone() };
        let other = Self { options, ..other };
        std::fs::create_dir_all(other.journal()).unwrap();
        for (path, bytes) in segments {
            std::fs::write(other.journal().join(path.file_name().unwrap()), bytes).unwrap();
        }
        other
    }

    /// Everything in the journal's folder.
    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.segments().into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }
}

/// Returns the offsets at which a segment's frames begin, and the end of the last.
fn frames(segment: &[u8]) -> Vec<usize> {
    let mut bounds = vec![HEADER];
    while let Some(len) = segment.get(bounds[bounds.len() - 1]..).and_then(|rest| rest.first_chunk::<4>()) {
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap();
        bounds.push(bounds[bounds.len() - 1] + FRAME + len);
    }
    assert_eq!(bounds.last(), Some(&segment.len()), "whole frames");
    bounds
}

fn row(number: u64) -> Key {
    Partition::documents(&"acme".parse().unwrap()).row(&number.to_be_bytes())
}

fn record(partition: TopicPartition, value: impl Into<String>) -> NewRecord {
    NewRecord { partition, key: "k".into(), value: value.into().into() }
}

/// A row, a record and a settled offset of this number.
fn batch(number: u64) -> Batch {
    Batch {
        writes: vec![Write::put(row(number), number.to_string())],
        outputs: vec![record(OUTBOUND, number.to_string())],
        consumed: vec![(INBOUND, number)],
        ..Batch::default()
    }
}

/// Returns true if a batch is there; panics if only a part of it is.
async fn has(store: &Embedded, number: u64) -> bool {
    let row = store.get(&row(number)).await.unwrap();
    let published = records(store, OUTBOUND).await.iter().any(|r| r.value == number.to_string().as_bytes());
    let settled = store.position(INBOUND).await.unwrap().is_done(number);
    assert!(row.is_some() == published && published == settled, "{number}: {row:?} {published} {settled}");
    published
}

/// Everything that is in a partition, consecutive.
async fn records(store: &Embedded, partition: TopicPartition) -> Vec<Record> {
    read_on(store, partition, 0).await
}

async fn read_on(store: &Embedded, partition: TopicPartition, from: Offset) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let end = store.end(partition).await.unwrap();
    loop {
        let next = records.last().map_or(from, |record| record.offset + 1);
        if next >= end {
            return records;
        }
        let more = store.fetch(partition, next, LIMIT, Duration::from_secs(10)).await.unwrap();
        assert!(!more.is_empty(), "{partition} has nothing from {next} on, and ends at {end}");
        for record in more {
            let before = records.last().map(|record| record.offset);
            assert!(before.is_none_or(|before| before + 1 == record.offset), "{before:?} {}", record.offset);
            records.push(record);
        }
    }
}

/// Waits for an effect of another thread.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} does not come");
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}
