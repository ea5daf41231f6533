//! Requests to the writer, and the callers that wait for them.
//!
//! Callers check and encode their changes on their own threads, so that the single writer has little left to do: it
//! assigns offsets and copies bytes.

use bytes::Bytes;
use heddle_schemas::ports::log::{NewRecord, StoreError};
use heddle_schemas::ports::state::{Fence, Swap, Write};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, TopicPartition};
use tokio::sync::oneshot;

use super::codec::Encoded;

/// Maximum size of a batch: many fit into a frame, and one alone is far below a frame's limit.
pub(super) const MAX_BATCH: usize = 64 << 20;

/// Encoded changes of one caller.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// As bytes.
    pub(super) encoded: Encoded,
    /// The rows.
    pub(super) writes: Vec<Write>,
    /// The records.
    pub(super) records: Vec<NewRecord>,
    /// The settled records.
    pub(super) consumed: Vec<(TopicPartition, Offset)>,
}

impl Prepared {
    /// Checks and encodes changes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub(super) fn new(
        writes: Vec<Write>,
        records: Vec<NewRecord>,
        consumed: Vec<(TopicPartition, Offset)>,
    ) -> Result<Self, StoreError> {
        let keys = writes.iter().map(|write| write.key.as_bytes().len());
        let longest = keys.chain(records.iter().map(|record| record.key.len())).max().unwrap_or(0);
        if longest > usize::from(u16::MAX) {
            return Err(StoreError::TooLarge { bytes: longest, limit: usize::from(u16::MAX) });
        }
        let rows =
            writes.iter().map(|w| w.key.as_bytes().len() + w.value.as_ref().map_or(0, Bytes::len) + 16);
        let values = records.iter().map(|r| r.value.len() + r.key.len() + 32);
        let bytes = rows.chain(values).sum::<usize>() + consumed.len() * 16;
        if bytes > MAX_BATCH {
            return Err(StoreError::TooLarge { bytes, limit: MAX_BATCH });
        }
        let mut encoded = Encoded::default();
        encoded.bytes.reserve_exact(bytes);
        encoded.records.reserve_exact(records.len());
        for write in &writes {
            encoded.write(write);
        }
        for record in &records {
            encoded.record(record);
        }
        for &(partition, offset) in &consumed {
            encoded.consumed(partition, offset);
        }
        Ok(Self { encoded, writes, records, consumed })
    }

    /// Returns true if it only settles records: that takes little room and frees some.
    #[must_use]
    pub(super) fn only_settles(&self) -> bool {
        self.writes.is_empty() && self.records.is_empty()
    }
}

/// Request to the writer.
#[derive(Debug)]
pub(super) enum Order {
    /// Records that come in from outside: refused when the journal is full.
    Append(Prepared, oneshot::Sender<Result<Vec<Offset>, StoreError>>),
    /// Batch under an ownership: it may use the reserve, so that work can be finished.
    Commit(Prepared, Option<Fence>, oneshot::Sender<Result<(), StoreError>>),
    /// A conditional write.
    Swap {
        /// The row, and its new value.
        write: Write,
        /// The same as bytes.
        prepared: Prepared,
        /// Value that the row must have; `None`: absent.
        expected: Option<Bytes>,
        /// Channel for the result.
        done: oneshot::Sender<Result<Swap, StoreError>>,
    },
    /// End a segment that is too old, and begin a checkpoint if the last one is too old.
    Tend,
    /// Begin a checkpoint.
    Checkpoint(oneshot::Sender<Result<(), StoreError>>),
    /// Write a last checkpoint and end.
    Close(oneshot::Sender<()>),
}

/// Caller that waits for an order of a group.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Caller of an append, which gets the offsets.
    Append(oneshot::Sender<Result<Vec<Offset>, StoreError>>),
    /// Caller of a commit.
    Commit(oneshot::Sender<Result<(), StoreError>>),
    /// Caller of a conditional write, and its result.
    Swap(Swap, oneshot::Sender<Result<Swap, StoreError>>),
}

impl Waiting {
    /// Answers the caller; one that no longer waits needs no answer.
    pub(super) fn answer(self, offsets: Vec<Offset>, result: Result<(), StoreError>) {
        match self {
            Self::Append(done) => drop(done.send(result.map(|()| offsets))),
            Self::Commit(done) => drop(done.send(result)),
            Self::Swap(swap, done) => drop(done.send(result.map(|()| swap))),
        }
    }
}

/// Order that is part of a group.
#[derive(Debug)]
pub(super) struct Taken {
    /// The rows.
    pub(super) writes: Vec<Write>,
    /// The records.
    pub(super) records: Vec<NewRecord>,
    /// The offset of each record.
    pub(super) offsets: Vec<Offset>,
    /// Append time of the records.
    pub(super) at: Timestamp,
    /// The settled records.
    pub(super) consumed: Vec<(TopicPartition, Offset)>,
    /// Caller that waits for it.
    pub(super) waiting: Waiting,
}

impl Taken {
    /// Returns true if nothing of it has to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.records.is_empty() && self.consumed.is_empty()
    }
}
