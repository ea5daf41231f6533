//! Log and state of many nodes: records in Kafka, rows in CQL, and the ownership that binds them.
//!
//! A commit is four steps, in this order: rows, records, the rows after them, offsets. Each begins only when
//! the one before is durable and the ownership still holds, so a crash or a lost lease in between leaves what
//! the port allows: the record comes again, and who handles it finds what was decided.
//!
//! # Layout
//! - [`ownership`]: takes partitions over, renews their leases, lets them go.
//! - `stats`: its metrics.
//! - `lease`: until when one holds, and its write timestamps; pure.

mod lease;
mod ownership;
mod stats;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{Assignment, FetchLimit, Log, NewRecord, Record, StoreError};
use heddle_schemas::ports::state::{Batch, Fence, Scan, State, Swap, Walk, Walked, Write};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, Topic, TopicPartition};
use tokio::task::JoinHandle;

use self::ownership::Ownerships;
use crate::cql::Cql;
use crate::kafka::Kafka;

/// Configuration of the ownership.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the owner, unique to this process: neither another process nor an earlier one has it.
    pub owner: String,
    /// Duration of a lease without renewal.
    pub lease: Duration,
    /// Longest call to a channel: a new owner of outbound waits for as long, beside the lease.
    pub longest_call: Duration,
    /// Time that the node may take to release a partition.
    pub handover: Duration,
}

/// Log and state of many nodes.
pub struct Cluster {
    kafka: Arc<Kafka>,
    cql: Arc<Cql>,
    clock: Arc<dyn Clock>,
    ownerships: Arc<Ownerships>,
    following: Mutex<Option<JoinHandle<()>>>,
}

impl Cluster {
    /// Creates the store. It owns nothing before [`Log::assignment`] is called.
    #[must_use]
    pub fn new(options: Options, kafka: Arc<Kafka>, cql: Arc<Cql>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let ownerships = Ownerships::new(options, kafka.clone(), cql.clone(), clock.clone());
        let ownerships = Arc::new(ownerships);
        Arc::new(Self { kafka, cql, clock, ownerships, following: Mutex::default() })
    }

    /// Releases all leases and commits what was acknowledged. No work on the partitions may continue.
    pub async fn close(&self) {
        self.ownerships.release_all().await;
        let following = self.following.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.kafka.close().await;
        if let Some(following) = following {
            following.abort();
        }
    }

    /// Registers the metrics of the ownership and of the log.
    pub(crate) fn register(&self, registry: &prometheus::Registry) {
        self.ownerships.stats().register(registry);
        self.kafka.register(registry);
    }

    fn join(&self) -> Result<(), StoreError> {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        if following.is_none() {
            let changes = self.kafka.join()?;
            *following = Some(tokio::spawn(self.ownerships.clone().follow(changes)));
        }
        Ok(())
    }

    async fn write(&self, writes: &[Write], fence: Option<Fence>, now: Timestamp) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        let timestamp = fence.map(|fence| self.ownerships.timestamp(fence)).transpose()?;
        self.cql.write(writes, timestamp, now).await
    }

    fn still(&self, fence: Option<Fence>) -> Result<(), StoreError> {
        fence.map_or(Ok(()), |fence| self.ownerships.holds(fence))
    }
}

#[async_trait]
impl State for Cluster {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.cql.get(key, self.clock.now()).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.cql.scan(scan, self.clock.now()).await
    }

    async fn walk(&self, walk: &Walk) -> Result<Walked, StoreError> {
        self.cql.walk(walk).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let Batch { fence, writes, outputs, after, consumed } = batch;
        self.still(fence)?;
        self.kafka.check(&outputs)?;
        // The first rows are refused by their own write, before anything is there; those after them would not be.
        let limit = self.cql.max_value_bytes();
        for write in &after {
            let bytes = write.value.as_ref().map_or(0, Bytes::len);
            if bytes > limit {
                return Err(StoreError::TooLarge { bytes, limit });
            }
        }
        let now = self.clock.now();
        self.write(&writes, fence, now).await?;
        if !outputs.is_empty() {
            // Fences a previous owner that was suspended until now: it publishes nothing, and its rows have lost already.
            self.still(fence)?;
            self.kafka.append(outputs).await.map_err(|error| match error {
                // The rows are there.
                StoreError::Full { detail } => StoreError::Unavailable { detail },
                error => error,
            })?;
        }
        self.write(&after, fence, now).await?;
        self.still(fence)?;
        for (partition, offset) in consumed {
            self.kafka.acknowledge(partition, [offset]);
        }
        Ok(())
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        expires: Option<Timestamp>,
    ) -> Result<Swap, StoreError> {
        self.cql.compare_and_set(key, expected, new, expires, self.clock.now()).await
    }
}

#[async_trait]
impl Log for Cluster {
    fn partitions(&self, topic: Topic) -> u32 {
        self.kafka.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, StoreError> {
        self.kafka.append(records).await
    }

    async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Vec<Record>, StoreError> {
        self.kafka.fetch(partition, from, limit, wait).await
    }

    async fn look(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
    ) -> Result<Vec<Record>, StoreError> {
        self.kafka.look(partition, from, limit).await
    }

    async fn position(&self, partition: TopicPartition) -> Result<Position, StoreError> {
        self.kafka.position(partition).await
    }

    async fn acknowledge(&self, partition: TopicPartition, offsets: &[Offset]) -> Result<(), StoreError> {
        self.kafka.acknowledge(partition, offsets.iter().copied());
        Ok(())
    }

    async fn end(&self, partition: TopicPartition) -> Result<Offset, StoreError> {
        self.kafka.end(partition).await
    }

    async fn assignment(&self, seen: u64) -> Result<Assignment, StoreError> {
        self.join()?;
        self.ownerships.assignment(seen).await
    }

    async fn holds(&self, partition: TopicPartition, epoch: Epoch) -> Result<(), StoreError> {
        self.ownerships.holds(Fence { partition, epoch })
    }

    async fn epoch(&self, partition: TopicPartition) -> Result<Epoch, StoreError> {
        Ok(self.cql.ownership(partition).await?.map_or_else(Epoch::default, |found| Epoch(found.row.epoch)))
    }

    async fn release(&self, partition: TopicPartition, epoch: Epoch) {
        self.ownerships.release(partition, epoch).await;
    }

    async fn snapshot(&self, partition: TopicPartition) -> Result<(Vec<Record>, Offset), StoreError> {
        self.kafka.snapshot(partition).await
    }
}
