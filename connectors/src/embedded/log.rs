//! The log port over the view and the journal's files.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::{Assignment, FetchLimit, Log, NewRecord, Record, StoreError};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};

use super::Embedded;
use super::codec::{Change, changes};
use super::segment;
use super::view::{Place, compacted_prefix};
use super::writer::{Order, Prepared};

/// Where a fetch finds its records.
enum Found {
    Records(Vec<Record>),
    Older(Place, Offset),
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
        let prepared = Prepared::new(Vec::new(), records, Vec::new());
        self.order(|done| Order::Append(prepared, done)).await
    }

    async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Vec<Record>, StoreError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let grown = {
                let seen = self.view.read();
                seen.tails.get(&partition).map(|tail| tail.grown.clone())
            };
            let Some(grown) = grown else {
                self.view.make_tail(partition);
                continue;
            };
            let notified = grown.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            match self.find(partition, from, limit) {
                Found::Records(records) => return Ok(records),
                Found::Older(place, end) => return self.read_older(place, partition, from..end, limit).await,
                Found::Nothing if self.orders.is_closed() => return Err(StoreError::Closed),
                Found::Nothing => {}
            }
            if tokio::time::timeout_at(deadline, notified).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    async fn position(&self, partition: TopicPartition) -> Result<Position, StoreError> {
        let seen = self.view.read();
        Ok(seen.tails.get(&partition).map(|tail| tail.position.clone()).unwrap_or_default())
    }

    async fn acknowledge(&self, partition: TopicPartition, offsets: &[Offset]) -> Result<(), StoreError> {
        let consumed = offsets.iter().map(|offset| (partition, *offset)).collect();
        let prepared = Prepared::new(Vec::new(), Vec::new(), consumed);
        self.order(|done| Order::Commit(prepared, None, done)).await
    }

    async fn end(&self, partition: TopicPartition) -> Result<Offset, StoreError> {
        Ok(self.view.read().tails.get(&partition).map_or(0, |tail| tail.end))
    }

    async fn assignment(&self, seen: u64) -> Result<Assignment, StoreError> {
        if seen >= 1 {
            // Everything belongs to this process, until it ends.
            self.orders.closed().await;
            return Err(StoreError::Closed);
        }
        let partitions = [Topic::Inbound, Topic::Outbound]
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
        let next = self.end(partition).await?;
        let rows = self.scan_bytes(&prefix)?;
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
        Ok((records, next))
    }
}

impl Embedded {
    fn find(&self, partition: TopicPartition, from: Offset, limit: FetchLimit) -> Found {
        let seen = self.view.read();
        let Some(tail) = seen.tails.get(&partition).filter(|tail| from < tail.end) else {
            return Found::Nothing;
        };
        match tail.recent.front() {
            Some(first) if first.offset <= from => {
                let skip = usize::try_from(from - first.offset).unwrap_or(usize::MAX);
                Found::Records(limited(tail.recent.iter().skip(skip).cloned(), limit))
            }
            _ => match seen.find(partition, from) {
                Some(place) => Found::Older(place, tail.end),
                None => Found::Nothing,
            },
        }
    }

    /// Reads records from the journal's files.
    async fn read_older(
        &self,
        place: Place,
        partition: TopicPartition,
        offsets: std::ops::Range<Offset>,
        limit: FetchLimit,
    ) -> Result<Vec<Record>, StoreError> {
        let dir = self.options.dir.join("journal");
        let last = self.view.read().segments.last_key_value().map_or(place.segment, |(id, _)| *id);
        let read = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            let mut bytes = 0;
            for id in place.segment..=last {
                let at = if id == place.segment { place.at } else { segment::HEADER as u64 };
                let Some(mut frames) = Frames::open(segment::path(&dir, id), at)? else { continue };
                while let Some(payload) = frames.next()? {
                    for change in changes(payload).flatten() {
                        let Change::Record(record) = change else { continue };
                        if record.partition != partition || !offsets.contains(&record.offset) {
                            continue;
                        }
                        bytes += record.value.len();
                        if !found.is_empty() && (found.len() >= limit.records || bytes > limit.bytes) {
                            return Ok(found);
                        }
                        found.push(record);
                    }
                    if found.len() >= limit.records
                        || found.last().is_some_and(|r| r.offset + 1 == offsets.end)
                    {
                        return Ok(found);
                    }
                }
            }
            Ok(found)
        });
        read.await.map_err(|_| StoreError::Closed)?
    }
}

fn limited(records: impl Iterator<Item = Record>, limit: FetchLimit) -> Vec<Record> {
    let mut bytes = 0;
    let mut first = true;
    records
        .take(limit.records)
        .take_while(|record| {
            bytes += record.value.len();
            std::mem::take(&mut first) || bytes <= limit.bytes
        })
        .collect()
}

/// The frames of a file from a place on.
struct Frames {
    path: PathBuf,
    file: BufReader<File>,
}

impl Frames {
    fn open(path: PathBuf, at: u64) -> Result<Option<Self>, StoreError> {
        let failed = |error: std::io::Error| StoreError::Unavailable {
            detail: format!("{}: {error}", path.display()),
        };
        let mut file = match File::open(&path) {
            Ok(file) => BufReader::with_capacity(1 << 20, file),
            // Forgotten meanwhile, or never made.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        Ok(Some(Self { path, file }))
    }

    /// The next payload; `None` at the end, or at what is being written.
    fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mut head = [0; segment::FRAME];
        if self.file.read_exact(&mut head).is_err() {
            return Ok(None);
        }
        let len =
            usize::try_from(u32::from_be_bytes([head[0], head[1], head[2], head[3]])).unwrap_or(usize::MAX);
        if len > segment::MAX_PAYLOAD {
            return Ok(None);
        }
        let mut payload = vec![0; len];
        if self.file.read_exact(&mut payload).is_err() {
            return Ok(None);
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[8..]);
        crc.update(&payload);
        if crc.finalize() != u32::from_be_bytes([head[4], head[5], head[6], head[7]]) {
            let detail = format!("{}: a frame does not match its checksum", self.path.display());
            return Err(StoreError::Corrupt { detail });
        }
        Ok(Some(payload.into()))
    }
}
