//! Section `[log]`.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::retention;
use crate::sealed::Secret;
use crate::time::human;

/// Kind of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// Files of this process.
    Embedded,
    /// Apache Kafka; goes with `state.kind = "cql"`.
    Kafka,
}

impl LogKind {
    /// Returns the name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kafka => "kafka",
        }
    }
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Kind of the log.
    pub kind: LogKind,
    /// Partitions of inbound, outbound and events. Fixed once the log exists.
    pub partitions: NonZeroU32,
    /// Bytes of a segment file of the embedded log.
    pub segment_bytes: NonZeroU64,
    /// Shortest time that records are kept; the embedded log keeps unprocessed ones for longer. Records are deleted a
    /// segment at a time, so within a quarter more ([`Log::oldest_record`]), which is under every tenant's
    /// `[retention]`.
    #[serde(with = "human")]
    pub retention: Duration,
    /// Addresses of Kafka's brokers.
    pub brokers: Vec<String>,
    /// Prefix of the names of Kafka's topics and of its consumer group.
    pub topic_prefix: String,
    /// Copies of each partition in Kafka. Under three, the loss of one disk may lose records.
    pub replication: NonZeroU32,
    /// Time without a heartbeat after which Kafka gives the node's partitions to others.
    #[serde(with = "human")]
    pub session_timeout: Duration,
    /// Bytes of the largest record that Kafka is given.
    pub max_record_bytes: NonZeroUsize,
    /// Settings of librdkafka, such as `"security.protocol" = "sasl_ssl"`: TLS, SASL, timeouts. A value may
    /// be `env:NAME` or `file:PATH`.
    pub client: BTreeMap<String, Secret>,
    /// Bytes the embedded log may take. Over it, processed records are deleted first; then nothing is accepted:
    /// webhooks get 503.
    pub max_bytes: NonZeroU64,
}

impl Log {
    /// Returns the greatest age of a processed record.
    #[must_use]
    pub fn oldest_record(&self) -> Duration {
        retention::oldest(self.retention)
    }
}

impl Log {
    /// Settings of librdkafka that the engine's guarantees rest on; operators cannot set them.
    const OWN: [&str; 14] = [
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "client.id",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "group.id",
        "group.instance.id",
        "heartbeat.interval.ms",
        "isolation.level",
        "message.max.bytes",
        "partition.assignment.strategy",
        "session.timeout.ms",
    ];

    pub(super) fn validate_kafka(&self, faults: &mut Vec<String>) {
        if self.brokers.is_empty() {
            faults.push("log.brokers: is empty; name at least one, as [\"host:9092\"]".to_owned());
        }
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !self.topic_prefix.chars().all(named) || self.topic_prefix.len() > 200 {
            faults.push("log.topic_prefix: takes letters, digits, '.', '_' and '-', at most 200".to_owned());
        }
        if self.session_timeout < Duration::from_secs(6) || self.session_timeout > Duration::from_secs(300) {
            faults.push("log.session_timeout: takes 6s to 5m, as brokers do".to_owned());
        }
        if self.retention < Duration::from_secs(3_600) {
            faults.push("log.retention: is under 1h, too short to come back from an outage".to_owned());
        }
        for key in self.client.keys().filter(|key| Self::OWN.contains(&key.as_str())) {
            faults.push(format!("log.client.{key}: is set by the engine and cannot be changed"));
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            kind: LogKind::Embedded,
            partitions: const { NonZeroU32::new(8).unwrap() },
            segment_bytes: const { NonZeroU64::new(64 << 20).unwrap() },
            retention: Duration::from_secs(86_400),
            brokers: vec!["127.0.0.1:19092".into()],
            topic_prefix: "heddle.".into(),
            replication: NonZeroU32::MIN,
            session_timeout: Duration::from_secs(30),
            max_record_bytes: const { NonZeroUsize::new(1_000_000).unwrap() },
            client: BTreeMap::new(),
            max_bytes: const { NonZeroU64::new(8 << 30).unwrap() },
        }
    }
}
