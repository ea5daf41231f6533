//! Reader of partitions from any offset on, each at the rate of its fetches.
//!
//! Reading is apart from the consumer group: the membership decides who owns a partition, and tenants are read
//! by every node. Each partition has a queue of its own in librdkafka, which stops fetching while the queue
//! is full: a partition whose permits are used up holds a bounded queue in memory and the rest waits in
//! Kafka.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{FetchLimit, Record, StoreError};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, TopicPartition};
use rdkafka::Message;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::client::{Connection, Quiet, blocking, log_fault, unavailable};
use super::names::Names;

/// Timeout of a request for offsets.
pub(super) const REQUEST: Duration = Duration::from_secs(10);
/// Time that records known to exist may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

type Consumer = StreamConsumer<Quiet>;

/// The node's one reader.
pub(super) struct Reader {
    names: Names,
    clock: Arc<dyn Clock>,
    consumer: Arc<Consumer>,
    slots: Mutex<HashMap<TopicPartition, Arc<Slot>>>,
    serving: JoinHandle<()>,
}

/// The place of a partition that is read.
#[derive(Default)]
struct Slot {
    reading: tokio::sync::Mutex<Reading>,
    /// Signals that waiting fetches end.
    over: Notify,
}

#[derive(Default)]
struct Reading {
    cursor: Option<Cursor>,
    /// True if librdkafka may have it in its assignment, so that it has to be removed first.
    assigned: bool,
    /// True after the slot was released.
    over: bool,
}

/// A partition that is being read.
struct Cursor {
    queue: StreamPartitionQueue<Quiet>,
    /// Next offset of the queue, this one or a later one. It moves with each record, so that a fetch
    /// that is dropped half-way does not leave a cursor at an earlier offset.
    next: Offset,
    /// A record that was over the limit of the fetch it came with.
    held: Option<Record>,
}

impl Cursor {
    /// Returns the offset from which on a fetch gets every record.
    fn at(&self) -> Offset {
        self.held.as_ref().map_or(self.next, |held| held.offset)
    }
}

impl Reader {
    pub(super) fn new(
        connection: &Connection,
        names: Names,
        group: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KafkaError> {
        let mut config = connection.config();
        // librdkafka requires a group id also without a group; nothing is ever committed under it.
        config.set("group.id", format!("{group}.reader"));
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "earliest");
        config.set("isolation.level", "read_committed");
        // For each partition; see the module.
        config.set("queued.min.messages", "4096");
        config.set("queued.max.messages.kbytes", "4096");
        // A full queue is checked again soon, not after the default second.
        config.set("fetch.queue.backoff.ms", "20");
        // Time that a partition that is added waits for the request in progress.
        config.set("fetch.wait.max.ms", "100");
        let consumer: Arc<Consumer> = Arc::new(config.create_with_context(Quiet)?);
        let serving = tokio::spawn(serve(consumer.clone()));
        Ok(Self { names, clock, consumer, slots: Mutex::default(), serving })
    }

    /// Reads records from `from` on. Where none comes within `wait`, it makes sure that there is none.
    pub(super) async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Vec<Record>, StoreError> {
        let slot = self.lock().entry(partition).or_default().clone();
        let mut reading = slot.reading.lock().await;
        let given_up =
            || StoreError::Unavailable { detail: format!("{partition} is not read here any more") };
        if reading.over {
            return Err(given_up());
        }
        let cursor = self.at(&mut reading, partition, from)?;
        let over = slot.over.notified();
        tokio::pin!(over);
        // Registered before the checks, so that a release from here on is noticed.
        over.as_mut().enable();
        let mut first_within = async |cursor: &mut Cursor, wait| {
            tokio::select! {
                biased;
                () = &mut over => Err(given_up()),
                first = self.next(cursor, wait) => first,
            }
        };
        let first = match first_within(cursor, wait).await? {
            Some(first) => first,
            // No record is there, or none any more: retention has deleted it.
            None if matches!(self.watermarks(partition).await?, (low, high) if high <= from || low >= high) =>
            {
                return Ok(Vec::new());
            }
            None => match first_within(cursor, PATIENCE).await? {
                Some(first) => first,
                None => {
                    let detail = format!("{partition} holds records from {from} on, but none comes");
                    return Err(StoreError::Unavailable { detail });
                }
            },
        };
        let mut bytes = first.value.len();
        let mut records = vec![first];
        while records.len() < limit.records {
            let record = match cursor.held.take() {
                Some(record) => record,
                None => match self.next(cursor, Duration::ZERO).await? {
                    Some(record) => record,
                    None => break,
                },
            };
            bytes += record.value.len();
            if bytes > limit.bytes {
                cursor.held = Some(record);
                break;
            }
            records.push(record);
        }
        Ok(records)
    }

    /// The first offset that is kept, and the one that comes next.
    pub(super) async fn watermarks(&self, partition: TopicPartition) -> Result<(Offset, Offset), StoreError> {
        let consumer = self.consumer.clone();
        let topic = self.names.of(partition.topic).to_owned();
        let number = number(partition);
        let found = blocking(move || consumer.fetch_watermarks(&topic, number, REQUEST)).await?;
        let (low, high) =
            found.map_err(|error| unavailable(&format!("the end of {partition} is not known"), &error))?;
        Ok((Offset::try_from(low).unwrap_or_default(), Offset::try_from(high).unwrap_or_default()))
    }

