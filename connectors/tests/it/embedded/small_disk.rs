//! A real disk that is full: a small tmpfs, and a file that fills it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_connectors::embedded::{Embedded, Options};
use heddle_schemas::ports::log::{Log as _, StoreError};
use heddle_schemas::ports::state::{Batch, State as _, Write};

use crate::embedded::{INBOUND, record, records, row, until};

const MIB: u64 = 1 << 20;
const VALUE: usize = 4_000;

/// A mounted disk, unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None, with a printed reason, where mounting is not permitted.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                println!("skipped, no tmpfs: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped, no mount: {error}");
                None
            }
        }
    }

    fn options(&self) -> Options {
        Options {
            partitions: 2.try_into().unwrap(),
            segment_bytes: MIB.try_into().unwrap(),
            checkpoint_bytes: MIB.try_into().unwrap(),
            max_bytes: (12 * MIB).try_into().unwrap(),
            ..Options::new(self.0.path().join("data"))
        }
    }

    fn open(&self) -> Arc<Embedded> {
        Embedded::open(self.options(), Arc::new(SystemClock)).unwrap()
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Fills it until this much is free.
    fn fill(&self, store: &Embedded, left: u64) {
        let free = store.free_bytes().unwrap();
        self.fill_by(free.saturating_sub(left));
    }

    fn fill_by(&self, bytes: u64) {
        let file = std::fs::File::options().create(true).append(true).open(self.filler()).unwrap();
        let mut file = std::io::BufWriter::new(file);
        let mut left = bytes;
        while left > 0 {
            let some = left.min(64 << 10);
            let zeros = vec![0; usize::try_from(some).unwrap()];
            if std::io::Write::write_all(&mut file, &zeros).is_err() {
                return;
            }
            left -= some;
        }
        drop(std::io::Write::flush(&mut file));
    }

    fn free(&self) {
        drop(std::fs::remove_file(self.filler()));
    }

    fn table_bytes(&self) -> u64 {
        fn bytes(dir: &std::path::Path) -> u64 {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .map(|entry| match entry.metadata() {
                    Ok(found) if found.is_dir() => bytes(&entry.path()),
                    Ok(found) => found.len(),
                    Err(_) => 0,
                })
                .sum()
        }
        // Without the database's own journal, which has its size from the start.
        bytes(&self.0.path().join("data/rows/keyspaces"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the test's disk stays mounted");
    }
}

async fn put(store: &Embedded, number: u64, round: u64) -> Result<(), StoreError> {
    let value = format!("{round}-{number}-{}", "v".repeat(VALUE));
    store.commit(Batch { writes: vec![Write::put(row(number), value)], ..Batch::default() }).await
}

async fn assert_rows(store: &Embedded, rounds: &[u64]) {
    for (number, round) in rounds.iter().enumerate() {
        let found = store.get(&row(number as u64)).await.unwrap().unwrap();
        assert!(found.starts_with(format!("{round}-{number}-").as_bytes()), "row {number} of round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_goes_on_by_itself_when_a_full_disk_has_room_again() {
    // Enough for nothing, for the journal, for a checkpoint, and for a merge to begin.
    for left in [0, MIB / 2, 3 * MIB, 6 * MIB] {
        let Some(disk) = SmallDisk::mount(64 * MIB) else { return };
        let store = disk.open();
        let rows = 3_000_u64;
        let mut rounds = vec![0; 3_000];
        for number in 0..rows {
            put(&store, number, 0).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        disk.fill(&store, left);
        let mut refused = 0;
        for number in 0..rows {
            // Spread, so that each checkpoint overlaps all files.
            let number = (number * 7) % rows;
            match put(&store, number, 1).await {
                Ok(()) => rounds[usize::try_from(number).unwrap()] = 1,
                Err(error) => {
                    assert!(error.is_transient(), "{error}");
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            if refused > 200 {
                break;
            }
        }
        assert!(refused > 0, "with {left} bytes left");
        until("the fault", async || store.fault().is_some()).await;
        // What is in memory now, and what was frozen before it, may still be written; then nothing is left to write.
        let written = store.stats().checkpoints();
        tokio::time::sleep(Duration::from_secs(4)).await;
        let again = store.stats().checkpoints() - written;
        assert!(again <= 2, "the same rows are written {again} times");
        disk.free();
        until("a commit", async || put(&store, 0, 2).await.is_ok()).await;
        rounds[0] = 2;
        until("a checkpoint", async || store.checkpoint().await.is_ok()).await;
        assert_eq!(store.fault(), None);
        for number in 1..rows {
            put(&store, number, 3).await.unwrap();
            rounds[usize::try_from(number).unwrap()] = 3;
        }
        store.checkpoint().await.unwrap();
        assert_rows(&store, &rounds).await;
        store.close().await;
        drop(store);
        assert_rows(&disk.open(), &rounds).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_needs_less_room_than_the_rows_take_and_is_refused_without_it() {
    let Some(disk) = SmallDisk::mount(96 * MIB) else { return };
    let store = disk.open();
    let mut rounds = vec![0; 8_000];
    for number in 0..8_000_u64 {
        put(&store, number, 0).await.unwrap();
    }
    for number in (0..8_000_u64).step_by(10) {
        put(&store, number, 1).await.unwrap();
        rounds[usize::try_from(number).unwrap()] = 1;
    }
    store.checkpoint().await.unwrap();
    // The first one brings the files to the size at which a range frees what it held.
    store.compact().await.unwrap();
    let taken = disk.table_bytes();
    assert!(taken > 30 * MIB, "{taken}");
    disk.fill(&store, MIB);
    let free = store.free_bytes().unwrap();
    let error = store.compact().await.unwrap_err();
    assert!(matches!(&error, StoreError::Full { detail } if detail.contains("free some")), "{error}");
    assert!(store.stats().is_compaction_refused());
    assert!(store.free_bytes().unwrap() + MIB / 2 >= free, "a refused rewrite leaves the disk as it was");
    disk.free();
    disk.fill(&store, taken / 3);
    put(&store, 5, 9).await.unwrap();
    rounds[5] = 9;
    let lowest = Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX));
    let watching = tokio::spawn({
        let (store, lowest) = (store.clone(), lowest.clone());
        async move {
            loop {
                lowest.fetch_min(store.free_bytes().unwrap(), std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    store.compact().await.unwrap();
    watching.abort();
    assert!(lowest.load(std::sync::atomic::Ordering::Relaxed) > 0);
    assert!(!store.stats().is_compaction_refused());
    assert_rows(&store, &rounds).await;
    store.close().await;
    drop(store);
    assert_rows(&disk.open(), &rounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_that_is_refused_half_way_is_continued_after_a_restart() {
    let Some(disk) = SmallDisk::mount(96 * MIB) else { return };
    let mut store = disk.open();
    let mut rounds = vec![0; 6_000];
    for number in 0..6_000_u64 {
        put(&store, number, 0).await.unwrap();
    }
    let mut refused = 0;
    for round in 1..6_u64 {
        for number in 0..500_u64 {
            put(&store, number * 11, round).await.unwrap();
            rounds[usize::try_from(number * 11).unwrap()] = round;
        }
        store.checkpoint().await.unwrap();
        disk.fill(&store, MIB * 17 / 10 + round * MIB / 4);
        refused += usize::from(store.compact().await.is_err());
        assert_rows(&store, &rounds).await;
        drop(store);
        disk.free();
        store = disk.open();
        assert_rows(&store, &rounds).await;
    }
    assert!(refused > 0, "every rewrite had room");
    store.compact().await.unwrap();
    assert_rows(&store, &rounds).await;
    assert!(disk.table_bytes() < 32 * MIB, "{}", disk.table_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_starts_on_a_full_disk_and_accepts_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(32 * MIB) else { return };
    let store = disk.open();
    put(&store, 0, 0).await.unwrap();
    store.append(vec![record(INBOUND, "a")]).await.unwrap();
    let before = store.epoch();
    let free = store.free_bytes().unwrap();
    store.close().await;
    drop(store);
    disk.fill_by(free + MIB);
    let store = disk.open();
    assert!(store.epoch() > before);
    let error = store.append(vec![record(INBOUND, "x".repeat(100_000))]).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(store.fault().is_some_and(|fault| fault.contains("no space left")), "{:?}", store.fault());
    assert_rows(&store, &[0]).await;
    disk.free();
    store.append(vec![record(INBOUND, "b")]).await.unwrap();
    assert_eq!(store.fault(), None);
    let epoch = store.epoch();
    drop(store);
    let store = disk.open();
    assert!(store.epoch() > epoch, "what was acknowledged later has the epoch in front of it");
    assert_eq!(records(&store, INBOUND).await.len(), 2);
}
