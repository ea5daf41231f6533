//! The log on Apache Kafka, without the ownership of its partitions: that is [`crate::cluster`]'s.
//!
//! # Layout
//! - [`membership`]: the consumer group: the node's partitions, and its commits.
//! - [`offsets`], [`metadata`]: the acknowledged offsets, and their form in a commit.
//! - [`reader`]: reads partitions from any offset on. [`losses`]: records that the log lost before.
//! - [`producer`]: appends records; [`publisher`]: publishes as a connector does.
//! - [`topics`]: the required settings of the topics, and their creation.
//! - `names`, `client`: the names of topics, and the configuration of clients.

mod client;
mod losses;
mod membership;
mod metadata;
mod names;
mod offsets;
mod producer;
mod publisher;
mod reader;
pub mod topics;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use heddle_schemas::ledger::Position;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{FetchLimit, NewRecord, Record, StoreError};
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use rdkafka::error::KafkaError;
use tokio::sync::mpsc;

pub use self::client::Connection;
use self::losses::{LossCollector, Losses};
pub use self::membership::Change;
use self::membership::Membership;
use self::names::Names;
use self::producer::Producer;
pub use self::publisher::Publisher;
use self::reader::Reader;

/// Configuration of the log.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connection settings of the clients.
    pub connection: Connection,
    /// Prefix of every topic's name, and of the consumer group; other engines on the same brokers need another one.
    pub prefix: String,
    /// Partitions of inbound, outbound and events.
    pub partitions: NonZeroU32,
    /// Time without a sign of life after which the node's partitions go to others.
    pub session_timeout: Duration,
    /// Time that a rebalance waits for the node to release a partition.
    pub handover: Duration,
    /// Bytes of the largest record.
    pub max_record_bytes: usize,
    /// Required settings of the topics.
    pub policy: topics::Policy,
}

/// Error of opening the log.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A client could not be made: a setting is wrong.
    #[error("a Kafka client cannot be set up: {0}; see [log] in the configuration")]
    Client(#[from] KafkaError),
    /// The brokers do not answer.
    #[error("no Kafka broker answers at {brokers}: {why}; start them, or correct log.brokers")]
    Unreachable {
        /// Brokers that were contacted.
        brokers: String,
        /// Cause.
        why: String,
    },
    /// A broker refuses the connection, or it is not made as the broker wants it.
    #[error(
        "the Kafka brokers at {brokers} refuse the connection: {why}; see log.client (security.protocol, sasl.*, ssl.*)"
    )]
    Refused {
        /// Brokers that were contacted.
        brokers: String,
        /// Cause.
        why: String,
    },
    /// The topics are not as they have to be.
    #[error("the topics are not as they have to be:\n{}\nrun `heddle topics diff`, then `heddle topics apply`", .0.join("\n"))]
    Topics(Vec<String>),
}

/// The log on Kafka.
pub struct Kafka {
    names: Names,
    producer: Producer,
    reader: Reader,
    /// Reader for callers that do not follow a partition: a reader has one cursor and one waiter for each.
    beside: Reader,
    membership: Membership,
    losses: Arc<Losses>,
    changes: Mutex<Option<mpsc::Receiver<Change>>>,
}

