//! The rewrite of the checkpoint's files, while rows change and through crashes.

use std::collections::BTreeMap;

use heddle_connectors::embedded::Embedded;
use heddle_schemas::ports::state::{Batch, Scan, State as _, Write};
use heddle_schemas::table::Partition;

use crate::embedded::{Fixture, row};

type Model = BTreeMap<u64, String>;

/// Puts and deletes of some of 200 rows, different in each round.
async fn change(store: &Embedded, model: &mut Model, round: u64) {
    let mut writes = Vec::new();
    for step in 0..60_u64 {
        let number = (round * 7_919 + step * step * 31) % 200;
        if (round + step).is_multiple_of(3) {
            model.remove(&number);
            writes.push(Write::delete(row(number)));
        } else {
            let value = format!("{round}-{number}-{}", "x".repeat(3_000));
            model.insert(number, value.clone());
            writes.push(Write::put(row(number), value));
        }
    }
    store.commit(Batch { writes, ..Batch::default() }).await.unwrap();
}

async fn assert_same(store: &Embedded, model: &Model, round: u64) {
    let partition = Partition::documents(&"acme".parse().unwrap());
    let scan = Scan { partition, from: Vec::new().into(), to: None, limit: 1_000, reverse: false };
    for reverse in [false, true] {
        let found = store.scan(&Scan { reverse, ..scan.clone() }).await.unwrap();
        let mut found: Vec<_> = found.into_iter().map(|(key, value)| (key, value.to_vec())).collect();
        if reverse {
            found.reverse();
        }
        let expected: Vec<_> =
            model.iter().map(|(number, value)| (row(*number), value.clone().into_bytes())).collect();
        assert!(found == expected, "round {round}: {} rows, and not {}", found.len(), expected.len());
    }
    for number in 0..200 {
        let found = store.get(&row(number)).await.unwrap();
        assert!(found.as_deref() == model.get(&number).map(String::as_bytes), "round {round}, row {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stay_as_they_are_while_their_files_are_rewritten() {
    let mut fixture = Fixture::small();
    fixture.options.checkpoint_bytes = (256 << 10).try_into().unwrap();
    let mut store = fixture.open();
    let mut model = Model::new();
    for round in 0..24 {
        let rewriting = tokio::spawn({
            let store = store.clone();
            async move { store.compact().await }
        });
        for part in 0..3 {
            change(&store, &mut model, round * 3 + part).await;
            store.checkpoint().await.unwrap();
            assert_same(&store, &model, round).await;
        }
        if round % 5 == 4 {
            // As a crash: in the middle of the rewrite or behind it.
            rewriting.abort();
            drop(rewriting.await);
            drop(store);
            store = loop {
                match fixture.try_open() {
                    Ok(store) => break store,
                    // The rewrite's thread still ends.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            };
        } else {
            rewriting.await.unwrap().unwrap();
        }
        assert_same(&store, &model, round).await;
    }
    assert!(store.stats().compactions() > 0);
}

#[tokio::test]
async fn a_folder_of_the_previous_layout_is_rewritten_and_read_on() {
    let fixture = Fixture::small();
    let store = fixture.open();
    let mut model = Model::new();
    for round in 0..5 {
        change(&store, &mut model, round).await;
    }
    for _ in 0..3 {
        store.compact().await.unwrap();
    }
    store.close().await;
    drop(store);
    assert_same(&fixture.open(), &model, 0).await;
}
