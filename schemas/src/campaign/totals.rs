//! Numbers of a campaign's recipients by state, kept per shard and written with the batch that changes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::recipient::RecipientState;

/// Numbers of recipients by state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Totals(BTreeMap<RecipientState, u64>);

impl Totals {
    /// Counts recipients that are new in a state.
    pub fn add(&mut self, state: RecipientState, recipients: u64) {
        if recipients > 0 {
            *self.0.entry(state).or_default() += recipients;
        }
    }

    /// Moves one recipient from a state to another.
    ///
    /// Returns false, and changes nothing, where none is in the first state: the rows and the totals contradict each
    /// other, which is a fault to count.
    #[must_use]
    pub fn move_one(&mut self, from: RecipientState, to: RecipientState) -> bool {
        let Some(count) = self.0.get_mut(&from) else { return false };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&from);
        }
        self.add(to, 1);
        true
    }

    /// Adds the numbers of another shard.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(state, count)| self.add(*state, *count));
    }

    /// Returns the number of recipients in a state.
    #[must_use]
    pub fn of(&self, state: RecipientState) -> u64 {
        self.0.get(&state).copied().unwrap_or(0)
    }

    /// Returns the number of recipients in all states.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns true where every one of so many recipients is in a final state.
    #[must_use]
    pub fn is_complete(&self, recipients: u64) -> bool {
        self.sum() == recipients && self.0.keys().all(|state| state.is_final())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_campaign_is_complete_when_every_recipient_is_final_and_none_is_missing() {
        let mut totals = Totals::default();
        totals.add(RecipientState::Planned, 2);
        assert!(!totals.is_complete(2));
        assert!(totals.move_one(RecipientState::Planned, RecipientState::Sent));
        assert!(totals.move_one(RecipientState::Planned, RecipientState::Withheld));
        assert!(totals.is_complete(2));
        assert!(!totals.is_complete(3), "half of the list was never written down");
        assert!(!totals.move_one(RecipientState::Planned, RecipientState::Sent));
    }

    proptest! {
        #[test]
        fn moves_keep_the_sum_and_shards_add_up(
            moves in proptest::collection::vec((0_usize..11, 0_usize..11, any::<bool>()), 0..100),
        ) {
            let mut shards = [Totals::default(), Totals::default()];
            shards.iter_mut().for_each(|shard| shard.add(RecipientState::Planned, 10));
            for (from, to, first) in moves {
                let shard = &mut shards[usize::from(first)];
                let before = shard.of(RecipientState::ALL[from]);
                let moved = shard.move_one(RecipientState::ALL[from], RecipientState::ALL[to]);
                prop_assert_eq!(moved, before > 0);
                prop_assert_eq!(shard.sum(), 10);
            }
            let mut all = shards[0].clone();
            all.merge(&shards[1]);
            prop_assert_eq!(all.sum(), 20);
        }
    }
}
