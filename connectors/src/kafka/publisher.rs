//! Publishes into ingress as a connector does: no partition of its own choice, no transaction, one key a sender.

use std::time::Duration;

use heddle_schemas::ports::log::StoreError;
use heddle_schemas::topic::Topic;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::client::{Connection, Quiet, unavailable};

/// A connector's producer.
pub struct Publisher {
    client: FutureProducer<Quiet>,
    topic: String,
}

impl Publisher {
    /// Creates the client; it connects by itself. A record that is not confirmed within `timeout` fails.
    ///
    /// # Errors
    /// A setting is wrong.
    pub fn new(connection: &Connection, prefix: &str, timeout: Duration) -> Result<Self, KafkaError> {
        let mut config: ClientConfig = connection.config();
        config.set("enable.idempotence", "true");
        // As clients in Java place records.
        config.set("partitioner", "murmur2_random");
        config.set("linger.ms", "1");
        config.set("message.timeout.ms", timeout.as_millis().max(1).to_string());
        let client = config.create_with_context(Quiet)?;
        Ok(Self { client, topic: format!("{prefix}{}", Topic::Ingress) })
    }

    /// Publishes a record and waits until every replica in sync has it.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`]: then it may be there all the same.
    pub async fn publish(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let failed = |error: KafkaError| unavailable("a record could not be published", &error);
        let record = FutureRecord::to(&self.topic).key(key).payload(value);
        let delivery = self.client.send_result(record).map_err(|(error, _)| failed(error))?;
        match delivery.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(failed(error)),
            Err(_) => Err(failed(KafkaError::Canceled)),
        }
    }
}
