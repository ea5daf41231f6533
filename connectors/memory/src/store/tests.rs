//! Behaviour of the memory store under faults, crashes and rebalances; the conformance suites pin the
//! ports' contracts.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::{FetchLimit, Log, NewRecord, Record};
use heddle_schemas::ports::state::{Batch, State, Swap, Write};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Topic};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::clock::TokioClock;
use super::*;

const INBOUND: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 0 };
const OUTBOUND: TopicPartition = TopicPartition { topic: Topic::Outbound, partition: 0 };
const LATE: Duration = Duration::from_secs(1);

struct Fixture {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
}

impl Fixture {
    fn new() -> Self {
        let disk = MemoryDisk::new(NonZeroU32::new(1).unwrap());
        Self { disk, clock: Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_000))) }
    }

    fn open(&self) -> Arc<MemoryStore> {
        self.open_with(Options::default())
    }

    fn open_with(&self, options: Options) -> Arc<MemoryStore> {
        Arc::new(MemoryStore::open_with(self.disk.clone(), self.clock.clone(), options))
    }

    /// Opens a store that meets `fault` in each `operation`.
    fn failing(&self, operation: Operation, fault: Fault, split: bool) -> Arc<MemoryStore> {
        let faults = move |met| if met == operation { fault } else { Fault::NONE };
        self.open_with(Options { split, faults: Arc::new(faults), ..Options::default() })
    }

    /// Parts of [`batch`] on the disk: the row, the record, the acknowledgement.
    fn found(&self) -> [bool; 3] {
        let row = !self.disk.rows(Timestamp::EPOCH).is_empty();
        let record = !self.disk.records(OUTBOUND).is_empty();
        [row, record, self.disk.position(INBOUND) == Position::at(1)]
    }
}

fn record(partition: TopicPartition, value: &'static str) -> NewRecord {
    NewRecord { partition, key: "k".into(), value: value.into() }
}

fn row() -> Key {
    Key::document(&"acme".parse().unwrap(), "row")
}

fn batch(fence: Option<Fence>) -> Batch {
    let writes = vec![Write::put(row(), "value")];
    Batch {
        fence,
        writes,
        outputs: vec![record(OUTBOUND, "reply")],
        after: vec![],
        consumed: vec![(INBOUND, 0)],
    }
}

fn is_unavailable<T: fmt::Debug>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable { .. }))
}

async fn epoch_of(store: &MemoryStore, partition: TopicPartition) -> Epoch {
    let assignment = store.assignment(0).await.unwrap();
    assignment.partitions.into_iter().find(|(owned, _)| *owned == partition).unwrap().1
}

