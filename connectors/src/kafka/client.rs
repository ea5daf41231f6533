//! Configuration of the cluster's clients, and forwarding of their log lines and statistics.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use heddle_schemas::ports::log::StoreError;
use heddle_schemas::sealed::Secret;
use heddle_schemas::time::Seldom;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Settings of every client.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The brokers to begin with.
    pub brokers: Vec<String>,
    /// Node's name, as brokers' logs and quotas show it.
    pub node: String,
    /// librdkafka's own settings: TLS, SASL, timeouts.
    pub client: BTreeMap<String, Secret>,
}

impl Connection {
    /// Returns a client's settings to add to. Settings that the engine's guarantees need override the operator's.
    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        config.set("client.id", format!("heddle-{}", self.node));
        // A broker that restarts is back within seconds; the default backs off up to ten.
        config.set("reconnect.backoff.max.ms", "2000");
        for (key, value) in &self.client {
            config.set(key, value.expose());
        }
        config.set("bootstrap.servers", self.brokers.join(","));
        config
    }
}

static REFUSED: Seldom = Seldom::new();

/// Forwards librdkafka's messages to the process's log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            // Each of a client's threads logs each connection that fails, so one line a second stands for them all: it
            // has the cause, such as a refused certificate, which the error of the waiting caller lacks.
            RDKafkaLogLevel::Error if REFUSED.lets_through() => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_fault("kafka", &error, reason);
    }
}

/// Logs a fault of the connection to the brokers: one that passes when they are back at most once a second,
/// whatever the number of clients and brokers.
pub(super) fn log_fault(who: &str, error: &KafkaError, reason: &str) {
    static OUTAGE: Seldom = Seldom::new();
    if !is_of_network(error) {
        tracing::warn!(%error, reason, "{who}");
    } else if OUTAGE.lets_through() {
        tracing::warn!(%error, reason, "kafka does not answer; retrying");
    }
}

fn is_of_network(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
        )
    )
}

impl ConsumerContext for Quiet {}

/// Causes of failed connections that a client keeps: the first few are the same as the others.
const CAUSES: usize = 4;

/// Keeps the causes of failed connections, for the error of the caller that waits.
#[derive(Debug, Default)]
pub(super) struct Causes(Mutex<Vec<String>>);

impl Causes {
    /// Returns the causes, each once.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, cause: &str) {
        // "[thrd:NAME]: ADDRESS: CAUSE (after 1ms in state CONNECT)"
        let cause = cause.split_once("]: ").map_or(cause, |(_, cause)| cause);
        let cause = cause.split(" (after ").next().unwrap_or(cause).trim();
        let mut causes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if causes.len() < CAUSES && !causes.iter().any(|known| known == cause) {
            causes.push(cause.to_owned());
        }
    }
}

impl ClientContext for Causes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if !matches!(
            level,
            RDKafkaLogLevel::Info
                | RDKafkaLogLevel::Notice
                | RDKafkaLogLevel::Warning
                | RDKafkaLogLevel::Debug
        ) {
            self.add(message);
        }
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, _: KafkaError, reason: &str) {
        if !reason.contains("brokers are down") {
            self.add(reason);
        }
    }
}

impl ConsumerContext for Causes {}

/// Notices topics that were deleted and made again while the client runs.
///
/// librdkafka has each topic's id and resets nothing when it changes (`rd_kafka_topic_metadata_update0` of 2.12.1 has
/// this as a FIXME); its safe binding exposes no ids. A line of its debugging context `metadata` has both, so the
/// reader asks for that context and reads the line.
#[derive(Debug, Default)]
pub(super) struct TopicIds {
    known: Mutex<HashMap<String, String>>,
    made_again: Mutex<HashSet<String>>,
}

impl TopicIds {
    /// Sets what the line needs.
    pub(super) fn configure(config: &mut ClientConfig) {
        config.set_log_level(RDKafkaLogLevel::Debug);
        config.set("debug", "metadata");
    }

    /// Returns true if the topic was made again since the client began.
    pub(super) fn is_made_again(&self, topic: &str) -> bool {
        lock(&self.made_again).contains(topic)
    }

    /// Reads "Topic NAME changed id from ID to ID". Both maps are bounded by the topics that the client reads.
    fn read(&self, message: &str) {
        let Some((_, message)) = message.split_once("Topic ") else { return };
        let Some((topic, ids)) = message.split_once(" changed id from ") else { return };
        let Some((_, id)) = ids.split_once(" to ") else { return };
        let before = lock(&self.known).insert(topic.to_owned(), id.trim().to_owned());
        if before.is_some_and(|before| before != id.trim()) {
            lock(&self.made_again).insert(topic.to_owned());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for TopicIds {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            self.read(message);
        } else {
            Quiet.log(level, facility, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ConsumerContext for TopicIds {}

/// Returns the error that the log's callers get for a failure.
pub(super) fn unavailable(doing: &str, error: &KafkaError) -> StoreError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => StoreError::Full {
            detail: format!("{doing}: the producer's buffer is full; the brokers take records too slowly"),
        },
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownPartition) => {
            StoreError::Unavailable {
                detail: format!("{doing}: the topic or partition is not there; run `heddle topics diff`"),
            }
        }
        _ => StoreError::Unavailable { detail: format!("{doing}: {error}") },
    }
}

/// Runs a call of librdkafka that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(call).await.map_err(|_| StoreError::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_whose_id_changes_was_made_again() {
        let ids = TopicIds::default();
        let line = |to: &str| format!("[thrd:main]: Topic heddle.inbound changed id from AAAA to {to}");
        ids.read(&line("one"));
        ids.read(&line("one"));
        ids.read("[thrd:main]: Topic heddle.inbound [0] Leader 1 Epoch 0");
        assert!(!ids.is_made_again("heddle.inbound"));
        ids.read(&line("two"));
        assert!(ids.is_made_again("heddle.inbound") && !ids.is_made_again("heddle.outbound"));
    }

    #[test]
    fn the_causes_of_failed_connections_are_kept_once_and_few() {
        let causes = Causes::default();
        for _ in 0..2 {
            causes.log(
                RDKafkaLogLevel::Error,
                "FAIL",
                "[thrd:ssl://b:9092/bootstrap]: ssl://b:9092/bootstrap: SSL handshake failed: no (after 2ms in state SSL_HANDSHAKE)",
            );
        }
        causes.log(RDKafkaLogLevel::Debug, "CONNECT", "[thrd:main]: nothing");
        assert_eq!(causes.take(), ["ssl://b:9092/bootstrap: SSL handshake failed: no"]);
    }
}
