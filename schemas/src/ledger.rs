//! Ledger of the processed offsets of a partition.
//!
//! Turns finish out of order, so the processed offsets are a contiguous prefix and some offsets ahead of it. A
//! [`Position`] holds both; reading goes on at its `next` and leaves out those ahead. The ledger refuses nothing and
//! forgets nothing: an offset done twice is done.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::topic::Offset;

/// Position up to which a partition has been processed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Position {
    /// Every offset below it is done.
    pub next: Offset,
    /// Offsets above `next` that are done.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ahead: BTreeSet<Offset>,
}

impl Position {
    /// Creates a position: everything below `next` is done, nothing ahead.
    #[must_use]
    pub fn at(next: Offset) -> Self {
        Self { next, ahead: BTreeSet::new() }
    }

    /// Returns whether this offset is done.
    #[must_use]
    pub fn is_done(&self, offset: Offset) -> bool {
        offset < self.next || self.ahead.contains(&offset)
    }

    /// Records an offset as done. Returns whether it was not done before.
    pub fn complete(&mut self, offset: Offset) -> bool {
        if self.is_done(offset) {
            return false;
        }
        if offset == self.next {
            self.next += 1;
            while self.ahead.first() == Some(&self.next) {
                self.ahead.pop_first();
                self.next += 1;
            }
        } else {
            self.ahead.insert(offset);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hole_holds_the_prefix_until_it_is_filled() {
        let mut position = Position::default();
        assert!(position.complete(1));
        assert!(position.complete(2));
        assert_eq!(position, Position { next: 0, ahead: [1, 2].into() });
        assert!(position.complete(0));
        assert_eq!(position, Position::at(3));
        assert!(!position.complete(1), "done before");
    }

    proptest! {
        #[test]
        fn whatever_the_order_exactly_the_completed_are_done(
            offsets in proptest::collection::vec(0_u64..200, 0..300),
        ) {
            let mut position = Position::default();
            let mut model = BTreeSet::new();
            for offset in offsets {
                prop_assert_eq!(position.complete(offset), model.insert(offset));
                let prefix = (0..).find(|offset| !model.contains(offset)).unwrap();
                prop_assert_eq!(position.next, prefix);
                prop_assert!(position.ahead.iter().all(|&ahead| ahead > position.next));
                for offset in 0..200 {
                    prop_assert_eq!(position.is_done(offset), model.contains(&offset));
                }
            }
        }
    }
}
