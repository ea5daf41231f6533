//! Deletion of segments, and the refusals of a full journal.

use std::time::Duration;

use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::log::{Log as _, StoreError};
use heddle_schemas::ports::state::{Batch, State as _, Write};

use crate::embedded::{Fixture, INBOUND, batch, read_on, record, records, row, until};

const HOUR: Duration = Duration::from_secs(3_600);

fn large(number: u64) -> Vec<heddle_schemas::ports::log::NewRecord> {
    vec![record(INBOUND, format!("{number:0>500}"))]
}

#[tokio::test]
async fn a_segment_goes_when_it_is_old_and_settled_and_checkpointed() {
    let mut fixture = Fixture::small();
    fixture.options.retention = HOUR;
    let store = fixture.open();
    for number in 0..20 {
        store.append(large(number)).await.unwrap();
    }
    let all = fixture.segments().len();
    store.checkpoint().await.unwrap();
    fixture.clock.advance(2 * HOUR);
    store.checkpoint().await.unwrap();
    assert_eq!(fixture.segments().len(), all, "nothing is settled");
    store.acknowledge(INBOUND, &(0..10).collect::<Vec<_>>()).await.unwrap();
    store.checkpoint().await.unwrap();
    until("deletion", async || fixture.segments().len() < all).await;
    assert_eq!(read_on(&store, INBOUND, 10).await.len(), 10, "what is not settled is kept");
    drop(store);
    let store = fixture.open();
    assert_eq!(read_on(&store, INBOUND, 10).await.len(), 10);
    assert_eq!(store.position(INBOUND).await.unwrap().next, 10);
}

#[tokio::test]
async fn an_idle_store_deletes_old_segments() {
    let mut fixture = Fixture::small();
    fixture.options.retention = HOUR;
    let store = fixture.open();
    store.append(large(0)).await.unwrap();
    store.acknowledge(INBOUND, &[0]).await.unwrap();
    let first = fixture.segments()[0].clone();
    fixture.clock.advance(2 * HOUR);
    until("deletion", async || !first.exists()).await;
    assert_eq!(store.end(INBOUND).await.unwrap(), 1);
    drop(store);
    assert_eq!(fixture.open().append(large(1)).await.unwrap(), [1], "an offset is never used twice");
}

#[tokio::test]
async fn a_full_journal_takes_nothing_in_until_something_is_worked_off() {
    let mut fixture = Fixture::small();
    fixture.options.max_bytes = 8_192.try_into().unwrap();
    let store = fixture.open();
    let mut taken = 0;
    let error = loop {
        match store.append(large(taken)).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 100);
    };
    let StoreError::Full { detail } = error else { panic!("{error:?}") };
    assert!(detail.contains("log.max_bytes"), "{detail}");
    store.commit(batch(1)).await.unwrap();
    store.acknowledge(INBOUND, &(0..taken).collect::<Vec<_>>()).await.unwrap();
    // Well before retention: settled segments are deleted first.
    until("room", async || store.append(large(taken)).await.is_ok()).await;
    assert!(store.journal_bytes() < 8_192 + 2_048);
}

#[tokio::test]
async fn the_reserve_for_work_has_an_end_too() {
    let mut fixture = Fixture::small();
    fixture.options.max_bytes = 4_096.try_into().unwrap();
    let store = fixture.open();
    let grow = |number: u64| Batch { outputs: large(number), ..Batch::default() };
    let mut taken = 0;
    while store.commit(grow(taken)).await.is_ok() {
        taken += 1;
        assert!(taken < 100);
    }
    assert!(store.journal_bytes() < 4_096 + 3 * 2_048, "{}", store.journal_bytes());
    let offsets: Vec<_> = (0..taken).collect();
    store.acknowledge(INBOUND, &offsets).await.unwrap();
    until("room", async || store.commit(grow(taken)).await.is_ok()).await;
}

#[tokio::test]
async fn many_rows_go_through_little_memory() {
    let fixture = Fixture::small();
    let store = fixture.open();
    for number in 0..600 {
        let value = "v".repeat(200);
        let write = if number % 3 == 0 {
            Write::put_until(row(number), value, fixture.clock.now().after(HOUR))
        } else {
            Write::put(row(number), value)
        };
        store.commit(Batch { writes: vec![write], ..Batch::default() }).await.unwrap();
    }
    fixture.clock.advance(HOUR);
    for reopened in [false, true] {
        let store = if reopened {
            store.close().await;
            fixture.open()
        } else {
            store.clone()
        };
        for number in 0..600 {
            let found = store.get(&row(number)).await.unwrap();
            assert_eq!(found.is_some(), number % 3 != 0, "{number}");
        }
        assert_eq!(records(&store, INBOUND).await, []);
    }
}

#[tokio::test]
async fn a_journal_at_its_limit_drops_settled_segments_before_it_refuses() {
    let mut fixture = Fixture::new();
    fixture.options.max_bytes = (4_u64 << 20).try_into().unwrap();
    fixture.options.segment_bytes = (256_u64 << 10).try_into().unwrap();
    let store = fixture.open();
    for _ in 0..100 {
        let some = vec![record(INBOUND, "x".repeat(1_000)); 100];
        let offsets = store.append(some).await.expect("nothing waits, so there is room");
        store.acknowledge(INBOUND, &offsets).await.unwrap();
    }
    assert!(store.journal_bytes() <= 4 << 20, "{}", store.journal_bytes());
}
