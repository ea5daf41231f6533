//! Random work, random crashes, and a model of the acknowledged state.
//!
//! A seed that fails is printed, and runs again alone with the same work up to the order in which threads
//! meet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use heddle_connectors::embedded::Embedded;
use heddle_schemas::ports::log::{Log as _, StoreError};
use heddle_schemas::ports::state::{Scan, State as _, Swap};
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::topic::Offset;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::embedded::disk::{Faults, FaultyDisk};
use crate::embedded::{Fixture, INBOUND, OUTBOUND, batch, record, records, row};

/// State as its caller knows it.
#[derive(Default)]
struct Model {
    next: u64,
    /// Batches that were acknowledged.
    there: BTreeSet<u64>,
    /// Batches that were refused for want of space.
    refused: BTreeSet<u64>,
    /// Records that were acknowledged, with their offsets.
    appended: BTreeMap<Offset, String>,
    /// Possible values of the counter: more than one after a failure.
    counter: BTreeSet<Option<u64>>,
    epoch: u64,
}

fn counter() -> Key {
    Partition::documents(&"counter".parse().unwrap()).row(b"c")
}

fn number(value: Option<&Bytes>) -> Option<u64> {
    value.map(|value| std::str::from_utf8(value).unwrap().parse().unwrap())
}

/// Runs some work at once, so that it shares groups; records the known outcomes.
async fn work(store: &Arc<Embedded>, model: &mut Model, rng: &mut StdRng) {
    let mut commits = Vec::new();
    for _ in 0..rng.random_range(1..12) {
        let number = model.next;
        model.next += 1;
        let store = store.clone();
        commits.push(tokio::spawn(async move { (number, store.commit(batch(number)).await) }));
    }
    let value = format!("{}-{}", model.next, "x".repeat(rng.random_range(0..300)));
    let appended = store.append(vec![record(INBOUND, value.clone()), record(INBOUND, value.clone())]).await;
    if let Ok(offsets) = appended {
        for offset in offsets {
            let before = model.appended.insert(offset, value.clone());
            assert_eq!(before, None, "offset {offset} was given out twice");
        }
    }
    count(store, model).await;
    for commit in commits {
        match commit.await.unwrap() {
            (number, Ok(())) => drop(model.there.insert(number)),
            (number, Err(StoreError::Full { .. })) => drop(model.refused.insert(number)),
            (_, Err(StoreError::Unavailable { .. })) => {}
            (number, Err(error)) => panic!("{number}: {error:?}"),
        }
    }
}

async fn count(store: &Arc<Embedded>, model: &mut Model) {
    let Ok(found) = store.get(&counter()).await else { return };
    let before = number(found.as_ref());
    assert!(model.counter.contains(&before), "{before:?} is not of {:?}", model.counter);
    let after = before.map_or(0, |before| before + 1);
    match store.compare_and_set(&counter(), found, Some(after.to_string().into()), None).await {
        Ok(Swap::Done) => model.counter = [Some(after)].into(),
        Ok(Swap::Found(found)) => panic!("{found:?} although there is no other writer"),
        Err(StoreError::Full { .. }) => model.counter = [before].into(),
        // It may turn up after a crash.
        Err(_) => model.counter = [before, Some(after)].into(),
    }
}

/// Compares everything with the model, and makes the model certain.
async fn check(store: &Embedded, model: &mut Model) {
    let published: BTreeSet<u64> =
        records(store, OUTBOUND).await.iter().map(|record| number(Some(&record.value)).unwrap()).collect();
    assert_eq!(published.len(), records(store, OUTBOUND).await.len(), "a record is there twice");
    let rows = store.scan(&Scan::first(row(0).partition(), usize::MAX)).await.unwrap();
    let rows: BTreeSet<u64> = rows.iter().map(|(_, value)| number(Some(value)).unwrap()).collect();
    assert_eq!(rows, published, "rows and records of a batch go together");
    let position = store.position(INBOUND).await.unwrap();
    for batch in 0..model.next {
        assert_eq!(position.is_done(batch), rows.contains(&batch), "{batch}");
    }
    assert!(model.there.is_subset(&rows), "lost: {:?}", model.there.difference(&rows));
    assert!(model.refused.is_disjoint(&rows), "refused, and there: {:?}", model.refused.intersection(&rows));
    let inbound = records(store, INBOUND).await;
    for (offset, value) in &model.appended {
        let found = inbound.get(usize::try_from(*offset).unwrap()).map(|record| &record.value[..]);
        assert_eq!(found, Some(value.as_bytes()), "offset {offset}");
    }
    let counted = number(store.get(&counter()).await.unwrap().as_ref());
    assert!(model.counter.contains(&counted), "{counted:?} is not of {:?}", model.counter);
    model.there = rows;
    model.appended = inbound
        .iter()
        .map(|record| (record.offset, String::from_utf8(record.value.to_vec()).unwrap()))
        .collect();
    model.counter = [counted].into();
    assert!(store.epoch().0 > model.epoch, "the epoch rises");
    model.epoch = store.epoch().0;
}

/// Faults of the disk for this incarnation of the store.
fn faults(rng: &mut StdRng) -> Faults {
    let at = rng.random_range(1..6_000);
    match rng.random_range(0..6) {
        0..3 => Faults { power: Some(at), ..Faults::default() },
        3 => Faults { room: Some(at), ..Faults::default() },
        4 => Faults { room: Some(at), cut_fails: true, ..Faults::default() },
        _ => Faults { sync_fails: true, cut_fails: rng.random_bool(0.5), ..Faults::default() },
    }
}

async fn run(seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let fixture = Fixture::small();
    let mut model = Model { counter: [None].into(), ..Model::default() };
    for _ in 0..4 {
        let disk = FaultyDisk::default();
        let store = fixture.open_on(Arc::new(disk.clone())).unwrap();
        check(&store, &mut model).await;
        for _ in 0..rng.random_range(1..5) {
            work(&store, &mut model, rng).await;
            if rng.random_bool(0.2) {
                store.checkpoint().await.unwrap();
            }
        }
        if rng.random_bool(0.8) {
            *disk.faults() = faults(rng);
            for _ in 0..rng.random_range(1..5) {
                work(&store, &mut model, rng).await;
            }
        }
        let dead = disk.faults().power.is_some();
        if !dead && rng.random_bool(0.5) {
            *disk.faults() = Faults::default();
            work(&store, &mut model, rng).await;
        }
        if rng.random_bool(0.3) {
            store.close().await;
        }
    }
    check(&fixture.open(), &mut model).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_batches_survive_every_crash_whole() {
    let mut runs = tokio::task::JoinSet::new();
    for seed in 0..40 {
        if runs.len() >= 4 {
            runs.join_next().await.unwrap().unwrap();
        }
        runs.spawn(async move {
            let done = tokio::spawn(run(seed)).await;
            assert!(done.is_ok(), "seed {seed}");
        });
    }
    while let Some(done) = runs.join_next().await {
        done.unwrap();
    }
}
