//! The log port over a memory disk.
//!
//! Records are kept for as long as the disk is, settled or not, so that a test can read the whole
//! history.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::{Assignment, FetchLimit, Log, NewRecord, Record, StoreError};
use heddle_schemas::topic::{Epoch, Offset, Topic, TopicPartition};

use super::disk::Content;
use super::faults::Operation;
use super::store::MemoryStore;

#[async_trait]
impl Log for MemoryStore {
    fn partitions(&self, topic: Topic) -> u32 {
        self.disk.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, StoreError> {
        self.check_records(&records)?;
        self.step(Operation::Append, None, |content| Ok(content.append(records, self.clock.now()))).await
    }

    async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Vec<Record>, StoreError> {
        let records =
            self.step(Operation::Fetch, None, |content| Ok(read(content, partition, from, limit))).await?;
        if !records.is_empty() {
            return Ok(records);
        }
        let arrival = self.wait_for(|content| {
            Some(read(content, partition, from, limit)).filter(|records| !records.is_empty())
        });
        tokio::time::timeout(wait, arrival).await.unwrap_or(Ok(Vec::new()))
    }

    async fn position(&self, partition: TopicPartition) -> Result<Position, StoreError> {
        let read = |content: &mut Content| Ok(content.log.get(&partition).map(|log| log.position.clone()));
        Ok(self.step(Operation::Position, None, read).await?.unwrap_or_default())
    }

    async fn acknowledge(&self, partition: TopicPartition, offsets: &[Offset]) -> Result<(), StoreError> {
        let acknowledge = |content: &mut Content| {
            content.acknowledge(partition, offsets);
            Ok(())
        };
        self.step(Operation::Acknowledge, None, acknowledge).await
    }

    async fn end(&self, partition: TopicPartition) -> Result<Offset, StoreError> {
        self.step(Operation::End, None, |content| Ok(end(content, partition))).await
    }

    async fn assignment(&self, seen: u64) -> Result<Assignment, StoreError> {
        self.step(Operation::Assignment, None, |_| Ok(())).await?;
        self.wait_for(|content| {
            let assignment = content.assignment();
            (assignment.generation > seen).then(|| assignment.clone())
        })
        .await
    }

    async fn epoch(&self, partition: TopicPartition) -> Result<Epoch, StoreError> {
        let read = |content: &mut Content| Ok(content.log.get(&partition).map(|log| log.epoch));
        Ok(self.step(Operation::Epoch, None, read).await?.unwrap_or_default())
    }

    async fn snapshot(&self, partition: TopicPartition) -> Result<(Vec<Record>, Offset), StoreError> {
        let read = |content: &mut Content| Ok((newest(content, partition), end(content, partition)));
        self.step(Operation::Snapshot, None, read).await
    }
}

impl MemoryStore {
    /// Waits until `find` finds something, or the incarnation ends.
    async fn wait_for<T>(&self, find: impl Fn(&Content) -> Option<T>) -> Result<T, StoreError> {
        loop {
            let changed = self.disk.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, so that no change between the check and the wait is missed.
            changed.as_mut().enable();
            {
                let content = self.disk.lock();
                content.admit(self.incarnation, None)?;
                if let Some(found) = find(&content) {
                    return Ok(found);
                }
            }
            changed.await;
        }
    }

    /// Refuses records that are too large, or go where no partition is.
    pub(super) fn check_records(&self, records: &[NewRecord]) -> Result<(), StoreError> {
        self.check_sizes(records.iter().map(|record| record.key.len() + record.value.len()))?;
        match records.iter().find(|r| r.partition.partition >= self.disk.partitions(r.partition.topic)) {
            Some(record) => {
                Err(StoreError::Unavailable { detail: format!("there is no {}", record.partition) })
            }
            None => Ok(()),
        }
    }
}

fn read(content: &Content, partition: TopicPartition, from: Offset, limit: FetchLimit) -> Vec<Record> {
    let records = content.log.get(&partition).map_or(&[][..], |log| &log.records);
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(records.len());
    let mut bytes = 0;
    let within = |(taken, record): &(usize, &Record)| {
        bytes += record.value.len();
        *taken == 0 || bytes <= limit.bytes
    };
    records[from..]
        .iter()
        .take(limit.records.max(1))
        .enumerate()
        .take_while(within)
        .map(|(_, r)| r.clone())
        .collect()
}

fn end(content: &Content, partition: TopicPartition) -> Offset {
    content.log.get(&partition).map_or(0, |log| log.records.len() as Offset)
}

/// The newest record of each key that is not removed, by offset.
fn newest(content: &Content, partition: TopicPartition) -> Vec<Record> {
    let records = content.log.get(&partition).map_or(&[][..], |log| &log.records);
    let newest: BTreeMap<_, _> = records.iter().map(|record| (&record.key, record)).collect();
    let mut newest: Vec<_> =
        newest.into_values().filter(|record| !record.value.is_empty()).cloned().collect();
    newest.sort_unstable_by_key(|record| record.offset);
    newest
}
