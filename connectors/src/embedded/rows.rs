//! Rows in memory: those changed since a checkpoint.
//!
//! A row is found by hashing its partition, and rows of a partition are kept in order, since scans never
//! leave one. In order as a whole they are brought only when a checkpoint is written, by its thread: one
//! sorted tree of all of them took most of the time of showing a commit, in comparing keys no cache holds.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::ops::{Bound, RangeBounds as _};

use bytes::Bytes;
use heddle_schemas::time::Timestamp;

use super::changes::compacted_len;

/// Memory overhead of a row beside its bytes.
const ROW_COST: usize = 160;
/// Rows of a partition that are kept in a vector; more go into a tree.
const FEW: usize = 32;

/// A row as it is held in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its value; `None` when it was deleted.
    pub(super) value: Option<Bytes>,
    /// Expiry time.
    pub(super) expires: Option<Timestamp>,
}

impl Slot {
    /// Returns the value, unless it is deleted or expired.
    #[must_use]
    pub(super) fn live(&self, now: Timestamp) -> Option<&Bytes> {
        self.value.as_ref().filter(|_| self.expires.is_none_or(|expires| now < expires))
    }

    fn len(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A range of encoded keys.
pub(super) type Range = (Bound<Bytes>, Bound<Bytes>);

/// The first row of a partition; it stands for the partition.
#[derive(Debug)]
struct First {
    key: Bytes,
    partition: usize,
}

impl Borrow<[u8]> for First {
    fn borrow(&self) -> &[u8] {
        &self.key[..self.partition]
    }
}

impl Hash for First {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<[u8]>::borrow(self).hash(state);
    }
}

impl PartialEq for First {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<[u8]>::borrow(self) == Borrow::<[u8]>::borrow(other)
    }
}

impl Eq for First {}

/// The rows of a partition.
#[derive(Debug)]
enum Part {
    /// One row.
    One(Slot),
    /// A few, in order.
    Few(Vec<(Bytes, Slot)>),
    /// Many.
    Many(BTreeMap<Bytes, Slot>),
}

impl Part {
    fn get(&self, first: &Bytes, key: &[u8]) -> Option<&Slot> {
        match self {
            Self::One(slot) => (first == key).then_some(slot),
            Self::Few(rows) => {
                let at = rows.binary_search_by(|(row, _)| (**row).cmp(key)).ok()?;
                rows.get(at).map(|(_, slot)| slot)
            }
            Self::Many(rows) => rows.get(key),
        }
    }

    /// Sets a row and returns its old value. `other` is the key of the only row, if that is another one.
    fn put(&mut self, other: Option<Bytes>, key: Bytes, slot: Slot) -> Option<Slot> {
        match self {
            Self::One(before) => {
                let before = std::mem::replace(before, Slot { value: None, expires: None });
                let Some(other) = other else {
                    *self = Self::One(slot);
                    return Some(before);
                };
                let mut rows = vec![(other, before), (key, slot)];
                rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                *self = Self::Few(rows);
                None
            }
            Self::Few(rows) => match rows.binary_search_by(|(row, _)| row.cmp(&key)) {
                Ok(at) => Some(std::mem::replace(&mut rows[at].1, slot)),
                Err(at) => {
                    rows.insert(at, (key, slot));
                    if rows.len() > FEW {
                        *self = Self::Many(rows.drain(..).collect());
                    }
                    None
                }
            },
            Self::Many(rows) => rows.insert(key, slot),
        }
    }

    fn range<'a>(&'a self, first: &'a Bytes, range: Range) -> Rowed<'a> {
        match self {
            Self::One(slot) => Box::new(range.contains(first).then_some((first, slot)).into_iter()),
            Self::Few(rows) => {
                let rows = rows.iter().filter(move |(key, _)| range.contains(key));
                Box::new(rows.map(|(key, slot)| (key, slot)))
            }
            Self::Many(rows) => Box::new(rows.range::<Bytes, _>(range)),
        }
    }
}

/// Rows in order.
type Rowed<'a> = Box<dyn DoubleEndedIterator<Item = (&'a Bytes, &'a Slot)> + 'a>;

/// Rows by encoded key, and their memory.
#[derive(Debug, Default)]
pub(super) struct Rows {
    parts: HashMap<First, Part>,
    bytes: usize,
}

impl Rows {
    /// Returns the memory that they use.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets a row.
    pub(super) fn put(&mut self, key: Bytes, slot: Slot) {
        let (key_len, len, partition) = (key.len(), slot.len(), partition_len(&key));
        self.bytes += len;
        // A key is cloned only when a partition gets its second row: the first clone allocates, and another thread
        // frees the memory. A second lookup costs less.
        let found = self.parts.get_key_value(&key[..partition]).map(|(first, part)| match part {
            Part::One(_) if first.key != key => Some(first.key.clone()),
            _ => None,
        });
        let before = match (found, self.parts.get_mut(&key[..partition])) {
            (Some(other), Some(part)) => part.put(other, key, slot),
            _ => {
                self.parts.insert(First { key, partition }, Part::One(slot));
                None
            }
        };
        match before {
            Some(before) => self.bytes -= before.len(),
            None => self.bytes += ROW_COST + key_len,
        }
    }

