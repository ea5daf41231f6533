//! Removed data is gone from the files as well.
//!
//! Everything below the data folder is searched for plain text that was written: values are stored as they come;
//! sealing is the engine's business.

use std::path::{Path, PathBuf};
use std::time::Duration;

use heddle_connectors::embedded::Embedded;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::log::Log as _;
use heddle_schemas::ports::state::{Batch, State as _, Write};
use heddle_schemas::topic::{Topic, TopicPartition};

use crate::embedded::{Fixture, INBOUND, OUTBOUND, record, row, until};

const HOUR: Duration = Duration::from_secs(3_600);
const EVENTS: TopicPartition = TopicPartition { topic: Topic::Events, partition: 0 };
const DLQ: TopicPartition = TopicPartition { topic: Topic::Dlq, partition: 0 };
/// Values, named by the way in which they end.
const DELETED: &str = "marker-of-a-row-that-is-deleted";
const OVERWRITTEN: &str = "marker-of-a-row-that-is-written-over";
const ENDED: &str = "marker-of-a-row-whose-time-is-over";
const RECORDS: [(TopicPartition, &str); 4] = [
    (INBOUND, "marker-of-a-record-of-inbound"),
    (OUTBOUND, "marker-of-a-record-of-outbound"),
    (EVENTS, "marker-of-a-record-of-events"),
    (DLQ, "marker-of-a-record-of-dlq"),
];
const KEPT: &str = "marker-of-a-row-that-is-kept";

/// The files below a folder that hold a text.
fn with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(with(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && memchr::memmem::find(&bytes, text.as_bytes()).is_some()
        {
            found.push(path);
        }
    }
    found
}

fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.options.retention = HOUR;
    fixture.options.compact_every = 12 * HOUR;
    fixture
}

async fn put(store: &Embedded, writes: Vec<Write>) {
    store.commit(Batch { writes, ..Batch::default() }).await.unwrap();
}

