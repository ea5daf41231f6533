//! The state port over the view and the checkpoint.

use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::ports::state::{Batch, Scan, State, StoreError, Swap, Write};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

use super::Embedded;
use super::view::{Rows, Slot};
use super::writer::{Order, Prepared};

#[async_trait]
impl State for Embedded {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let now = self.clock.now();
        if let Some(slot) = self.view.read().row(key.as_bytes()) {
            return Ok(slot.live(now).cloned());
        }
        // A row that moved from memory into the store meanwhile is found there: it is written first.
        Ok(self.store.get(key.as_bytes())?.and_then(|slot| slot.live(now).cloned()))
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let from = scan.partition.row(&scan.from).as_bytes().clone();
        let to = match &scan.to {
            Some(to) => scan.partition.row(to).as_bytes().clone(),
            None => successor(scan.partition.as_bytes()),
        };
        let rows = self.merge(from, to, scan.limit, scan.reverse)?;
        Ok(rows.into_iter().filter_map(|(key, value)| Some((Key::from_bytes(key)?, value))).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let Batch { fence, mut writes, outputs, after, consumed } = batch;
        writes.extend(after);
        let prepared = Prepared::new(writes, outputs, consumed);
        self.order(|done| Order::Commit(prepared, fence, done)).await
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        expires: Option<Timestamp>,
    ) -> Result<Swap, StoreError> {
        let write = Write { key: key.clone(), value: new, expires };
        self.order(|done| Order::Swap { write, expected, done }).await
    }
}

impl Embedded {
    /// Every live row whose key begins with `prefix`.
    pub(super) fn scan_bytes(&self, prefix: &Bytes) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.merge(prefix.clone(), successor(prefix), usize::MAX, false)
    }

    /// The live rows from `from` to before `to`: what is in memory stands before what is in the store.
    fn merge(
        &self,
        from: Bytes,
        to: Bytes,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let range = (Bound::Included(from), Bound::Excluded(to));
        // Held while the store is read, so that no row moves from the one into the other unseen.
        let seen = self.view.read();
        let frozen = seen.frozen.as_ref().map(|frozen| &*frozen.rows);
        let store: Source<'_> = match reverse {
            true => Box::new(self.store.range(range.clone()).rev()),
            false => Box::new(self.store.range(range.clone())),
        };
        let mut sources =
            [in_memory(Some(&seen.active), range.clone(), reverse), in_memory(frozen, range, reverse), store];
        let mut heads = Vec::with_capacity(sources.len());
        for source in &mut sources {
            heads.push(source.next().transpose()?);
        }
        let mut found = Vec::new();
        while found.len() < limit {
            let keys = heads.iter().flatten().map(|(key, _)| key);
            let Some(next) = (if reverse { keys.max() } else { keys.min() }).cloned() else { break };
            let mut newest = None;
            for (head, source) in heads.iter_mut().zip(&mut sources) {
                if head.as_ref().is_some_and(|(key, _)| *key == next) {
                    let (_, slot) = std::mem::replace(head, source.next().transpose()?)
                        .unwrap_or((Bytes::new(), Slot { value: None, expires: None }));
                    newest = newest.or(Some(slot));
                }
            }
            if let Some(value) = newest.as_ref().and_then(|slot| slot.live(now)) {
                found.push((next, value.clone()));
            }
        }
        Ok(found)
    }
}

/// Rows in the order of a scan.
type Source<'a> = Box<dyn Iterator<Item = Result<(Bytes, Slot), StoreError>> + 'a>;

fn in_memory(rows: Option<&Rows>, range: (Bound<Bytes>, Bound<Bytes>), reverse: bool) -> Source<'_> {
    let Some(rows) = rows else { return Box::new(std::iter::empty()) };
    let rows = rows.range::<Bytes, _>(range);
    let owned = |(key, slot): (&Bytes, &Slot)| Ok((key.clone(), slot.clone()));
    if reverse { Box::new(rows.rev().map(owned)) } else { Box::new(rows.map(owned)) }
}

/// The first key after all that begin with `prefix`.
fn successor(prefix: &[u8]) -> Bytes {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            break;
        }
    }
    bytes.into()
}
