//! Reading across the edge between memory and files.

use std::time::Duration;

use heddle_schemas::ports::log::{FetchLimit, Log as _};

use heddle_schemas::topic::{Topic, TopicPartition};

use crate::embedded::{Fixture, INBOUND, LIMIT, OUTBOUND, read_on, record, records};

#[tokio::test]
async fn a_read_is_consecutive_from_wherever_it_begins() {
    let fixture = Fixture::small();
    let mut store = fixture.open();
    for number in 0..120_u32 {
        let value = format!("{number:0>60}");
        store.append(vec![record(INBOUND, value.clone()), record(OUTBOUND, value)]).await.unwrap();
        if number == 50 {
            store.checkpoint().await.unwrap();
        }
        if number == 80 {
            store.close().await;
            store = fixture.open();
        }
        if number == 100 {
            drop(store);
            store = fixture.open();
        }
    }
    assert!(fixture.segments().len() > 5, "most is only in files");
    for from in 0..120 {
        let found = read_on(&store, INBOUND, from).await;
        let offsets: Vec<_> = found.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (from..120).collect::<Vec<_>>());
        assert!(found.iter().all(|r| r.value == format!("{:0>60}", r.offset).as_bytes()));
    }
    for limit in [FetchLimit { records: 1, bytes: 1 << 20 }, FetchLimit { records: 100, bytes: 130 }] {
        let mut next = 0;
        while next < 120 {
            let some = store.fetch(OUTBOUND, next, limit, Duration::ZERO).await.unwrap();
            assert_eq!(some.first().map(|record| record.offset), Some(next), "{limit:?}");
            assert!(some.len() <= 2);
            next += some.len() as u64;
        }
    }
}

/// Dead letters have no consumer that follows closely, so that all of them are read from files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_seen_is_read_however_short_ago_it_was_written() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let letters = TopicPartition { topic: Topic::Dlq, partition: 0 };
    let reading = tokio::spawn({
        let store = store.clone();
        async move {
            let mut next = 0;
            while next < 3_000 {
                let read = store.fetch(letters, next, LIMIT, Duration::from_secs(10)).await.unwrap();
                next = read.last().unwrap().offset + 1;
            }
        }
    });
    for number in 0..3_000_u32 {
        store.append(vec![record(letters, number.to_string())]).await.unwrap();
    }
    reading.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_misses_nothing_of_a_fast_writer() {
    let fixture = Fixture::small();
    let store = fixture.open();
    let writing = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..400_u32 {
                store.append(vec![record(INBOUND, format!("{number:0>80}"))]).await.unwrap();
            }
        })
    };
    let mut next = 0;
    while next < 400 {
        let limit = FetchLimit { records: 3, bytes: 1 << 20 };
        let some = store.fetch(INBOUND, next, limit, Duration::from_secs(10)).await.unwrap();
        assert!(!some.is_empty());
        for record in some {
            assert_eq!((record.offset, &record.value[..]), (next, format!("{next:0>80}").as_bytes()));
            next += 1;
        }
    }
    writing.await.unwrap();
    assert_eq!(records(&store, INBOUND).await.len(), 400);
}

#[tokio::test]
async fn closing_wakes_readers_that_wait_for_a_record() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move {
            store.fetch(INBOUND, 0, crate::embedded::LIMIT, Duration::from_secs(600)).await
        })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.close().await;
    let woken = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert!(woken.is_err(), "{woken:?}");
}
