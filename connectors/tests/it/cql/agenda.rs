//! The agenda over many buckets, and its sweep.

use std::time::Duration;

use bytes::Bytes;
use heddle_connectors::cql::Cql;
use heddle_schemas::ports::state::{Scan, Write};
use heddle_schemas::table::{Key, Partition, agenda_bound};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::cql::{NOW, open, server};

fn partition(number: u32) -> TopicPartition {
    TopicPartition { topic: Topic::Inbound, partition: number }
}

fn before(now: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_micros(now.as_micros() - seconds * 1_000_000)
}

async fn put(store: &Cql, key: &Key, timestamp: i64) {
    store.write(&[Write::put(key.clone(), "")], Some(timestamp), NOW).await.unwrap();
}

async fn delete(store: &Cql, key: &Key, timestamp: i64) {
    store.write(&[Write::delete(key.clone())], Some(timestamp), NOW).await.unwrap();
}

async fn all(store: &Cql, of: TopicPartition) -> Vec<Key> {
    let rows = store.scan(&Scan::first(Partition::agenda(of), 100_000), NOW).await.unwrap();
    rows.into_iter().map(|(key, _)| key).collect()
}

async fn directory(of: TopicPartition) -> usize {
    let options = server::keyspace().await;
    let cql = format!(
        "SELECT bucket FROM {}.agenda_bucket WHERE topic = 'inbound' AND partition = {}",
        options.keyspace, of.partition
    );
    server::session().await.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap().rows_num()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_in_order_over_many_buckets_from_either_end() {
    let store = open().await;
    let of = partition(10);
    let mut rng = StdRng::seed_from_u64(7);
    // Two hours before and after, some in the same bucket, some far out.
    let mut keys: Vec<_> = (0..400_u32)
        .map(|id| {
            let due = NOW.as_micros() + rng.random_range(-7_200_000_000..7_200_000_000_i64);
            Key::agenda(of, Timestamp::from_micros(due), &id.to_be_bytes())
        })
        .chain([Key::agenda(of, Timestamp::EPOCH, b"first"), Key::agenda(of, Timestamp::MAX, b"last")])
        .collect();
    keys.shuffle(&mut rng);
    let writes: Vec<_> = keys.iter().map(|key| Write::put(key.clone(), key.as_bytes().clone())).collect();
    store.write(&writes, None, NOW).await.unwrap();
    keys.sort();
    assert_eq!(all(&store, of).await, keys);
    let mut model = keys;
    for round in 0..40 {
        let bound = |rng: &mut StdRng| {
            let due = NOW.as_micros() + rng.random_range(-8_000_000_000..8_000_000_000_i64);
            Bytes::copy_from_slice(&agenda_bound(Timestamp::from_micros(due)))
        };
        let from = if rng.random_bool(0.3) { Bytes::new() } else { bound(&mut rng) };
        let to = if rng.random_bool(0.3) { None } else { Some(bound(&mut rng)) };
        let (limit, reverse) = (rng.random_range(0..50), rng.random_bool(0.5));
        let inside = |key: &&Key| key.row() >= &from[..] && to.as_ref().is_none_or(|to| key.row() < &to[..]);
        let mut expected: Vec<_> = model.iter().filter(inside).cloned().collect();
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        let scan = Scan { partition: Partition::agenda(of), from, to, limit, reverse };
        let found = store.scan(&scan, NOW).await.unwrap();
        assert!(found.iter().all(|(key, value)| key.as_bytes() == value));
        let found: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, expected, "round {round}: {scan:?}");
        let deleted = model.remove(rng.random_range(0..model.len()));
        store.write(&[Write::delete(deleted)], None, NOW).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_finds_the_entries() {
    let of = partition(11);
    let key = Key::agenda(of, NOW, b"x");
    put(&*open().await, &key, 1).await;
    assert_eq!(all(&*open().await, of).await, [key]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_removes_only_old_and_empty_buckets() {
    let store = open().await;
    let of = partition(12);
    let done = Key::agenda(of, before(NOW, 3_600), b"done");
    let overdue = Key::agenda(of, before(NOW, 3_500), b"overdue");
    let recent = Key::agenda(of, before(NOW, 400), b"recent");
    for (key, timestamp) in [(&done, 1), (&overdue, 2), (&recent, 3)] {
        put(&store, key, timestamp).await;
    }
    delete(&store, &done, 4).await;
    delete(&store, &recent, 5).await;
    assert_eq!(directory(of).await, 3);
    assert_eq!(store.sweep_agenda(of, NOW, 6).await.unwrap(), 1);
    assert_eq!(directory(of).await, 2);
    assert_eq!(all(&store, of).await, std::slice::from_ref(&overdue));
    assert_eq!(store.sweep_agenda(of, NOW, 7).await.unwrap(), 0);
    delete(&store, &overdue, 8).await;
    let later = NOW.after(Duration::from_secs(3_600));
    assert_eq!(store.sweep_agenda(of, later, 9).await.unwrap(), 2);
    assert_eq!(directory(of).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_put_late_into_a_swept_bucket_is_found() {
    let store = open().await;
    let of = partition(13);
    let due = before(NOW, 3_600);
    let (one, other) = (Key::agenda(of, due, b"one"), Key::agenda(of, due, b"other"));
    put(&store, &one, 1).await;
    delete(&store, &one, 2).await;
    assert_eq!(store.sweep_agenda(of, NOW, 100).await.unwrap(), 1);
    // Its timestamp was taken before the sweep's.
    put(&store, &other, 50).await;
    assert_eq!(all(&store, of).await, std::slice::from_ref(&other));
    assert_eq!(all(&*open().await, of).await, [other]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_swept_by_another_owner_is_entered_again() {
    let of = partition(14);
    let (mine, theirs) = (open().await, open().await);
    let due = before(NOW, 3_600);
    let (one, other) = (Key::agenda(of, due, b"one"), Key::agenda(of, due, b"other"));
    put(&mine, &one, 1).await;
    delete(&theirs, &one, 2).await;
    assert_eq!(theirs.sweep_agenda(of, NOW, 3).await.unwrap(), 1);
    put(&mine, &other, 4).await;
    assert_eq!(all(&theirs, of).await, [other]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeps_and_late_rows_at_once_lose_none() {
    let store = open().await;
    let of = partition(15);
    let due = |bucket: i64| before(NOW, 3_600 + bucket * 10);
    let sweeper = {
        let store = store.clone();
        tokio::spawn(async move {
            for timestamp in 0..60 {
                store.sweep_agenda(of, NOW, 1_000 + timestamp).await.unwrap();
            }
        })
    };
    let putters: Vec<_> = (0..4_u8)
        .map(|putter| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut kept = Vec::new();
                for round in 0..40_i64 {
                    let id = [putter, u8::try_from(round).unwrap()];
                    let key = Key::agenda(of, due(round % 5), &id);
                    // Older than the sweep's, of the same moment, and newer.
                    put(&store, &key, 990 + round * 2).await;
                    if round % 3 == 0 {
                        kept.push(key);
                    } else {
                        delete(&store, &key, 991 + round * 2).await;
                    }
                }
                kept
            })
        })
        .collect();
    let mut expected = Vec::new();
    for putter in putters {
        expected.extend(putter.await.unwrap());
    }
    sweeper.await.unwrap();
    expected.sort();
    assert_eq!(all(&store, of).await, expected);
}