#[tokio::test(start_paused = true)]
async fn the_next_incarnation_fences_the_one_before() {
    let fixture = Fixture::new();
    let old = fixture.open();
    let fence = Fence { partition: INBOUND, epoch: epoch_of(&old, INBOUND).await };
    let waiting = tokio::spawn({
        let old = old.clone();
        async move { old.assignment(1).await }
    });
    tokio::task::yield_now().await;
    let new = fixture.open();
    assert!(epoch_of(&new, INBOUND).await > fence.epoch);
    assert!(matches!(old.commit(batch(Some(fence))).await, Err(StoreError::Fenced { .. })));
    assert!(matches!(old.commit(batch(None)).await, Err(StoreError::Closed)));
    assert!(matches!(old.append(vec![record(INBOUND, "x")]).await, Err(StoreError::Closed)));
    assert!(matches!(old.acknowledge(INBOUND, &[0]).await, Err(StoreError::Closed)));
    assert!(matches!(old.get(&row()).await, Err(StoreError::Closed)));
    let swap = old.compare_and_set(&row(), None, Some("x".into()), None).await;
    assert!(matches!(swap, Err(StoreError::Closed)));
    assert!(matches!(waiting.await.unwrap(), Err(StoreError::Closed)));
    assert_eq!(fixture.found(), [false; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_cuts_a_commit_wholly_or_not_at_all() {
    let later = Fault { before: LATE, after: LATE, ..Fault::NONE };
    for (crash_after, expected) in [(LATE / 2, [false; 3]), (LATE * 3 / 2, [true; 3])] {
        let fixture = Fixture::new();
        let store = fixture.failing(Operation::Commit, later, false);
        let (result, ()) = tokio::join!(store.commit(batch(None)), async {
            tokio::time::sleep(crash_after).await;
            fixture.disk.crash();
        });
        assert!(matches!(result, Err(StoreError::Closed)), "{result:?}");
        assert_eq!(fixture.found(), expected, "{crash_after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_the_effect_is_reported_although_it_happened() {
    let fixture = Fixture::new();
    for (outcome, expected) in [(Outcome::FailsBefore, [false; 3]), (Outcome::FailsAfter, [true; 3])] {
        let store = fixture.failing(Operation::Commit, Fault::outcome(outcome), false);
        assert!(is_unavailable(&store.commit(batch(None)).await));
        assert_eq!(fixture.found(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_store_takes_no_write_and_still_reads() {
    let fixture = Fixture::new();
    let store = fixture
        .open_with(Options { faults: Arc::new(|_| Fault::outcome(Outcome::Full)), ..Options::default() });
    assert!(matches!(store.commit(batch(None)).await, Err(StoreError::Full { .. })));
    assert!(matches!(store.append(vec![record(INBOUND, "x")]).await, Err(StoreError::Full { .. })));
    let swap = store.compare_and_set(&row(), None, Some("x".into()), None).await;
    assert!(matches!(swap, Err(StoreError::Full { .. })));
    assert_eq!(store.get(&row()).await.unwrap(), None);
    assert_eq!(store.end(INBOUND).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_split_commit_stops_between_any_two_of_its_steps() {
    use Operation::{CommitConsumed, CommitOutputs, CommitWrites};
    for (step, outcome, expected) in [
        (CommitWrites, Outcome::FailsBefore, [false, false, false]),
        (CommitWrites, Outcome::FailsAfter, [true, false, false]),
        (CommitOutputs, Outcome::Full, [true, false, false]),
        (CommitOutputs, Outcome::FailsAfter, [true, true, false]),
        (CommitConsumed, Outcome::FailsAfter, [true, true, true]),
    ] {
        let fixture = Fixture::new();
        let store = fixture.failing(step, Fault::outcome(outcome), true);
        assert!(is_unavailable(&store.commit(batch(None)).await), "{step:?} {outcome:?}");
        assert_eq!(fixture.found(), expected, "{step:?} {outcome:?}");
    }
    let fixture = Fixture::new();
    let store = fixture.open_with(Options { split: true, ..Options::default() });
    store.commit(batch(None)).await.unwrap();
    assert_eq!(fixture.found(), [true; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_split_commit_asks_for_a_fault_a_step_in_order() {
    let operations = Arc::new(Mutex::new(Vec::new()));
    let faults = {
        let operations = operations.clone();
        move |operation| {
            operations.lock().unwrap().push(operation);
            Fault::NONE
        }
    };
    let fixture = Fixture::new();
    let store = fixture.open_with(Options { split: true, faults: Arc::new(faults), ..Options::default() });
    store.commit(batch(None)).await.unwrap();
    let steps = [
        Operation::CommitWrites,
        Operation::CommitOutputs,
        Operation::CommitAfter,
        Operation::CommitConsumed,
    ];
    assert_eq!(*operations.lock().unwrap(), steps);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loses_mere_acknowledgements_and_an_orderly_end_does_not() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.acknowledge(INBOUND, &[0]).await.unwrap();
    assert_eq!(store.position(INBOUND).await.unwrap(), Position::at(1));
    let store = fixture.open();
    assert_eq!(store.position(INBOUND).await.unwrap(), Position::at(0));
    store.acknowledge(INBOUND, &[0]).await.unwrap();
    store.close();
    let store = fixture.open();
    assert_eq!(store.position(INBOUND).await.unwrap(), Position::at(1));
    store.acknowledge(INBOUND, &[1]).await.unwrap();
    store.append(vec![record(INBOUND, "x")]).await.unwrap();
    assert_eq!(fixture.open().position(INBOUND).await.unwrap(), Position::at(2), "kept with the append");
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_raises_the_epoch_of_moved_partitions_and_keeps_the_rest() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let first = store.assignment(0).await.unwrap();
    let fence = Fence { partition: OUTBOUND, epoch: epoch_of(&store, OUTBOUND).await };
    store.assign(&[INBOUND].into()).unwrap();
    let second = store.assignment(first.generation).await.unwrap();
    assert_eq!(second.partitions, [(INBOUND, fence.epoch)]);
    assert!(matches!(store.commit(batch(Some(fence))).await, Err(StoreError::Fenced { .. })));
    assert_eq!(fixture.found(), [false; 3]);
    store.assign(&fixture.disk.consumed_partitions()).unwrap();
    assert_eq!(epoch_of(&store, INBOUND).await, fence.epoch);
    assert!(epoch_of(&store, OUTBOUND).await > fence.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_row_written_both_ways_is_refused() {
    let fixture = Fixture::new();
    let store = fixture.open();
    assert_eq!(store.compare_and_set(&row(), None, Some("x".into()), None).await.unwrap(), Swap::Done);
    let mixed = store.commit(batch(None)).await;
    assert!(matches!(mixed, Err(StoreError::Corrupt { .. })), "{mixed:?}");
    assert_eq!(fixture.found(), [true, false, false], "the conditional row, and nothing of the batch");
    assert_eq!(store.get(&row()).await.unwrap().as_deref(), Some(&b"x"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_reader_sees_a_record_when_it_is_there_not_when_its_writer_is_answered() {
    let fixture = Fixture::new();
    let answer_late = Fault { after: LATE, ..Fault::NONE };
    let store = fixture.failing(Operation::Append, answer_late, false);
    let limit = FetchLimit { records: 1, bytes: 1 };
    let started = tokio::time::Instant::now();
    let fetch = async {
        let records = store.fetch(INBOUND, 0, limit, 10 * LATE).await.unwrap();
        (records.len(), started.elapsed())
    };
    let (fetched, appended) = tokio::join!(fetch, store.append(vec![record(INBOUND, "x")]));
    assert_eq!((fetched, appended.unwrap()), ((1, Duration::ZERO), vec![0]));
}

/// Result of one run under seeded faults: eight writers commit and append, some fail, each retries.
async fn run(seed: u64) -> (Vec<(Key, bytes::Bytes)>, Vec<Record>) {
    let fixture = Fixture::new();
    let rng = Mutex::new(StdRng::seed_from_u64(seed));
    let faults = move |_| {
        let mut rng = rng.lock().unwrap();
        let mut time = || Duration::from_millis(rng.random_range(0..50));
        let (before, after) = (time(), time());
        let outcome = [Outcome::Works, Outcome::FailsBefore, Outcome::FailsAfter][rng.random_range(0..3)];
        Fault { before, after, outcome }
    };
    let store = fixture.open_with(Options { split: true, faults: Arc::new(faults), ..Options::default() });
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..10 {
                    let mut batch = batch(None);
                    batch.writes = vec![Write::put(row(), format!("{writer}/{number}"))];
                    while store.commit(batch.clone()).await.is_err() {}
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    (fixture.disk.rows(Timestamp::EPOCH), fixture.disk.records(OUTBOUND))
}

#[test]
fn a_seed_replays_to_the_last_record_and_microsecond() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(run(seed))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
