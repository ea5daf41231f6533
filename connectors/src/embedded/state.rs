//! The state port over the view and the checkpoint.

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::ports::state::{Batch, Scan, State, StoreError, Swap, Walk, Walked, Write};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

use super::Embedded;
use super::merge::{Merge, successor};
use super::order::Order;

/// Active rows that a scan takes at once, beside its limit: among them may be deleted ones.
const TAKEN_BESIDE: usize = 256;

#[async_trait]
impl State for Embedded {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let now = self.clock.now();
        if let Some(slot) = self.view.open()?.row(key.as_bytes()) {
            return Ok(slot.live(now).cloned());
        }
        // A row that moved from memory into the store meanwhile is found there: it is written first.
        Ok(self.store.get(key.as_bytes())?.and_then(|slot| slot.live(now).cloned()))
    }

    #[expect(clippy::disallowed_methods, reason = "a store reads back the keys that it was given")]
    async fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let from = scan.partition.row(&scan.from).as_bytes().clone();
        let to = match &scan.to {
            Some(to) => scan.partition.row(to).as_bytes().clone(),
            None => successor(scan.partition.as_bytes()),
        };
        let now = self.clock.now();
        let mut found = Vec::new();
        let mut next = (from < to).then_some((from, to));
        let mut taken = scan.limit.saturating_add(TAKEN_BESIDE);
        while let Some(range) = next.take()
            && found.len() < scan.limit
        {
            let merge = Merge::begin(&*self.view.open()?, &self.store, range, taken, scan.reverse)?;
            let (rows, rest) = merge.rows(now, scan.limit - found.len())?;
            found.extend(rows);
            next = rest;
            taken = taken.saturating_mul(2);
        }
        Ok(found.into_iter().filter_map(|(key, value)| Some((Key::from_bytes(key)?, value))).collect())
    }

    async fn walk(&self, walk: &Walk) -> Result<Walked, StoreError> {
        self.walk_page(walk).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let Batch { fence, mut writes, outputs, after, consumed } = batch;
        writes.extend(after);
        let prepared = self.prepare(writes, outputs, consumed)?;
        self.order(prepared, |prepared, done| Order::Commit(prepared, fence, done)).await
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        expires: Option<Timestamp>,
    ) -> Result<Swap, StoreError> {
        let write = Write { key: key.clone(), value: new, expires };
        let prepared = self.prepare(vec![write.clone()], Vec::new(), Vec::new())?;
        self.order(prepared, |prepared, done| Order::Swap { write, prepared, expected, done }).await
    }
}
