//! The Kafka log on a real broker, without the ownership that the cluster adds.

mod group;
mod losses;
mod refused;
mod shape;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_connectors::kafka::{Connection, Kafka, Options, topics};
use heddle_schemas::topic::{Topic, TopicPartition};

use heddle_connectors_testing::services::Services;

const INBOUND: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 0 };

/// Options of an engine of its own on the broker.
fn options(node: &str, prefix: &Prefix) -> Options {
    Options {
        connection: Connection {
            brokers: vec![Services::get().kafka.clone()],
            node: node.into(),
            client: BTreeMap::new(),
        },
        prefix: prefix.0.clone(),
        partitions: NonZeroU32::new(2).unwrap(),
        session_timeout: Duration::from_secs(6),
        handover: Duration::from_secs(5),
        max_record_bytes: 1_000_000,
        policy: topics::Policy { replication: 1, retention: Duration::from_secs(3_600) },
    }
}

/// A prefix that no other test uses; its topics go when it does.
struct Prefix(String);

impl Prefix {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(format!("test.{}.{}.", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        heddle_connectors_testing::topics::delete(std::mem::take(&mut self.0));
    }
}

async fn open(options: &Options) -> Kafka {
    Kafka::open(options, Arc::new(SystemClock)).await.unwrap()
}
