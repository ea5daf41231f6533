//! Ownership of the log's partitions: one row each, written only conditionally.
//!
//! The age of a lease is counted by the cluster's clocks alone: a conditional write gets its timestamp
//! there, and the same clocks give the current time when the row is read.

use heddle_schemas::ports::log::StoreError;
use heddle_schemas::topic::TopicPartition;
use scylla::errors::PrepareError;
use scylla::value::CqlTimestamp;

use super::agenda::partition_number;
use super::conditional::Answer;
use super::statements::{Execution, Preparer, Statement};
use super::{Cql, fault};

/// Owner of a partition, and its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnershipRow {
    /// Number of changes of the owner.
    pub epoch: u64,
    /// The owner's name.
    pub owner: String,
    /// Microseconds the lease lasts from the moment it was written; 0: released.
    pub lease: i64,
    /// The end of the reserved block of write timestamps, microseconds.
    pub block_end: i64,
}

/// An ownership, and the age of its last write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The row.
    pub row: OwnershipRow,
    /// Microseconds since the row's lease was written, by the server's clock; below 0 where the clock
    /// of the server that wrote it is ahead.
    pub age: i64,
}

#[derive(Debug)]
pub(super) struct OwnershipStatements {
    read: Statement,
    insert: Statement,
    update: Statement,
}

impl OwnershipStatements {
    pub(super) async fn prepare(preparer: Preparer<'_>) -> Result<Self, PrepareError> {
        let statement = |what: &str, cql: &str, execution| {
            preparer.prepare(format!("{what} ownership"), cql.to_owned(), execution)
        };
        Ok(Self {
            read: statement(
                "read",
                "SELECT epoch, owner, lease, block_end, WRITETIME(lease), toTimestamp(now()) \
                 FROM {}.ownership WHERE topic = ? AND partition = ?",
                Execution::SerialRead,
            )
            .await?,
            insert: statement(
                "insert",
                "INSERT INTO {}.ownership (topic, partition, epoch, owner, lease, block_end) \
                 VALUES (?, ?, ?, ?, ?, ?) IF NOT EXISTS",
                Execution::Conditional,
            )
            .await?,
            update: statement(
                "update",
                "UPDATE {}.ownership SET epoch = ?, owner = ?, lease = ?, block_end = ? \
                 WHERE topic = ? AND partition = ? IF epoch = ?",
                Execution::Conditional,
            )
            .await?,
        })
    }
}

impl Cql {
    /// Reads the ownership of a partition, after every change of it in progress has completed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn ownership(&self, partition: TopicPartition) -> Result<Option<Ownership>, StoreError> {
        type Columns = (i64, String, i64, i64, i64, CqlTimestamp);
        let Statement { what, prepared } = &self.ownership.read;
        let values = (partition.topic.as_str(), partition_number(partition));
        let answer = self.run(what, self.session.execute_unpaged(prepared, values)).await?;
        let rows = answer.into_rows_result().map_err(|error| fault::corrupt(what, error))?;
        let row = rows.maybe_first_row::<Columns>().map_err(|error| fault::corrupt(what, error))?;
        let Some((epoch, owner, lease, block_end, written, now)) = row else { return Ok(None) };
        let epoch = u64::try_from(epoch).map_err(|error| fault::corrupt(what, error))?;
        let age = now.0.saturating_mul(1_000).saturating_sub(written);
        Ok(Some(Ownership { row: OwnershipRow { epoch, owner, lease, block_end }, age }))
    }

    /// Writes an ownership if the partition's epoch is `expected_epoch` now (`None`: it has none), and
    /// returns whether it did. The same epoch renews a lease, the next one takes over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the outcome is unknown; read the row.
    pub async fn swap_ownership(
        &self,
        partition: TopicPartition,
        expected_epoch: Option<u64>,
        new: &OwnershipRow,
    ) -> Result<bool, StoreError> {
        let (topic, number) = (partition.topic.as_str(), partition_number(partition));
        let OwnershipRow { epoch, owner, lease, block_end } = new;
        let epoch = stored_epoch(*epoch)?;
        let Some(expected) = expected_epoch else {
            let Statement { what, prepared } = &self.ownership.insert;
            let values = (topic, number, epoch, owner, lease, block_end);
            let answer = self.run(what, self.session.execute_unpaged(prepared, values)).await?;
            return Answer::read(what, answer)?.applied();
        };
        let Statement { what, prepared } = &self.ownership.update;
        let values = (epoch, owner, lease, block_end, topic, number, stored_epoch(expected)?);
        let answer = self.run(what, self.session.execute_unpaged(prepared, values)).await?;
        Answer::read(what, answer)?.applied()
    }
}

fn stored_epoch(epoch: u64) -> Result<i64, StoreError> {
    i64::try_from(epoch).map_err(|error| fault::corrupt("an epoch", error))
}
