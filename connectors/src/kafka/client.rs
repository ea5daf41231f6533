//! Configuration of the cluster's clients, and forwarding of their log lines and statistics.

use std::collections::BTreeMap;

use heddle_schemas::ports::log::StoreError;
use heddle_schemas::sealed::Secret;
use heddle_schemas::time::LogThrottle;
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

/// Forwards librdkafka's messages to the process's log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            // Each of a client's threads logs each connection that fails; the caller that waits for it logs the
            // consequence once.
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
    static OUTAGE: LogThrottle = LogThrottle::new();
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