    /// Stops fetching a partition. Callers that wait for its records are released, and new fetches are
    /// refused until librdkafka has dropped it.
    pub(super) fn forget(&self, partition: TopicPartition) {
        drop(tokio::spawn(self.leave(partition)));
    }

    /// Does the same as [`Reader::forget`], and waits until it is done: a later request is then served.
    pub(super) fn leave(&self, partition: TopicPartition) -> impl Future<Output = ()> + Send + use<> {
        let slot = self.lock().remove(&partition);
        if let Some(slot) = &slot {
            slot.over.notify_waiters();
        }
        let (consumer, list) = (self.consumer.clone(), self.list(partition, KafkaOffset::Invalid));
        async move {
            let Some(slot) = slot else { return };
            let mut reading = slot.reading.lock().await;
            reading.over = true;
            reading.cursor = None;
            if std::mem::take(&mut reading.assigned)
                && let Err(error) = consumer.incremental_unassign(&list)
            {
                tracing::warn!(%error, %partition, "kafka keeps fetching a partition that is no longer read");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TopicPartition, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cursor at this offset, moved there where it is not.
    fn at<'a>(
        &self,
        reading: &'a mut Reading,
        partition: TopicPartition,
        from: Offset,
    ) -> Result<&'a mut Cursor, StoreError> {
        if reading.cursor.as_ref().is_none_or(|cursor| cursor.at() != from) {
            let failed = |error: KafkaError| unavailable(&format!("{partition} cannot be read"), &error);
            reading.cursor = None;
            let offset = i64::try_from(from).unwrap_or(i64::MAX);
            let list = self.list(partition, KafkaOffset::Offset(offset));
            if reading.assigned {
                self.consumer.incremental_unassign(&list).map_err(failed)?;
                reading.assigned = false;
            }
            // The queue is split off before any record can arrive, so that none goes to the common queue.
            let queue =
                self.consumer.split_partition_queue(self.names.of(partition.topic), number(partition));
            let Some(queue) = queue else {
                return Err(StoreError::Unavailable { detail: format!("there is no {partition}") });
            };
            self.consumer.incremental_assign(&list).map_err(failed)?;
            reading.assigned = true;
            reading.cursor = Some(Cursor { queue, next: from, held: None });
        }
        Ok(reading.cursor.as_mut().expect("it was just set"))
    }

    async fn next(&self, cursor: &mut Cursor, wait: Duration) -> Result<Option<Record>, StoreError> {
        if let Some(held) = cursor.held.take() {
            return Ok(Some(held));
        }
        let until = self.clock.elapsed() + wait;
        loop {
            let received = match cursor.queue.recv().now_or_never() {
                Some(received) => received,
                None if wait.is_zero() => return Ok(None),
                None => {
                    let left = until.saturating_sub(self.clock.elapsed());
                    match tokio::time::timeout(left, cursor.queue.recv()).await {
                        Ok(received) => received,
                        Err(_) => return Ok(None),
                    }
                }
            };
            let message = received.map_err(|error| unavailable("records cannot be read", &error))?;
            // Fetched by librdkafka before the cursor was moved.
            if message.offset() >= i64::try_from(cursor.next).unwrap_or(i64::MAX) {
                let record = self.record(&message);
                cursor.next = record.offset + 1;
                return Ok(Some(record));
            }
        }
    }

    fn record(&self, message: &BorrowedMessage<'_>) -> Record {
        let copy = |bytes: Option<&[u8]>| bytes.map_or_else(Bytes::new, Bytes::copy_from_slice);
        let millis = message.timestamp().to_millis().unwrap_or_default();
        Record {
            partition: TopicPartition {
                topic: self.names.topic(message.topic()).expect("only own topics are read"),
                partition: u32::try_from(message.partition()).unwrap_or_default(),
            },
            offset: Offset::try_from(message.offset()).unwrap_or_default(),
            key: copy(message.key()),
            value: copy(message.payload()),
            at: Timestamp::from_micros(millis.saturating_mul(1_000)),
        }
    }

    fn list(&self, partition: TopicPartition, offset: KafkaOffset) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(1);
        let added = list.add_partition_offset(self.names.of(partition.topic), number(partition), offset);
        added.expect("every offset of a log can be represented");
        list
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The number of a partition as Kafka has it.
pub(super) fn number(partition: TopicPartition) -> i32 {
    i32::try_from(partition.partition).unwrap_or(i32::MAX)
}

/// Serves the common queue: librdkafka delivers events only to a caller that polls.
async fn serve(consumer: Arc<Consumer>) {
    loop {
        match consumer.recv().await {
            Ok(message) => {
                let (topic, partition) = (message.topic(), message.partition());
                tracing::error!(
                    topic,
                    partition,
                    offset = message.offset(),
                    "a record arrived on the common queue and is dropped"
                );
            }
            Err(error) => {
                log_fault("the reader", &error, "");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
