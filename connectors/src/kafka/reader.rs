//! Reader of partitions from any offset on, each at the rate of its fetches.
//!
//! Reading is apart from the consumer group: the membership decides who owns a partition, and tenants are read
//! by every node. Each partition has a queue of its own in librdkafka, which stops fetching while the queue
//! is full: a partition whose permits are used up holds a bounded queue in memory and the rest waits in
//! Kafka. All queues share one budget of memory ([`FETCHED_AHEAD`]).
//!
//! A position outside of the log is an error here (`auto.offset.reset = error`), and the log's ends say which: below
//! its start, retention was faster than the node, and reading continues at the start; beyond its end, or in a topic
//! with another id, the log is not the one that was read, and the partition is not read any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{FetchLimit, Record, StoreError};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use rdkafka::Message;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::client::{Connection, TopicIds, blocking, log_fault, unavailable};
use super::names::Names;

/// Timeout of a request for offsets.
pub(super) const REQUEST: Duration = Duration::from_secs(10);
/// Time that records known to exist may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after which a log's end without a record is checked for being a transaction's marker.
const MARKER: Duration = Duration::from_secs(1);
/// Bytes that the queues of all partitions hold together, however many partitions there are.
const FETCHED_AHEAD: u64 = 256 << 20;
/// Bounds of one partition's part of them.
const FETCHED_AHEAD_EACH: std::ops::RangeInclusive<u64> = (32 << 10)..=(4 << 20);

type Consumer = StreamConsumer<TopicIds>;

/// Returns the KiB that each partition's queue holds. librdkafka may exceed a queue's limit by one fetch
/// (CONFIGURATION.md, `queued.max.messages.kbytes`), which gets the same limit.
fn queue_kbytes(partitions: u32) -> u64 {
    let all = u64::from(partitions.max(1)) * Topic::CONSUMED.len() as u64;
    let each = (FETCHED_AHEAD / 2 / all).clamp(*FETCHED_AHEAD_EACH.start(), *FETCHED_AHEAD_EACH.end());
    each >> 10
}

/// Records of a fetch, and what is gone before them.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// The records, in order.
    pub(super) records: Vec<Record>,
    /// Offset at which the log began when it no longer had the one that was asked for.
    pub(super) begins: Option<Offset>,
}

