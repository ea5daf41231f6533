//! Records in work: a receipt for each, which gives its permit back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heddle_schemas::ports::log::Record;
use heddle_schemas::topic::{Offset, TopicPartition};
use tokio::sync::Semaphore;

use super::{EntityKind, Partition, PartitionState};
use crate::invariants::{Invariant, are_permits_kept};
use crate::metrics::Metrics;

/// The proof that a record was delivered; as long as it lives, the record counts as in work.
#[derive(Debug)]
pub struct Receipt {
    /// The record as it came, for the dead-letter topic.
    pub record: Record,
    /// True where what it asks for may have been done before: it was in the log when the partition was taken
    /// over, or who published it had lost its own partition by then.
    pub maybe_again: bool,
    /// When it was delivered, by the clock's elapsed time.
    pub delivered: Duration,
    /// True for a record that was parked.
    parked: bool,
    work: Arc<Work>,
}

/// Records of a partition in work.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) permits: Semaphore,
    /// Of parked records.
    pub(super) returning: Semaphore,
    pub(super) records: AtomicUsize,
    pub(super) metrics: Arc<Metrics>,
}

impl Receipt {
    /// Returns the consumed offset for the batch that settles the record.
    #[must_use]
    pub fn consumed(&self) -> (TopicPartition, Offset) {
        (self.record.partition, self.record.offset)
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.work.metrics.in_work(self.record.partition.topic, -1);
        self.work.records.fetch_sub(1, Ordering::AcqRel);
        let permits = if self.parked { &self.work.returning } else { &self.work.permits };
        permits.add_permits(1);
    }
}

impl<R: EntityKind> Partition<R> {
    pub(super) fn receipt(&self, state: &PartitionState<R>, record: Record, parked: bool) -> Receipt {
        let ports = &self.context.ports;
        let metrics = &ports.metrics;
        metrics.in_work(R::TOPIC, 1);
        let in_work = state.work.records.fetch_add(1, Ordering::AcqRel) + 1;
        let permits = self.permits(state);
        metrics.check(Invariant::Bounds, are_permits_kept(in_work, permits), || {
            format!("{in_work} records of {} are in work, {permits} may be", self.fence.partition)
        });
        Receipt {
            maybe_again: parked || record.offset < state.taken_over_at,
            delivered: ports.clock.elapsed(),
            record,
            parked,
            work: state.work.clone(),
        }
    }
}