impl Kafka {
    /// Connects; nothing is consumed before [`Kafka::join`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(options: &Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let names = Names::new(&options.prefix, options.partitions.get());
        topics::check(options).await?;
        let connection = &options.connection;
        let group = format!("{}engine", options.prefix);
        let producer =
            Producer::new(connection.clone(), names.clone(), clock.clone(), options.max_record_bytes)?;
        let reader = Reader::new(connection, names.clone(), &group, clock.clone())?;
        let beside = Reader::new(connection, names.clone(), &group, clock.clone())?;
        let member = membership::Options {
            member: format!("{group}.{}", connection.node),
            group,
            session_timeout: options.session_timeout,
            handover: options.handover,
        };
        let losses = Arc::new(Losses::new(clock.clone(), options.policy.retention));
        let (membership, changes) = Membership::new(connection, names.clone(), &member, clock)?;
        Ok(Self { names, producer, reader, beside, membership, losses, changes: Mutex::new(Some(changes)) })
    }

    /// Joins the consumer group. Only the first call gets the group's changes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Closed`] from the second call on.
    pub fn join(&self) -> Result<mpsc::Receiver<Change>, StoreError> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let changes = changes.ok_or(StoreError::Closed)?;
        self.membership.join()?;
        Ok(changes)
    }

    /// Takes over a partition at its committed position.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn take_over(&self, partition: TopicPartition) -> Result<(), StoreError> {
        let committed = self.membership.committed(partition).await?;
        let (low, _) = self.reader.watermarks(partition).await?;
        let position = match committed {
            Some(committed) if committed.next >= low => committed,
            Some(mut committed) => {
                let (from, lost) = (committed.next, offsets::skip(&mut committed, 0..low));
                self.overtaken(partition, from, low, lost);
                committed
            }
            None => Position::at(low),
        };
        self.losses.opened(partition, position.next);
        self.membership.offsets().open(partition, position);
        Ok(())
    }

    fn overtaken(&self, partition: TopicPartition, from: Offset, to: Offset, lost: u64) {
        self.losses.lost(partition, lost);
        tracing::error!(
            %partition, from, to, lost,
            "records were deleted before they were handled: raise log.retention, or find out why they were not consumed"
        );
    }

    /// Registers the metrics of lost records.
    ///
    /// # Panics
    /// If they are registered twice with one registry.
    pub fn register(&self, registry: &prometheus::Registry) {
        let collector = LossCollector(self.losses.clone());
        registry.register(Box::new(collector)).expect("each name is registered once");
    }

    /// Stops reading a partition, and acknowledges none of its records any more.
    pub fn give_up(&self, partition: TopicPartition) {
        self.membership.offsets().close(partition);
        self.losses.closed(partition);
        self.reader.forget(partition);
    }

    /// Stops reading a partition; its acknowledgements are committed when the group takes it away.
    pub fn pause(&self, partition: TopicPartition) {
        self.losses.closed(partition);
        self.reader.forget(partition);
    }

    /// Returns the number of partitions of a topic.
    #[must_use]
    pub fn partitions(&self, topic: Topic) -> u32 {
        self.names.partitions(topic)
    }

    /// Refuses records that no broker would take.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub fn check(&self, records: &[NewRecord]) -> Result<(), StoreError> {
        self.producer.check(records)
    }

    /// See [`heddle_schemas::ports::log::Log::append`].
    ///
    /// # Errors
    /// As there.
    pub async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, StoreError> {
        self.producer.append(records).await
    }

    /// See [`heddle_schemas::ports::log::Log::fetch`].
    ///
    /// # Errors
    /// As there.
    pub async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Vec<Record>, StoreError> {
        let fetched = match self.reader.fetch(partition, from, limit, wait).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                if self.losses.give_up(partition) {
                    tracing::error!(%error, %partition, "a partition is given up");
                    // A commit would only move the group's offset of a log that is not there any more.
                    self.membership.offsets().close(partition);
                }
                return Err(error);
            }
            fetched => fetched?,
        };
        let mut next = from;
        if let Some(begins) = fetched.begins {
            let lost = self.membership.offsets().skip(partition, from..begins);
            if lost > 0 {
                self.overtaken(partition, from, begins, lost);
            }
            next = begins;
        }
        for record in &fetched.records {
            if record.offset > next {
                self.membership.offsets().skip(partition, next..record.offset);
            }
            next = record.offset + 1;
        }
        self.losses.fetched(partition, &fetched.records);
        Ok(fetched.records)
    }

    /// See [`heddle_schemas::ports::log::Log::look`].
    ///
    /// # Errors
    /// As there.
    pub async fn look(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
    ) -> Result<Vec<Record>, StoreError> {
        let records = self.beside.fetch(partition, from, limit, Duration::ZERO).await?.records;
        let next = records.last().map_or(from, |record| record.offset + 1);
        // No reader continues from here: records fetched ahead would be held in vain.
        if next >= self.beside.watermarks(partition).await?.1 {
            self.beside.leave(partition).await;
        }
        Ok(records)
    }

    /// See [`heddle_schemas::ports::log::Log::position`].
    ///
    /// # Errors
    /// As there.
    pub async fn position(&self, partition: TopicPartition) -> Result<Position, StoreError> {
        match self.membership.offsets().position(partition) {
            Some(position) => Ok(position),
            None => Ok(self.membership.committed(partition).await?.unwrap_or_default()),
        }
    }

    /// Acknowledges; committed soon after.
    pub fn acknowledge(&self, partition: TopicPartition, offsets: impl IntoIterator<Item = Offset>) {
        self.membership.offsets().complete(partition, offsets);
    }

    /// See [`heddle_schemas::ports::log::Log::end`].
    ///
    /// # Errors
    /// As there.
    pub async fn end(&self, partition: TopicPartition) -> Result<Offset, StoreError> {
        let end = self.reader.end(partition).await?;
        self.losses.ends(partition, end);
        Ok(end)
    }

    /// See [`heddle_schemas::ports::log::Log::snapshot`].
    ///
    /// # Errors
    /// As there.
    pub async fn snapshot(&self, partition: TopicPartition) -> Result<(Vec<Record>, Offset), StoreError> {
        let (mut next, end) = self.beside.watermarks(partition).await?;
        let limit = FetchLimit { records: 1_024, bytes: 4 << 20 };
        let mut newest = std::collections::BTreeMap::new();
        while next < end {
            let records = self.beside.fetch(partition, next, limit, Duration::ZERO).await?.records;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            for record in records {
                newest.insert(record.key.clone(), record);
            }
        }
        self.beside.leave(partition).await;
        let mut records: Vec<_> = newest.into_values().filter(|record| !record.value.is_empty()).collect();
        records.sort_unstable_by_key(|record| record.offset);
        Ok((records, next))
    }

    /// Commits the acknowledgements and waits for the appends.
    pub async fn close(&self) {
        self.membership.close().await;
        self.producer.flush(Duration::from_secs(10)).await;
    }
}
