//! Appends records: acknowledged by every replica in sync, in order, none of them twice by a retry.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::join_all;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{NewRecord, StoreError};
use heddle_schemas::topic::Offset;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::client::{Connection, Quiet, blocking, unavailable};
use super::names::Names;

/// Maximum overhead of a record beside its key and value: headers and framing.
const OVERHEAD: usize = 512;

type Client = FutureProducer<Quiet>;

/// The node's one producer.
pub(super) struct Producer {
    connection: Connection,
    names: Names,
    clock: Arc<dyn Clock>,
    limit: usize,
    // A fatal error of an idempotent producer ends it for good: it is replaced then.
    client: RwLock<Client>,
}

impl Producer {
    pub(super) fn new(
        connection: Connection,
        names: Names,
        clock: Arc<dyn Clock>,
        limit: usize,
    ) -> Result<Self, KafkaError> {
        let client = RwLock::new(connect(&connection, limit)?);
        Ok(Self { connection, names, clock, limit, client })
    }

    /// Refuses records that no broker would take, before any is sent.
    pub(super) fn check(&self, records: &[NewRecord]) -> Result<(), StoreError> {
        let most = self.limit.saturating_sub(OVERHEAD);
        for record in records {
            let bytes = record.key.len() + record.value.len();
            if bytes > most {
                return Err(StoreError::TooLarge { bytes, limit: most });
            }
            if record.partition.partition >= self.names.partitions(record.partition.topic) {
                return Err(StoreError::Unavailable { detail: format!("there is no {}", record.partition) });
            }
        }
        Ok(())
    }

    /// Sends records and waits until each is durable.
    pub(super) async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, StoreError> {
        self.check(&records)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        let at = self.clock.now().as_micros() / 1_000;
        let mut deliveries = Vec::with_capacity(records.len());
        let mut failed = None;
        for NewRecord { partition, key, value } in &records {
            let record = FutureRecord::to(self.names.of(partition.topic))
                .partition(i32::try_from(partition.partition).unwrap_or(i32::MAX))
                .timestamp(at)
                .key(&key[..])
                .payload(&value[..]);
            match client.send_result(record) {
                Ok(delivery) => deliveries.push(delivery),
                Err((error, _)) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let mut offsets = Vec::with_capacity(records.len());
        // Records already sent are awaited also when a later one was refused, so that a retry
        // does not overtake them.
        for delivered in join_all(deliveries).await {
            match delivered {
                Ok(Ok(delivery)) => offsets.push(Offset::try_from(delivery.offset).unwrap_or_default()),
                Ok(Err((error, _))) => failed = failed.or(Some(error)),
                Err(_) => failed = failed.or(Some(KafkaError::Canceled)),
            }
        }
        let Some(error) = failed else { return Ok(offsets) };
        self.replace_if_over(&client);
        match unavailable("records could not be appended", &error) {
            // Some of them are there.
            StoreError::Full { detail } if !offsets.is_empty() => Err(StoreError::Unavailable { detail }),
            error => Err(error),
        }
    }

    fn replace_if_over(&self, client: &Client) {
        let Some((_, reason)) = client.client().fatal_error() else { return };
        let mut current = self.client.write().unwrap_or_else(PoisonError::into_inner);
        if current.client().native_ptr() != client.client().native_ptr() {
            return;
        }
        tracing::error!(reason, "the producer has failed and is replaced");
        match connect(&self.connection, self.limit) {
            Ok(fresh) => *current = fresh,
            Err(error) => tracing::error!(%error, "the producer cannot be replaced"),
        }
    }

    /// Waits until all records handed over are durable.
    pub(super) async fn flush(&self, limit: Duration) {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        // Records that are not flushed in time were never confirmed to a caller.
        drop(blocking(move || client.flush(limit)).await);
    }
}

fn connect(connection: &Connection, limit: usize) -> Result<Client, KafkaError> {
    let mut config = connection.config();
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config.set("message.max.bytes", limit.to_string());
    if !connection.client.contains_key("linger.ms") {
        // A turn waits for its record, and under load batches fill by themselves.
        config.set("linger.ms", "1");
    }
    if !connection.client.contains_key("message.timeout.ms") {
        config.set("message.timeout.ms", "30000");
    }
    config.create_with_context(Quiet)
}
