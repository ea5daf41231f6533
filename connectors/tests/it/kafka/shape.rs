//! Settings of the topics.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_connectors::kafka::topics::{self, Difference};
use heddle_connectors::kafka::{Kafka, OpenError};
use heddle_schemas::ports::log::{FetchLimit, NewRecord};

use super::{INBOUND, Prefix, open, options};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_once_and_found_as_they_have_to_be() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    let missing = topics::diff(&options).await.unwrap();
    assert!(missing.iter().all(|one| matches!(one, Difference::Missing { .. })), "{missing:?}");
    let (one, other) = tokio::join!(topics::apply(&options), topics::apply(&options));
    assert_eq!(one.unwrap().len().max(other.unwrap().len()), missing.len());
    assert_eq!(topics::diff(&options).await.unwrap(), []);
    assert_eq!(topics::apply(&options).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_topics_does_not_open_and_names_the_command() {
    let error = Kafka::open(&options("a", &Prefix::new()), Arc::new(SystemClock)).await.err().unwrap();
    assert!(matches!(error, OpenError::Topics(_)));
    assert!(error.to_string().contains("heddle topics apply"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused_in_words() {
    let prefix = Prefix::new();
    let mut options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    options.partitions = NonZeroU32::new(3).unwrap();
    let error = Kafka::open(&options, Arc::new(SystemClock)).await.err().unwrap().to_string();
    assert!(error.contains("has 2 partitions, and log.partitions says 3"), "{error}");
    assert!(topics::apply(&options).await.unwrap().is_empty(), "it is not changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_over_the_policy_is_refused_and_can_be_mended() {
    let prefix = Prefix::new();
    let mut options = options("a", &prefix);
    options.policy.retention = Duration::from_secs(7_200);
    topics::apply(&options).await.unwrap();
    options.policy.retention = Duration::from_secs(3_600);
    let error = Kafka::open(&options, Arc::new(SystemClock)).await.err().unwrap().to_string();
    assert!(error.contains("retention.ms is 7200000, and should be 3600000"), "{error}");
    topics::apply(&options).await.unwrap();
    drop(open(&options).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_with_fewer_copies_than_configured_are_refused_in_words() {
    let prefix = Prefix::new();
    let mut options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    options.policy.replication = 3;
    let error = Kafka::open(&options, Arc::new(SystemClock)).await.err().unwrap().to_string();
    assert!(error.contains("has 1 copies, and log.replication says 3"), "{error}");
    assert!(error.contains("min.insync.replicas is 1, and should be 2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_address_is_reported_with_its_configuration_key() {
    let prefix = Prefix::new();
    let mut options = options("a", &prefix);
    options.connection.brokers = vec!["127.0.0.1:1".into()];
    let error = Kafka::open(&options, Arc::new(SystemClock)).await.err().unwrap().to_string();
    assert!(error.contains("127.0.0.1:1") && error.contains("log.brokers"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_read_from_any_offset_back_and_forth() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    let kafka = open(&options).await;
    let record =
        |number: u64| NewRecord { partition: INBOUND, key: "k".into(), value: number.to_string().into() };
    let offsets = kafka.append((0..1_000).map(record).collect()).await.unwrap();
    let limit = FetchLimit { records: 10, bytes: 1 << 20 };
    for from in [990, 0, 500, 500, 3, 995] {
        let records = kafka.fetch(INBOUND, offsets[from], limit, Duration::ZERO).await.unwrap();
        let found: Vec<_> = records.iter().map(|record| record.offset).collect();
        assert_eq!(found, offsets[from..(from + 10).min(1_000)], "from {from}");
    }
    kafka.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_dropped_half_way_loses_nothing() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    let kafka = open(&options).await;
    let record = NewRecord { partition: INBOUND, key: "k".into(), value: "v".into() };
    kafka.append(vec![record; 2_000]).await.unwrap();
    let limit = FetchLimit { records: 50, bytes: 1 << 20 };
    let (mut next, mut dropped) = (0, 0);
    while next < 2_000 {
        let fetch = kafka.fetch(INBOUND, next, limit, Duration::from_secs(5));
        // Polled once and dropped, every other time.
        if next % 100 == 0 && dropped < 50 {
            dropped += 1;
            if let Some(records) = futures::FutureExt::now_or_never(fetch) {
                next += records.unwrap().len() as u64;
            }
            continue;
        }
        let records = fetch.await.unwrap();
        assert_eq!(records.first().map(|record| record.offset), Some(next));
        assert!(records.windows(2).all(|pair| pair[0].offset + 1 == pair[1].offset));
        next += records.len() as u64;
    }
    assert!(dropped > 10);
    kafka.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_released_and_taken_again_is_read_on() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    let kafka = Arc::new(open(&options).await);
    let limit = FetchLimit { records: 10, bytes: 1 << 20 };
    for round in 0..5 {
        // A reader waits for the next record when the partition is released.
        let waiting = tokio::spawn({
            let kafka = kafka.clone();
            async move { kafka.fetch(INBOUND, round, limit, Duration::from_secs(30)).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        kafka.pause(INBOUND);
        let sent_away = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        assert!(sent_away.is_err_and(|error| error.is_transient()));
        let record = NewRecord { partition: INBOUND, key: "k".into(), value: "v".into() };
        kafka.append(vec![record]).await.unwrap();
        let records = loop {
            match kafka.fetch(INBOUND, 0, limit, Duration::from_secs(5)).await {
                Ok(records) => break records,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        };
        assert_eq!(records.len() as u64, round + 1);
        kafka.pause(INBOUND);
    }
    kafka.close().await;
}
