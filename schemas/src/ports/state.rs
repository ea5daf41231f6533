//! The state store: rows by [`Key`], written in batches that are atomic and fenced.
//!
//! Contract of [`State::commit`]: the writes are durable and seen by later reads when it returns; the outputs are in
//! the log, the writes after them are done and the consumed offsets acknowledged, in this order. A store whose log and
//! state are one does it in one step. Others do it one by one: after a crash in between, the record is delivered again,
//! its marker is found, and its handler publishes the journaled outputs again under their ids. A batch whose fence is
//! over changes nothing.

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::log::NewRecord;
pub use super::log::StoreError;
use crate::id::TenantId;
use crate::table::{Key, Partition, Table};
use crate::time::Timestamp;
use crate::topic::{Epoch, Offset, TopicPartition};

/// One row to write or delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key of the row.
    pub key: Key,
    /// Its new value; `None` deletes it.
    pub value: Option<Bytes>,
    /// Time at which it expires; `None` for never.
    pub expires: Option<Timestamp>,
}

impl Write {
    /// Writes a row that stays.
    #[must_use]
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self { key, value: Some(value.into()), expires: None }
    }

    /// Writes a row that ends at `expires`.
    #[must_use]
    pub fn put_until(key: Key, value: impl Into<Bytes>, expires: Timestamp) -> Self {
        Self { key, value: Some(value.into()), expires: Some(expires) }
    }

    /// Deletes a row.
    #[must_use]
    pub fn delete(key: Key) -> Self {
        Self { key, value: None, expires: None }
    }
}

/// The ownership under which a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fence {
    /// The owned partition.
    pub partition: TopicPartition,
    /// The epoch of the ownership.
    pub epoch: Epoch,
}

/// Changes of one decision, applied as one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The ownership under which it is written; `None` for writes that belong to no partition (a document, a tool's).
    pub fence: Option<Fence>,
    /// The rows. Where a key appears twice, the later write holds.
    pub writes: Vec<Write>,
    /// Records to publish after the writes.
    pub outputs: Vec<NewRecord>,
    /// Rows to write once the outputs are published: what would find them again after a crash is
    /// deleted here, not in `writes`. A store of one step writes them with the rest.
    pub after: Vec<Write>,
    /// Records that are settled by this batch.
    pub consumed: Vec<(TopicPartition, Offset)>,
}

impl Batch {
    /// Returns two tenants whose rows or records are both in it. A batch is one tenant's decision, so that is a fault
    /// of its builder. The agenda and rows of no tenant may stand beside any tenant's.
    #[must_use]
    pub fn mixes(&self) -> Option<(&str, &str)> {
        let rows = self.writes.iter().chain(&self.after).map(|write| write.key.tenant());
        let mut rows = rows.filter(|tenant| !tenant.is_empty());
        let first = rows.next()?;
        let published = self.outputs.iter().filter_map(NewRecord::tenant);
        rows.chain(published).find(|tenant| *tenant != first).map(|other| (first, other))
    }
}

/// Rows of one partition, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The partition.
    pub partition: Partition,
    /// The first row, included; empty for the beginning.
    pub from: Bytes,
    /// The row to stop before; `None` for the end of the partition.
    pub to: Option<Bytes>,
    /// The most rows returned.
    pub limit: usize,
    /// From the last row backwards.
    pub reverse: bool,
}

impl Scan {
    /// The first `limit` rows of a partition.
    #[must_use]
    pub fn first(partition: Partition, limit: usize) -> Self {
        Self { partition, from: Bytes::new(), to: None, limit, reverse: false }
    }

    /// The last `limit` rows of a partition, the last one first.
    #[must_use]
    pub fn last(partition: Partition, limit: usize) -> Self {
        Self { partition, from: Bytes::new(), to: None, limit, reverse: true }
    }

    /// The same from behind a row on.
    #[must_use]
    pub fn behind(self, row: &Key) -> Self {
        // The first name after it.
        Self { from: [row.row(), &[0]].concat().into(), ..self }
    }

    /// The scan of the page behind this one, which a scan from the beginning has brought; `None` when that was the
    /// last one.
    #[must_use]
    pub fn next(self, page: &[(Key, Bytes)]) -> Option<Self> {
        let (last, _) = page.last().filter(|_| page.len() >= self.limit)?;
        Some(self.behind(last))
    }
}