/// The node's one reader.
pub(super) struct Reader {
    names: Names,
    clock: Arc<dyn Clock>,
    consumer: Arc<Consumer>,
    slots: Mutex<HashMap<TopicPartition, Arc<Slot>>>,
    /// Offsets from which on a log holds nothing but markers, each with its end.
    markers: Mutex<HashMap<TopicPartition, std::ops::Range<Offset>>>,
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
    queue: StreamPartitionQueue<TopicIds>,
    /// Next offset of the queue, this one or a later one. It moves with each record, so that a fetch
    /// that is dropped half-way does not leave a cursor at an earlier offset.
    next: Offset,
    /// A record that was over the limit of the fetch it came with.
    held: Option<Record>,
    /// True if librdkafka has reached the log's end since the last record.
    ended: bool,
    /// True if the log has no such offset: nothing more comes.
    displaced: bool,
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
        config.set("auto.offset.reset", "error");
        config.set("enable.partition.eof", "true");
        TopicIds::configure(&mut config);
        config.set("isolation.level", "read_committed");
        // For each partition; see the module.
        config.set("queued.min.messages", "4096");
        let kbytes = queue_kbytes(names.partitions(Topic::Inbound));
        config.set("queued.max.messages.kbytes", kbytes.to_string());
        config.set("fetch.message.max.bytes", (kbytes << 10).to_string());
        // A full queue is checked again soon, not after the default second.
        config.set("fetch.queue.backoff.ms", "20");
        // Time that a partition that is added waits for the request in progress.
        config.set("fetch.wait.max.ms", "100");
        let consumer: Arc<Consumer> = Arc::new(config.create_with_context(TopicIds::default())?);
        let serving = tokio::spawn(serve(consumer.clone()));
        Ok(Self { names, clock, consumer, slots: Mutex::default(), markers: Mutex::default(), serving })
    }

    /// Reads records from `from` on, or from the log's start if that is later. Where none comes within `wait`, it makes
    /// sure that there is none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the log is not the one that was read before; [`StoreError::Unavailable`].
    pub(super) async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Fetched, StoreError> {
        self.check_topic(partition)?;
        let slot = self.lock().entry(partition).or_default().clone();
        let mut reading = slot.reading.lock().await;
        if reading.over {
            return Err(not_read(partition));
        }
        let over = slot.over.notified();
        tokio::pin!(over);
        // Registered before the checks, so that a release from here on is noticed.
        over.as_mut().enable();
        let fetched = tokio::select! {
            biased;
            () = over => Err(not_read(partition)),
            fetched = self.read(&mut reading, partition, from, limit, wait) => fetched,
        }?;
        // Its line comes before the first record, by another queue.
        self.check_topic(partition)?;
        Ok(fetched)
    }

    fn check_topic(&self, partition: TopicPartition) -> Result<(), StoreError> {
        if self.consumer.context().is_made_again(self.names.of(partition.topic)) {
            return Err(self.replaced(partition, "it was deleted and made again"));
        }
        Ok(())
    }

    async fn read(
        &self,
        reading: &mut Reading,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Fetched, StoreError> {
        let mut at = from;
        let first = loop {
            let wait = if at == from { wait } else { PATIENCE };
            let cursor = self.at(reading, partition, at)?;
            if let Some(first) = self.next(cursor, wait).await? {
                break first;
            }
            let displaced = cursor.displaced;
            if displaced {
                // It is read from elsewhere, or again from here if the log has grown meanwhile.
                reading.cursor = None;
            }
            let (low, high) = self.watermarks(partition).await?;
            if high < at {
                return Err(self.replaced(partition, &format!("it ends at {high}, and was read up to {at}")));
            }
            if low > at {
                // Retention was faster. The first record that is left may be deleted meanwhile too.
                at = low;
            }
            if high <= at {
                return Ok(Fetched { records: Vec::new(), begins: (at > from).then_some(at) });
            }
            if displaced || at > from {
                continue;
            }
            match self.sure(reading, partition, at, high).await? {
                Some(first) => break first,
                None if reading.cursor.is_some() => return Ok(Fetched::default()),
                // The log has lost it while it was waited for.
                None => {}
            }
        };
        let cursor = reading.cursor.as_mut().expect("the first record came by it");
        let records = self.more(cursor, first, limit).await?;
        Ok(Fetched { records, begins: (at > from).then_some(at) })
    }

    /// Waits for a record at or after `from`, which the log's end is behind; returns none if there are only markers.
    async fn sure(
        &self,
        reading: &mut Reading,
        partition: TopicPartition,
        from: Offset,
        high: Offset,
    ) -> Result<Option<Record>, StoreError> {
        if self.marked(partition).is_some_and(|marked| marked == (from..high)) {
            return Ok(None);
        }
        let cursor = self.at(reading, partition, from)?;
        if let Some(first) = self.next(cursor, MARKER).await? {
            return Ok(Some(first));
        }
        // Read anew: an end that is reached from here on is behind what the log held before.
        reading.cursor = None;
        let cursor = self.at(reading, partition, from)?;
        let until = self.clock.elapsed() + PATIENCE;
        while self.clock.elapsed() < until {
            if let Some(first) = self.next(cursor, MARKER / 10).await? {
                return Ok(Some(first));
            }
            if cursor.displaced {
                reading.cursor = None;
                return Ok(None);
            }
            if cursor.ended {
                let mut markers = self.markers.lock().unwrap_or_else(PoisonError::into_inner);
                markers.insert(partition, from..high);
                return Ok(None);
            }
        }
        let detail = format!("{partition} holds records from {from} on, but none comes");
        Err(StoreError::Unavailable { detail })
    }

    fn marked(&self, partition: TopicPartition) -> Option<std::ops::Range<Offset>> {
        self.markers.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned()
    }

    /// Adds records that are there to the first, as far as the limit allows.
    async fn more(
        &self,
        cursor: &mut Cursor,
        first: Record,
        limit: FetchLimit,
    ) -> Result<Vec<Record>, StoreError> {
        let mut bytes = first.value.len();
        let mut records = vec![first];
        while records.len() < limit.records {
            let Some(record) = self.next(cursor, Duration::ZERO).await? else { break };
            bytes += record.value.len();
            if bytes > limit.bytes {
                cursor.held = Some(record);
                break;
            }
            records.push(record);
        }
        Ok(records)
    }

    fn replaced(&self, partition: TopicPartition, how: &str) -> StoreError {
        let topic = self.names.of(partition.topic);
        StoreError::Corrupt {
            detail: format!(
                "{partition} is given up: the topic {topic} is not the one that was read, {how}. Records that it held \
                 are lost; those that it holds now are kept and wait. Stop all nodes, set the offsets of their consumer \
                 group back (kafka-consumer-groups --reset-offsets --to-earliest --topic {topic} --execute), and start \
                 them"
            ),
        }
    }

    /// The end of a partition for a reader: markers that nothing follows do not count.
    pub(super) async fn end(&self, partition: TopicPartition) -> Result<Offset, StoreError> {
        let (_, high) = self.watermarks(partition).await?;
        Ok(self.marked(partition).filter(|marked| marked.end == high).map_or(high, |marked| marked.start))
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
        self.markers.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
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
            reading.cursor = Some(Cursor { queue, next: from, held: None, ended: false, displaced: false });
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
            let message = match received {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(_)) => {
                    cursor.ended = true;
                    continue;
                }
                Err(error) if is_displaced(&error) => {
                    cursor.displaced = true;
                    return Ok(None);
                }
                Err(error) => return Err(unavailable("records cannot be read", &error)),
            };
            // Fetched by librdkafka before the cursor was moved.
            if message.offset() >= i64::try_from(cursor.next).unwrap_or(i64::MAX) {
                let record = self.record(&message);
                cursor.next = record.offset + 1;
                cursor.ended = false;
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

fn not_read(partition: TopicPartition) -> StoreError {
    StoreError::Unavailable { detail: format!("{partition} is not read here any more") }
}

/// Returns true if the log does not have the offset that was read.
fn is_displaced(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation
        )
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_partitions_share_one_budget_of_memory() {
        for partitions in [1, 8, 64, 1_024] {
            // Each queue may be exceeded by one fetch of the same size.
            let bytes = 2 * (queue_kbytes(partitions) << 10) * u64::from(partitions) * 3;
            assert!(bytes <= FETCHED_AHEAD, "{partitions}: {bytes}");
        }
        assert_eq!(queue_kbytes(8), 4_096, "few partitions have as much as one fetch takes");
    }
}