    /// A row.
    #[must_use]
    pub(super) fn get(&self, key: &[u8]) -> Option<&Slot> {
        let (first, part) = self.parts.get_key_value(&key[..partition_len(key)])?;
        part.get(&first.key, key)
    }

    /// Returns all rows, in order: no partition's bytes begin with another's, so sorting partitions is enough.
    pub(super) fn sorted(&self) -> impl Iterator<Item = (&Bytes, &Slot)> {
        let mut parts: Vec<_> = self.parts.iter().collect();
        parts.sort_unstable_by(|(one, _), (other, _)| {
            Borrow::<[u8]>::borrow(*one).cmp(Borrow::<[u8]>::borrow(*other))
        });
        let all = (Bound::Unbounded, Bound::Unbounded);
        parts.into_iter().flat_map(move |(first, part)| part.range(&first.key, all.clone()))
    }

    /// Returns the rows of the partition in which the range begins, in order.
    pub(super) fn range(&self, partition: &[u8], range: Range) -> Rowed<'_> {
        match self.parts.get_key_value(partition) {
            Some((first, part)) => part.range(&first.key, range),
            None => Box::new(std::iter::empty()),
        }
    }
}

/// Returns the length of the part of a key that names its partition.
pub(super) fn partition_len(key: &[u8]) -> usize {
    // A key that belongs to no table belongs to a compacted topic.
    let lengths = || {
        let tenant = usize::from(*key.get(1)?);
        let partition = key.get(2 + tenant..4 + tenant)?;
        Some(4 + tenant + usize::from(u16::from_be_bytes([partition[0], partition[1]])))
    };
    compacted_len(key).or_else(lengths).unwrap_or(key.len()).min(key.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::conversation;
    use heddle_schemas::id::MessageKey;
    use heddle_schemas::table::{Key, Partition};
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    #[test]
    fn the_partition_of_a_key_is_the_one_it_was_made_in() {
        let conversation = conversation(1);
        for key in [
            Key::head(&conversation),
            Key::history(&conversation, 7),
            Key::marker(&conversation, MessageKey::from_bytes([7; 16])),
            Key::document(&"acme".parse().unwrap(), ""),
        ] {
            assert_eq!(partition_len(key.as_bytes()), key.partition().as_bytes().len(), "{key:?}");
        }
        for no_key in [&b""[..], b"\x01", b"\x01\xff", b"\x01\x00\xff\xff"] {
            assert!(partition_len(no_key) <= no_key.len());
        }
    }

    #[test]
    fn rows_agree_with_a_sorted_map() {
        let rng = &mut StdRng::seed_from_u64(3);
        let (mut rows, mut model) = (Rows::default(), BTreeMap::new());
        for _ in 0..4_000 {
            // A partition of one row, some of a few, one of many.
            let key = match rng.random_range(0..3) {
                0 => Key::head(&conversation(rng.random_range(0..9))),
                1 => Key::history(&conversation(rng.random_range(0..9)), rng.random_range(0..12)),
                _ => Key::history(&conversation(200), rng.random_range(0..300)),
            };
            let value = vec![0; rng.random_range(0..5)];
            let slot = Slot { value: Some(value.into()).filter(|_| rng.random_bool(0.7)), expires: None };
            rows.put(key.as_bytes().clone(), slot.clone());
            model.insert(key.as_bytes().clone(), slot);
            assert_eq!(rows.get(key.as_bytes()), model.get(key.as_bytes()));
        }
        assert_eq!(rows.sorted().collect::<Vec<_>>(), model.iter().collect::<Vec<_>>());
        let cost = model.iter().map(|(key, slot)| ROW_COST + key.len() + slot.len()).sum::<usize>();
        assert_eq!(rows.bytes(), cost);
        for contact in [0, 1, 8, 100, 200] {
            let partition = Partition::history(&conversation(contact));
            for (from, to) in [(0_u64, 400_u64), (3, 7), (7, 7), (250, 400)] {
                let bound = |number: u64| partition.row(&number.to_be_bytes()).as_bytes().clone();
                let range = (Bound::Included(bound(from)), Bound::Excluded(bound(to)));
                let expected: Vec<_> = model.range::<Bytes, _>(range.clone()).collect();
                let found: Vec<_> = rows.range(partition.as_bytes(), range.clone()).collect();
                assert_eq!(found, expected);
                let backwards: Vec<_> = rows.range(partition.as_bytes(), range).rev().collect();
                assert_eq!(backwards, expected.into_iter().rev().collect::<Vec<_>>());
            }
        }
    }
}