/// Walk over rows: its selection, and the place where it goes on.
///
/// A walk returns at least once every row that was written before it began and is not deleted meanwhile, in the store's
/// own order. It may go through all rows of the tables, also those of other tenants: it is for exports, audits and
/// sweeps, not for the processing of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// The tables that are walked over; the agenda, which belongs to the log's partitions, is not walked over.
    pub tables: Vec<Table>,
    /// The tenant whose rows are walked over; `None` for all, which is for the engine's own leader tasks only.
    pub tenant: Option<TenantId>,
    /// The `next` of the previous page; `None` to begin.
    pub after: Option<Bytes>,
    /// The most rows of a page. A page may have fewer, even none, and not be the last.
    pub limit: usize,
}

impl Walk {
    /// Creates a walk over these tables of a tenant, from the beginning.
    #[must_use]
    pub fn of(tenant: &TenantId, tables: impl Into<Vec<Table>>, limit: usize) -> Self {
        Self { tables: tables.into(), tenant: Some(tenant.clone()), after: None, limit }
    }

    /// Moves on behind the page that was returned; false when that was the last one.
    #[must_use]
    pub fn go_on(&mut self, page: &Walked) -> bool {
        self.after.clone_from(&page.next);
        self.after.is_some()
    }
}

/// A row as it is stored, whether its time is over or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key of the row.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// Time at which it expires or has expired; `None` for never.
    pub expires: Option<Timestamp>,
}

/// A page of a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walked {
    /// Its rows.
    pub rows: Vec<Row>,
    /// The place to go on from, also in another process of the same store; `None` after the last page.
    pub next: Option<Bytes>,
}

/// Outcome of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The row was as expected; the new value holds and is durable.
    Done,
    /// The row was otherwise: this. Nothing was written.
    Found(Option<Bytes>),
}

/// The state store.
#[async_trait]
pub trait State: Send + Sync + 'static {
    /// The value of a row, unless it has ended.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError>;

    /// Rows of a partition that have not ended.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    async fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Bytes)>, StoreError>;

    /// A page of a walk; see [`Walk`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`]; also where `after` is none of this store's.
    async fn walk(&self, walk: &Walk) -> Result<Walked, StoreError>;

    /// Applies a batch; see the module's contract.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::Full`], [`StoreError::TooLarge`],
    /// [`StoreError::Unavailable`].
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Sets a row to `new` (`None`: deletes it) if it is `expected` (`None`: absent) now.
    /// Rows written here are never written by [`State::commit`]: the two do not share timestamps.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`]: whether it happened is not known then; read it.
    async fn compare_and_set(
        &self,
        key: &Key,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        expires: Option<Timestamp>,
    ) -> Result<Swap, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Topic;

    #[test]
    fn a_batch_of_two_tenants_is_known_by_its_rows_and_by_its_records() {
        let row = |tenant: &str| Write::put(Key::document(&tenant.parse().unwrap(), "faq"), "");
        let waits = TopicPartition { topic: Topic::Inbound, partition: 0 };
        let agenda = Write::put(Key::agenda(waits, Timestamp::from_secs(1), b"x"), "");
        let record = |topic, key: &str| NewRecord {
            partition: TopicPartition { topic, partition: 0 },
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::new(),
        };
        let own = Batch {
            writes: vec![agenda.clone(), row("acme")],
            after: vec![row("acme"), agenda],
            outputs: vec![
                record(Topic::Outbound, "acme/whatsapp/1"),
                record(Topic::Events, "acme"),
                record(Topic::Dlq, "globex"),
            ],
            ..Batch::default()
        };
        assert_eq!(own.mixes(), None);
        let mixed = [
            Batch { writes: vec![row("acme"), row("globex")], ..Batch::default() },
            Batch { writes: vec![row("acme")], after: vec![row("globex")], ..Batch::default() },
            Batch {
                writes: vec![row("acme")],
                outputs: vec![record(Topic::Outbound, "globex/whatsapp/1")],
                ..Batch::default()
            },
            Batch {
                writes: vec![row("acme")],
                outputs: vec![record(Topic::Events, "globex")],
                ..own.clone()
            },
        ];
        assert!(mixed.iter().all(|batch| batch.mixes() == Some(("acme", "globex"))));
    }
}
