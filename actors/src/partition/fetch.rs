//! Fetches a partition's records, as many as there are permits for, and hands them to its actor.

use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::{FetchLimit, Log, StoreError};
use heddle_schemas::topic::TopicPartition;
use ractor::ActorRef;

use super::{PartitionMessage, Work};
use crate::metrics::Metrics;

/// Records of one fetch at most: enough to amortise its cost, few enough to spread over the actors.
const RECORDS: usize = 256;
/// Bytes of one fetch at most.
const BYTES: usize = 4 << 20;
/// Time for which a fetch waits for the first record.
const WAIT: Duration = Duration::from_secs(5);

/// Pause before a log that is not what it was is read again.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// The fetching of one partition.
pub(super) struct Fetch<K: Send + Sync + 'static> {
    pub(super) log: Arc<dyn Log>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) partition: TopicPartition,
    pub(super) position: Position,
    pub(super) work: Arc<Work>,
    pub(super) to: ActorRef<PartitionMessage<K>>,
}

impl<K: Send + Sync + 'static> Fetch<K> {
    /// Runs until the partition's actor or the log is gone.
    pub(super) async fn run(self) {
        let mut next = self.position.next;
        loop {
            let Some(permits) = self.permits().await else { return };
            let limit = FetchLimit { records: permits, bytes: BYTES };
            let fetched = self.log.fetch(self.partition, next, limit, WAIT).await;
            let mut records = match fetched {
                Ok(records) => records,
                Err(error @ (StoreError::Closed | StoreError::Fenced { .. })) => {
                    drop(self.to.send_message(PartitionMessage::Over(error.to_string())));
                    return;
                }
                // The log cannot become readable by itself: it is tried again in case an operator has corrected it.
                Err(error @ StoreError::Corrupt { .. }) => {
                    self.work.permits.add_permits(permits);
                    self.metrics.store_retried(&error);
                    tracing::error!(%error, partition = %self.partition, next, "records cannot be fetched");
                    tokio::time::sleep(GIVEN_UP).await;
                    continue;
                }
                Err(error) => {
                    self.work.permits.add_permits(permits);
                    self.metrics.store_retried(&error);
                    tracing::warn!(%error, partition = %self.partition, next, "records cannot be fetched");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    continue;
                }
            };
            let Some(last) = records.last() else {
                self.work.permits.add_permits(permits);
                if self.to.get_status() >= ractor::ActorStatus::Stopping {
                    return;
                }
                continue;
            };
            next = last.offset + 1;
            records.retain(|record| !self.position.is_done(record.offset));
            self.work.permits.add_permits(permits - records.len().min(permits));
            self.metrics.taken(self.partition.topic, records.len());
            if self.to.send_message(PartitionMessage::Records(records, next)).is_err() {
                return;
            }
        }
    }

    /// Waits for one permit and takes more where there are.
    async fn permits(&self) -> Option<usize> {
        self.work.permits.acquire().await.ok()?.forget();
        let more = self.work.permits.available_permits().min(RECORDS - 1);
        let more = match u32::try_from(more).ok().and_then(|n| self.work.permits.try_acquire_many(n).ok()) {
            Some(taken) => {
                let count = taken.num_permits();
                taken.forget();
                count
            }
            None => 0,
        };
        Some(1 + more)
    }
}
