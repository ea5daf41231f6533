//! Records that the broker no longer has: topics made again, truncated, and overtaken by retention.

use std::time::Duration;

use heddle_connectors::kafka::{Kafka, Options, topics};
use heddle_schemas::ports::log::{FetchLimit, NewRecord, Record, StoreError};
use heddle_schemas::topic::Topic;
use prometheus::Registry;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::group::assigned;
use super::{INBOUND, Prefix, open, options};

const LIMIT: FetchLimit = FetchLimit { records: 100, bytes: 1 << 20 };
const WAIT: Duration = Duration::from_secs(2);

fn client(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", options.connection.brokers.join(","));
    config
}

fn admin(options: &Options) -> AdminClient<DefaultClientContext> {
    client(options).create().unwrap()
}

fn topic(options: &Options) -> String {
    format!("{}{}", options.prefix, Topic::Inbound)
}

async fn append(kafka: &Kafka, count: u64) {
    let record =
        |number: u64| NewRecord { partition: INBOUND, key: "k".into(), value: number.to_string().into() };
    kafka.append((0..count).map(record).collect()).await.unwrap();
}

async fn delete_until(options: &Options, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic(options), 0, KafkaOffset::Offset(offset)).unwrap();
    admin(options).delete_records(&list, &AdminOptions::new()).await.unwrap();
}

async fn make_again(options: &Options) {
    let name = topic(options);
    for deleted in admin(options).delete_topics(&[&name], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
    // The broker acknowledges a deletion before it has forgotten the name.
    while topics::diff(options).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    topics::apply(options).await.unwrap();
}

/// Fetches until there is an error or a record, as a partition does.
async fn outcome(kafka: &Kafka, from: u64) -> Result<Vec<Record>, StoreError> {
    for _ in 0..20 {
        match kafka.fetch(INBOUND, from, LIMIT, WAIT).await {
            Ok(records) if records.is_empty() => {}
            Err(StoreError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(200)).await,
            found => return found,
        }
    }
    panic!("nothing is reported");
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small whole numbers")]
fn metric(registry: &Registry, name: &str) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    let inbound = family.get_metric().iter().find(|one| one.get_label()[0].value() == "inbound").unwrap();
    (inbound.get_counter().get_value() + inbound.get_gauge().get_value()) as u64
}

async fn open_with_metrics(options: &Options) -> (Kafka, Registry) {
    let (kafka, registry) = (open(options).await, Registry::new());
    kafka.register(&registry);
    kafka.take_over(INBOUND).await.unwrap();
    (kafka, registry)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_is_given_up_and_its_unread_records_are_counted() {
    // Fewer records than before, and more: then no offset is out of range.
    for appended in [1, 20] {
        let prefix = Prefix::new();
        let options = options("a", &prefix);
        topics::apply(&options).await.unwrap();
        let (kafka, registry) = open_with_metrics(&options).await;
        append(&kafka, 8).await;
        let few = FetchLimit { records: 5, ..LIMIT };
        assert_eq!(kafka.fetch(INBOUND, 0, few, WAIT).await.unwrap().len(), 5);
        kafka.acknowledge(INBOUND, 0..5);
        assert_eq!(kafka.end(INBOUND).await.unwrap(), 8);
        assert_eq!(metric(&registry, "heddle_partition_given_up_partitions"), 0);
        // The reader has the other three in its queue; a node that was slower would not.
        kafka.pause(INBOUND);
        kafka.take_over(INBOUND).await.unwrap();
        make_again(&options).await;
        append(&kafka, appended).await;
        let error = outcome(&kafka, 8).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{appended}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("kafka-consumer-groups --reset-offsets"), "{text}");
        assert!(!error.is_transient());
        assert_eq!(metric(&registry, "heddle_partition_given_up_partitions"), 1);
        kafka.close().await;
        // Kafka has deleted the group's offsets with the topic: nothing that it holds is left out.
        let (again, _) = open_with_metrics(&options).await;
        assert_eq!(outcome(&again, 0).await.unwrap().len() as u64, appended);
        again.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_retention_deletes_before_they_are_fetched_are_counted_once() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    let (kafka, registry) = open_with_metrics(&options).await;
    append(&kafka, 10).await;
    // One of them is done already, ahead of the others.
    kafka.acknowledge(INBOUND, [3]);
    delete_until(&options, 6).await;
    let records = outcome(&kafka, 0).await.unwrap();
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [6, 7, 8, 9]);
    assert_eq!(metric(&registry, "heddle_partition_lost_records_total"), 5);
    assert_eq!(kafka.position(INBOUND).await.unwrap().next, 6);
    assert_eq!(outcome(&kafka, 0).await.unwrap().len(), 4);
    assert_eq!(metric(&registry, "heddle_partition_lost_records_total"), 5, "counted once");
    assert_eq!(kafka.look(INBOUND, 0, LIMIT).await.unwrap().len(), 4, "a look begins where the log does");
    kafka.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_retention_deletes_while_no_node_runs_are_counted() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    let kafka = open(&options).await;
    let mut changes = kafka.join().unwrap();
    assigned(&mut changes).await;
    append(&kafka, 10).await;
    kafka.take_over(INBOUND).await.unwrap();
    kafka.acknowledge(INBOUND, 0..2);
    kafka.close().await;
    drop(kafka);
    delete_until(&options, 7).await;
    let (again, registry) = open_with_metrics(&options).await;
    assert_eq!(again.position(INBOUND).await.unwrap().next, 7);
    assert_eq!(metric(&registry, "heddle_partition_lost_records_total"), 5);
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_in_a_marker_is_neither_a_fault_nor_lag() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    let (kafka, _) = open_with_metrics(&options).await;
    let mut config = client(&options);
    config.set("transactional.id", format!("{}test", options.prefix));
    let producer: std::sync::Arc<BaseProducer> = std::sync::Arc::new(config.create().unwrap());
    let name = topic(&options);
    let publish = async || {
        let (producer, name) = (producer.clone(), name.clone());
        let published = tokio::task::spawn_blocking(move || {
            producer.begin_transaction().unwrap();
            producer.send(BaseRecord::to(&name).partition(0).key("k").payload("v")).unwrap();
            producer.commit_transaction(Duration::from_secs(10)).unwrap();
        });
        published.await.unwrap();
    };
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    publish().await;
    assert_eq!(outcome(&kafka, 0).await.unwrap().len(), 1);
    for _ in 0..3 {
        let began = tokio::time::Instant::now();
        let records = kafka.fetch(INBOUND, 1, LIMIT, Duration::from_millis(100)).await.unwrap();
        assert!(records.is_empty(), "{records:?}");
        assert!(began.elapsed() < Duration::from_secs(9), "it does not wait for what never comes");
    }
    assert_eq!(kafka.end(INBOUND).await.unwrap(), 1, "the marker is no lag");
    publish().await;
    assert_eq!(outcome(&kafka, 1).await.unwrap()[0].offset, 2);
    assert_eq!(kafka.position(INBOUND).await.unwrap().next, 0);
    kafka.close().await;
}
