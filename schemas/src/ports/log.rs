//! The log: topics of ordered, durable records.
//!
//! Contract: records appended in one call are durable together when it returns, and records of one
//! partition are read in the order of their offsets. An offset is never used twice, also not after
//! a crash. The log is transport, not a to-do list: a record is acknowledged as soon as what it
//! needs is in the state store, and what is acknowledged is not delivered again.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::ledger::Position;
use crate::time::Timestamp;
use crate::topic::{Epoch, Offset, Topic, TopicPartition};

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// The partition to append to.
    pub partition: TopicPartition,
    /// Key: the record's subject, and the compaction key where the topic is compacted.
    pub key: Bytes,
    /// JSON of [`crate::record`].
    pub value: Bytes,
}

impl NewRecord {
    /// Returns the tenant, by the key; `None` in topics whose records are keyed otherwise.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        let key = std::str::from_utf8(&self.key).ok()?;
        match self.partition.topic {
            Topic::Inbound | Topic::Outbound => key.split_once('/').map(|(tenant, _)| tenant),
            Topic::Tenants | Topic::Events => Some(key),
            Topic::Ingress | Topic::Dlq => None,
        }
    }
}

/// A record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The partition it was read from.
    pub partition: TopicPartition,
    /// Its place there.
    pub offset: Offset,
    /// Key: the record's subject.
    pub key: Bytes,
    /// JSON of [`crate::record`].
    pub value: Bytes,
    /// Time at which it was appended.
    pub at: Timestamp,
}

/// Bounds of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimit {
    /// Records, at least one.
    pub records: usize,
    /// Bytes of values; a larger first record comes all the same.
    pub bytes: usize,
}

/// The partitions of the consumed topics ([`Topic::CONSUMED`]) that this node owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Rises with every change.
    pub generation: u64,
    /// The owned partitions, each with the epoch of this ownership.
    pub partitions: Vec<(TopicPartition, Epoch)>,
}

/// Failure of the log or the state store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No room. Retry after a while; nothing was written.
    #[error("the store is full: {detail}")]
    Full {
        /// The resource that is full, and the remedy.
        detail: String,
    },
    /// Not reachable or too slow now. Whether a write happened is not known; writing the same again is safe.
    #[error("the store is unavailable: {detail}")]
    Unavailable {
        /// Description of the failure.
        detail: String,
    },
    /// Another owner has taken the partition. Nothing was written; stop working on it.
    #[error("{partition} has a newer owner than epoch {epoch}")]
    Fenced {
        /// The partition.
        partition: TopicPartition,
        /// The epoch that is over.
        epoch: Epoch,
    },
    /// Stored bytes are not what was written.
    #[error("corrupt: {detail}")]
    Corrupt {
        /// The file or row, the place in it, and the remedy.
        detail: String,
    },
    /// The record is larger than the store takes.
    #[error("a record of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The store has been shut down.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Returns whether a later retry can succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Unavailable { .. })
    }
}

/// The log.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Returns the number of partitions of a topic; zero where publishing into it is not possible.
    fn partitions(&self, topic: Topic) -> u32;

    /// Appends records, all or none, and returns their offsets once they are durable.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::TooLarge`], [`StoreError::Unavailable`].
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, StoreError>;

    /// Reads records from `from` on, in order; waits up to `wait` for the first, then returns none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Unavailable`].
    async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Vec<Record>, StoreError>;

    /// Reads existing records from `from` on, without waiting and beside the consumer of the partition: for audits and
    /// searches. Returns none where there is nothing.
    ///
    /// # Errors
    /// As [`Log::fetch`].
    async fn look(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
    ) -> Result<Vec<Record>, StoreError> {
        self.fetch(partition, from, limit, Duration::ZERO).await
    }

    /// Returns the position up to which the partition has been acknowledged.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn position(&self, partition: TopicPartition) -> Result<Position, StoreError>;

    /// Acknowledges records that need nothing written; others go with [`super::state::Batch::consumed`].
    /// May be lost by a crash, never the other way round.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn acknowledge(&self, partition: TopicPartition, offsets: &[Offset]) -> Result<(), StoreError>;

    /// The offset that the next record of the partition will get; with the position, the lag.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn end(&self, partition: TopicPartition) -> Result<Offset, StoreError>;

    /// Waits until the assignment's generation is above `seen`, and returns it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn assignment(&self, seen: u64) -> Result<Assignment, StoreError>;

    /// Checks that this ownership holds right now; called right before an effect that cannot be undone. A store of one
    /// process owns what it has opened.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when it is over for good, [`StoreError::Unavailable`] while it cannot be renewed: wait,
    /// and check again.
    async fn holds(&self, _partition: TopicPartition, _epoch: Epoch) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns the newest epoch of the partition, of any owner. In a store of one process no epoch is ever superseded:
    /// none is older than the first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn epoch(&self, _partition: TopicPartition) -> Result<Epoch, StoreError> {
        Ok(Epoch::default())
    }

    /// The node works on this partition no more, so that another one may have it at once.
    async fn release(&self, _partition: TopicPartition, _epoch: Epoch) {}

    /// The newest record of each key of a compacted topic's partition, and the offset to read on from.
    /// A record with an empty value removes its key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn snapshot(&self, partition: TopicPartition) -> Result<(Vec<Record>, Offset), StoreError>;
}
