//! The state port over a memory disk.

use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::ports::log::{NewRecord, StoreError};
use heddle_schemas::ports::state::{Batch, Row, Scan, State, Swap, Walk, Walked};
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::time::Timestamp;

use super::disk::{Content, MemoryDisk, Origin};
use super::faults::Operation;
use super::store::MemoryStore;

#[async_trait]
impl State for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.step(Operation::Get, None, |content| Ok(live(content, key, self.clock.now()))).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.step(Operation::Scan, None, |content| Ok(rows(content, scan, self.clock.now()))).await
    }

    async fn walk(&self, walk: &Walk) -> Result<Walked, StoreError> {
        self.step(Operation::Scan, None, |content| Ok(walked(content, walk))).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.check_records(&batch.outputs)?;
        match self.options.split {
            true => self.commit_in_steps(batch).await,
            false => self.commit_at_once(batch).await,
        }
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        expires: Option<Timestamp>,
    ) -> Result<Swap, StoreError> {
        let swap = |content: &mut Content| {
            content.check_origin(key, Origin::Conditional)?;
            let found = live(content, key, self.clock.now());
            if found != expected {
                return Ok(Swap::Found(found));
            }
            content.set(key, new, expires, Origin::Conditional);
            Ok(Swap::Done)
        };
        self.step(Operation::CompareAndSet, None, swap).await
    }
}

impl MemoryStore {
    async fn commit_at_once(&self, batch: Batch) -> Result<(), StoreError> {
        let fence = batch.fence;
        self.step(Operation::Commit, fence, |content| content.apply(batch, self.clock.now())).await
    }

    async fn commit_in_steps(&self, batch: Batch) -> Result<(), StoreError> {
        let Batch { fence, writes, outputs, after, consumed } = batch;
        self.step(Operation::CommitWrites, fence, |content| content.write(writes)).await?;
        let mut on_their_way = OnTheirWay { disk: &self.disk, outputs };
        let publish = |content: &mut Content| {
            Ok(content.append(std::mem::take(&mut on_their_way.outputs), self.clock.now()))
        };
        let published = self.step(Operation::CommitOutputs, fence, publish).await;
        if published.as_ref().is_err_and(StoreError::is_transient) {
            // The log has refused them, and has returned the error.
            on_their_way.outputs.clear();
        }
        published.map_err(begun)?;
        self.step(Operation::CommitAfter, fence, |content| content.write(after)).await.map_err(begun)?;
        let settle = |content: &mut Content| {
            content.consume(&consumed);
            Ok(())
        };
        self.step(Operation::CommitConsumed, fence, settle).await.map_err(begun)
    }
}

/// Records that are handed over to the log and may not have arrived. Those of an incarnation that ends
/// meanwhile go astray.
struct OnTheirWay<'a> {
    disk: &'a MemoryDisk,
    outputs: Vec<NewRecord>,
}

impl Drop for OnTheirWay<'_> {
    fn drop(&mut self) {
        self.disk.lock_strays().append(&mut self.outputs);
    }
}

/// `Full` promises that nothing was written, which no longer holds once a step took effect.
fn begun(error: StoreError) -> StoreError {
    match error {
        StoreError::Full { detail } => StoreError::Unavailable { detail },
        other => other,
    }
}

fn live(content: &Content, key: &Key, now: Timestamp) -> Option<Bytes> {
    content.rows.get(key.as_bytes()).filter(|row| row.lives(now)).map(|row| row.value.clone())
}

#[expect(clippy::disallowed_methods, reason = "a store reads back the keys that it was given")]
fn rows(content: &Content, scan: &Scan, now: Timestamp) -> Vec<(Key, Bytes)> {
    let Some(range) = range(scan) else { return Vec::new() };
    let found = content.rows.range::<Bytes, _>(range).filter(|(_, row)| row.lives(now));
    let found = found.filter_map(|(key, row)| Some((Key::from_bytes(key.clone())?, row.value.clone())));
    match scan.reverse {
        true => found.rev().take(scan.limit).collect(),
        false => found.take(scan.limit).collect(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a store reads back the keys that it was given")]
fn walked(content: &Content, walk: &Walk) -> Walked {
    let prefixes: Vec<_> = walk.tables.iter().map(|table| table.prefix(walk.tenant.as_ref())).collect();
    let after = walk.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
    let rows = content.rows.range::<Bytes, _>((after, Bound::Unbounded));
    let rows = rows.filter(|(key, _)| prefixes.iter().any(|prefix| key.starts_with(prefix)));
    let rows = rows.filter_map(|(key, row)| {
        Some(Row { key: Key::from_bytes(key.clone())?, value: row.value.clone(), expires: row.expires })
    });
    let rows: Vec<_> = rows.take(walk.limit).collect();
    let next = rows.last().filter(|_| rows.len() == walk.limit).map(|row| row.key.as_bytes().clone());
    Walked { rows, next }
}

/// The keys that a scan covers; `None` where its end is not after its beginning.
fn range(scan: &Scan) -> Option<(Bound<Bytes>, Bound<Bytes>)> {
    let from = scan.partition.row(&scan.from).as_bytes().clone();
    let to = match &scan.to {
        Some(to) => scan.partition.row(to).as_bytes().clone(),
        None => after(&scan.partition),
    };
    (from < to).then_some((Bound::Included(from), Bound::Excluded(to)))
}

/// The first key after a partition: no partition's bytes begin with another's, so every key below it
/// that is not below the partition is in it.
fn after(partition: &Partition) -> Bytes {
    let mut bytes = partition.as_bytes().to_vec();
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            break;
        }
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use heddle_schemas::id::{ChannelKind, ContactId, ConversationId};

    use super::*;

    #[test]
    fn the_end_of_a_partition_carries_over_its_last_bytes() {
        let conversation = ConversationId {
            tenant: "acme".parse().unwrap(),
            channel: ChannelKind::Whatsapp,
            account: "1".parse().unwrap(),
            contact: ContactId::from_bytes([0xff; 16]),
        };
        let partition = Partition::history(&conversation);
        let end = after(&partition);
        let last = partition.row(&[0xff; 40]);
        assert!(last.as_bytes() < &end, "the last row is inside");
        assert_eq!(end.last(), Some(&(b'/' + 1)), "sixteen bytes 0xff end after the slash before them");
    }
}
