//! A scan of one partition, over rows in memory and in the store.
//!
//! Rows in memory override rows in the store. Active rows, frozen rows and the store are captured under the view's
//! lock, so that no row moves between them unseen; the store is read after the lock is released, because disk reads
//! must not block the writer. The number of active rows captured is limited, so the merge ends where they end
//! and begins again behind them.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;

use super::rows::{Rows, Slot, partition_len};
use super::store::Store;
use super::view::Seen;

type Row = (Bytes, Slot);
type Stored = Box<dyn Iterator<Item = Result<Row, StoreError>> + Send>;

/// Keys from the first to before the second.
pub(super) type Keys = (Bytes, Bytes);

/// Rows that are there, with their values.
pub(super) type Live = Vec<(Bytes, Bytes)>;

/// A merge that was begun.
pub(super) struct Merge {
    reverse: bool,
    range: Keys,
    active: Vec<Row>,
    /// True if `active` holds all active rows of the range.
    whole: bool,
    frozen: Option<Arc<Rows>>,
    stored: Stored,
}

impl Merge {
    /// Captures the rows from `from` to before `to`, at most `most` of the active ones.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub(super) fn begin(
        seen: &Seen,
        store: &Store,
        (from, to): Keys,
        most: usize,
        reverse: bool,
    ) -> Result<Self, StoreError> {
        let range = (Bound::Included(from.clone()), Bound::Excluded(to.clone()));
        let owned = |(key, slot): (&Bytes, &Slot)| (key.clone(), slot.clone());
        let partition = &from[..partition_len(&from)];
        let rows = seen.active.range(partition, range.clone());
        let active: Vec<_> = if reverse {
            rows.rev().take(most).map(owned).collect()
        } else {
            rows.take(most).map(owned).collect()
        };
        let stored = store.range(range)?;
        Ok(Self {
            reverse,
            range: (from, to),
            whole: active.len() < most,
            active,
            frozen: seen.frozen.as_ref().map(|frozen| frozen.rows.clone()),
            stored: if reverse { Box::new(stored.rev()) } else { Box::new(stored) },
        })
    }

    /// Returns the first `limit` live rows, and the range that is still to be read.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn rows(self, now: Timestamp, limit: usize) -> Result<(Live, Option<Keys>), StoreError> {
        let Self { reverse, range: (from, to), active, whole, frozen, stored } = self;
        let last = active.last().map(|(key, _)| key.clone());
        let within = (Bound::Included(from.clone()), Bound::Excluded(to.clone()));
        let frozen = frozen.as_ref().map(|rows| {
            let rows = rows.range(&from[..partition_len(&from)], within);
            let rows: Box<dyn Iterator<Item = (&Bytes, &Slot)>> =
                if reverse { Box::new(rows.rev()) } else { rows };
            rows.map(|(key, slot)| Ok((key.clone(), slot.clone())))
        });
        let mut sources: [Box<dyn Iterator<Item = Result<Row, StoreError>> + '_>; 3] =
            [Box::new(active.into_iter().map(Ok)), Box::new(frozen.into_iter().flatten()), Box::new(stored)];
        let mut heads = [None, None, None];
        for (head, source) in heads.iter_mut().zip(&mut sources) {
            *head = source.next().transpose()?;
        }
        let mut found = Vec::new();
        while found.len() < limit {
            let keys = heads.iter().flatten().map(|(key, _): &Row| key);
            let Some(next) = (if reverse { keys.max() } else { keys.min() }).cloned() else {
                return Ok((found, rest(whole, reverse, from, to, last)));
            };
            let beyond = last.as_ref().is_none_or(|last| if reverse { next < *last } else { next > *last });
            if !whole && beyond {
                return Ok((found, rest(whole, reverse, from, to, last)));
            }
            let mut newest = None;
            for (head, source) in heads.iter_mut().zip(&mut sources) {
                if head.as_ref().is_some_and(|(key, _)| *key == next) {
                    let row = std::mem::replace(head, source.next().transpose()?);
                    newest = newest.or(row);
                }
            }
            if let Some((key, slot)) = newest
                && let Some(value) = slot.live(now)
            {
                found.push((key, value.clone()));
            }
        }
        Ok((found, None))
    }
}

/// Returns the range behind the last active row that was captured.
fn rest(whole: bool, reverse: bool, from: Bytes, to: Bytes, last: Option<Bytes>) -> Option<Keys> {
    let last = last.filter(|_| !whole)?;
    if reverse {
        return (from < last).then_some((from, last));
    }
    // The first key after it.
    let mut after = Vec::with_capacity(last.len() + 1);
    after.extend_from_slice(&last);
    after.push(0);
    (after[..] < to[..]).then(|| (after.into(), to))
}

/// The first key after all that begin with `prefix`.
#[must_use]
pub(super) fn successor(prefix: &[u8]) -> Bytes {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            break;
        }
    }
    bytes.into()
}
