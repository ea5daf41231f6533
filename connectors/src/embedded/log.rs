//! The log port over the view and the journal's files.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Buf as _;
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::{Assignment, FetchLimit, Log, NewRecord, Record, StoreError};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};

use super::Embedded;
use super::changes::compacted_prefix;
use super::merge::{Merge, successor};
use super::older::{self, Older};
use super::order::Order;
use super::segment;

/// Source of the records of a fetch.
enum Found {
    Recent(Vec<Record>),
    Older(Older),
    Nothing,
}

#[async_trait]
impl Log for Embedded {
    fn partitions(&self, topic: Topic) -> u32 {
        self.view.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let prepared = self.prepare(Vec::new(), records, Vec::new())?;
        self.order(prepared, Order::Append).await
    }

    async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Vec<Record>, StoreError> {
        self.view.check(partition)?;
        // Only the wait for a record is bounded: one that is there is read, however long a disk takes.
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            let grown = self.view.open()?.tails.get(&partition).map(|tail| tail.grown.clone());
            let Some(grown) = grown else {
                self.view.make_tail(partition);
                continue;
            };
            let notified = grown.notified();
            tokio::pin!(notified);
            // Registered before the check, so that no record between the check and the wait is missed.
            notified.as_mut().enable();
            match self.find(partition, from, limit)? {
                Found::Recent(records) => return Ok(records),
                Found::Older(wanted) => {
                    if let Some(records) = self.read_older(wanted).await? {
                        return Ok(records);
                    }
                }
                Found::Nothing => tokio::select! {
                    biased;
                    () = notified => {}
                    () = &mut over => return Ok(Vec::new()),
                },
            }
        }
    }

    async fn position(&self, partition: TopicPartition) -> Result<Position, StoreError> {
        let seen = self.view.open()?;
        Ok(seen.tails.get(&partition).map(|tail| tail.position.clone()).unwrap_or_default())
    }

    async fn acknowledge(&self, partition: TopicPartition, offsets: &[Offset]) -> Result<(), StoreError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let consumed = offsets.iter().map(|offset| (partition, *offset)).collect();
        let prepared = self.prepare(Vec::new(), Vec::new(), consumed)?;
        self.order(prepared, |prepared, done| Order::Commit(prepared, None, done)).await
    }

    async fn end(&self, partition: TopicPartition) -> Result<Offset, StoreError> {
        Ok(self.view.open()?.end(partition))
    }

    async fn assignment(&self, seen: u64) -> Result<Assignment, StoreError> {
        if seen >= 1 {
            // Everything belongs to this process, until it ends.
            self.orders.closed().await;
        }
        if self.orders.is_closed() {
            return Err(StoreError::Closed);
        }
        let partitions = Topic::CONSUMED
            .into_iter()
            .flat_map(|topic| {
                (0..self.partitions(topic)).map(move |partition| TopicPartition { topic, partition })
            })
            .map(|partition| (partition, self.epoch))
            .collect();
        Ok(Assignment { generation: 1, partitions })
    }

    async fn snapshot(&self, partition: TopicPartition) -> Result<(Vec<Record>, Offset), StoreError> {
        let prefix = compacted_prefix(partition);
        let (merge, end) = {
            // Under one lock: rows and end are of the same moment.
            let seen = self.view.open()?;
            let merge =
                Merge::begin(&seen, &self.store, (prefix.clone(), successor(&prefix)), usize::MAX, false)?;
            (merge, seen.end(partition))
        };
        let (rows, _) = merge.rows(self.clock.now(), usize::MAX)?;
        let records = rows.into_iter().map(|(key, mut value)| {
            if value.len() < 16 {
                let detail = format!("the newest record of a key in {partition} has {} bytes", value.len());
                return Err(StoreError::Corrupt { detail });
            }
            let offset = value.get_u64();
            let at = Timestamp::from_micros(value.get_i64());
            Ok(Record { partition, offset, key: key.slice(prefix.len()..), value, at })
        });
        let mut records = records.collect::<Result<Vec<_>, _>>()?;
        records.sort_unstable_by_key(|record| record.offset);
        Ok((records, end))
    }
}

impl Embedded {
    fn find(&self, partition: TopicPartition, from: Offset, limit: FetchLimit) -> Result<Found, StoreError> {
        let seen = self.view.open()?;
        let Some(tail) = seen.tails.get(&partition).filter(|tail| from < tail.end) else {
            return Ok(Found::Nothing);
        };
        if let Some(records) = tail.read(from, limit) {
            return Ok(Found::Recent(records));
        }
        // The catalog has no place, so all remaining records are newer.
        let Some(place) = seen.catalog.find(partition, from) else { return Ok(Found::Nothing) };
        let place = self.resume.after(partition, from, place);
        let segments = seen.catalog.from(place);
        Ok(Found::Older(Older { partition, offsets: from..tail.end, limit, place, segments }))
    }

    /// Reads records from the journal's files; `None` when a file was deleted meanwhile.
    async fn read_older(&self, wanted: Older) -> Result<Option<Vec<Record>>, StoreError> {
        let dir = self.options.dir.join("journal");
        let partition = wanted.partition;
        let read = tokio::task::spawn_blocking(move || older::read(&dir, &wanted));
        match read.await.map_err(|_| StoreError::Closed)?? {
            older::Found::Records(records, last) => {
                if let Some(record) = records.last() {
                    self.resume.note(partition, record.offset + 1, last);
                }
                Ok(Some(records))
            }
            older::Found::Gone(path) => {
                let dir = self.options.dir.join("journal");
                let known = self.view.open()?.catalog.0.keys().any(|id| segment::path(&dir, *id) == path);
                if known {
                    let detail = format!("{} is missing; restore the folder from a copy", path.display());
                    return Err(StoreError::Corrupt { detail });
                }
                Ok(None)
            }
        }
    }
}