/// Writes every marker into the journal and a checkpoint, and then ends all but one of them, on paper.
async fn write_and_end(fixture: &Fixture, store: &Embedded) {
    let (dir, rows) = (&fixture.options.dir, fixture.options.dir.join("rows"));
    let ends = fixture.clock.now().after(HOUR);
    put(
        store,
        vec![
            Write::put(row(1), DELETED),
            Write::put(row(2), OVERWRITTEN),
            Write::put_until(row(3), ENDED, ends),
            Write::put(row(4), KEPT),
        ],
    )
    .await;
    for (partition, marker) in RECORDS {
        store.append(vec![record(partition, marker)]).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    // The search finds existing data: rows in the journal and the checkpoint, records in the journal.
    for marker in [DELETED, OVERWRITTEN, ENDED, KEPT] {
        assert_eq!(with(&fixture.journal(), marker).len(), 1, "{marker}");
        assert!(!with(&rows, marker).is_empty(), "{marker}");
    }
    for (_, marker) in RECORDS {
        assert_eq!(with(dir, marker).len(), 1, "{marker}");
    }
    put(store, vec![Write::delete(row(1)), Write::put(row(2), "another value")]).await;
    store.acknowledge(INBOUND, &[0]).await.unwrap();
    store.acknowledge(OUTBOUND, &[0]).await.unwrap();
    store.checkpoint().await.unwrap();
}

async fn assert_gone(fixture: &Fixture, store: &Embedded) {
    let dir = &fixture.options.dir;
    let markers = RECORDS.map(|(_, marker)| marker).into_iter().chain([DELETED, OVERWRITTEN, ENDED]);
    for marker in markers {
        assert_eq!(with(dir, marker), Vec::<PathBuf>::new(), "{marker}");
    }
    assert!(!with(dir, KEPT).is_empty());
    assert_eq!(store.get(&row(4)).await.unwrap().as_deref(), Some(KEPT.as_bytes()));
    assert_eq!(store.get(&row(2)).await.unwrap().as_deref(), Some(&b"another value"[..]));
}

#[tokio::test]
async fn an_idle_store_drops_the_bytes_of_removed_rows() {
    let fixture = fixture();
    let store = fixture.open();
    write_and_end(&fixture, &store).await;
    // Nothing more is written. Segments end with the log's retention, the row is swept out.
    fixture.clock.advance(2 * HOUR);
    for (_, marker) in RECORDS {
        until("the end of its segment", async || with(&fixture.options.dir, marker).is_empty()).await;
    }
    until("the sweep", async || store.stats().swept() == 1).await;
    assert_eq!(store.stats().compactions(), 0, "it is not time yet");
    assert!(!with(&fixture.options.dir, DELETED).is_empty(), "its bytes are still in the checkpoint's files");
    fixture.clock.advance(11 * HOUR);
    until("the compaction", async || store.stats().compactions() == 1).await;
    assert_gone(&fixture, &store).await;
    store.close().await;
    let store = fixture.open();
    assert_gone(&fixture, &store).await;
}

#[tokio::test]
async fn a_requested_rewrite_runs_at_once() {
    let fixture = fixture();
    let store = fixture.open();
    write_and_end(&fixture, &store).await;
    fixture.clock.advance(2 * HOUR);
    until("the sweep", async || store.stats().swept() == 1).await;
    store.compact().await.unwrap();
    for marker in [DELETED, OVERWRITTEN, ENDED] {
        assert_eq!(with(&fixture.options.dir.join("rows"), marker), Vec::<PathBuf>::new(), "{marker}");
    }
    assert_eq!(store.stats().compactions(), 1);
}

#[tokio::test]
async fn restarts_do_not_put_it_off() {
    let fixture = fixture();
    let store = fixture.open();
    write_and_end(&fixture, &store).await;
    drop(store);
    for _ in 0..2 {
        fixture.clock.advance(4 * HOUR);
        let store = fixture.open();
        store.checkpoint().await.unwrap();
        assert_eq!(store.stats().compactions(), 0, "it is not time yet");
        store.close().await;
    }
    fixture.clock.advance(4 * HOUR);
    let store = fixture.open();
    until("the compaction", async || store.stats().compactions() == 1).await;
    for marker in [DELETED, OVERWRITTEN] {
        assert_eq!(with(&fixture.options.dir.join("rows"), marker), Vec::<PathBuf>::new(), "{marker}");
    }
}

/// Latency of commits while the files are rewritten: run it alone, in the release profile when there is time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test -p heddle-connectors --test it embedded -- --ignored --nocapture commits_go_on"]
#[expect(clippy::disallowed_methods, reason = "a measurement takes the time and prints it")]
async fn commits_go_on_while_files_are_rewritten() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    const ROWS: u64 = 100_000;
    let mut fixture = fixture();
    fixture.options.checkpoint_bytes = (8 << 20).try_into().unwrap();
    fixture.options.segment_bytes = (16 << 20).try_into().unwrap();
    let clock = Arc::new(heddle_connectors::clock::SystemClock);
    let store = Embedded::open(fixture.options.clone(), clock).unwrap();
    let mut state = 1_u64;
    let mut noise = move || {
        let mut bytes = Vec::with_capacity(400);
        while bytes.len() < 400 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        bytes
    };
    // Twice, so that as many bytes are removed as remain.
    for _ in 0..2 {
        for first in (0..ROWS).step_by(1_000) {
            let rows = first..first + 1_000;
            put(&store, rows.map(|number| Write::put(row(number), noise())).collect()).await;
        }
    }
    store.checkpoint().await.unwrap();
    let bytes = |dir: &Path| -> u64 {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    let tables = fixture.options.dir.join("rows/keyspaces/1/tables");
    let value = noise();
    let measured = async |until: Arc<AtomicBool>| {
        let tasks = (0..64_u64).map(|task| {
            let (store, value, until) = (store.clone(), value.clone(), until.clone());
            tokio::spawn(async move {
                let mut taken = Vec::new();
                let mut number = task;
                while !until.load(Ordering::Relaxed) {
                    number = (number * 1_103 + 7_919) % ROWS;
                    let began = Instant::now();
                    put(&store, vec![Write::put(row(number), value.clone())]).await;
                    taken.push(began.elapsed().as_micros());
                }
                taken
            })
        });
        let mut taken = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            taken.extend(task.await.unwrap());
        }
        taken.sort_unstable();
        let at = |percent: usize| taken[(taken.len() - 1) * percent / 100];
        format!("{} commits, p50 {} us, p99 {} us, max {} us", taken.len(), at(50), at(99), at(100))
    };
    let until = Arc::<AtomicBool>::default();
    let stop = until.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(4)).await;
        stop.store(true, Ordering::Relaxed);
    });
    println!("before, 4 s: {}; {} bytes of tables", measured(until).await, bytes(&tables));
    let until = Arc::<AtomicBool>::default();
    let (stop, compacted) = (until.clone(), store.clone());
    let began = Instant::now();
    let compaction = tokio::spawn(async move {
        compacted.compact().await.unwrap();
        stop.store(true, Ordering::Relaxed);
    });
    let figures = measured(until).await;
    compaction.await.unwrap();
    println!("during, {:?}: {figures}; {} bytes of tables", began.elapsed(), bytes(&tables));
    store.close().await;
}
