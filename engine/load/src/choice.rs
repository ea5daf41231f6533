//! Seeded choice of the next conversation by Zipf's law.
//!
//! The conversation of rank `k`, from 1, is chosen in proportion to `1 / k^s`; `s` = 0 makes all equally likely.
//! Conversation `c` belongs to tenant `c mod tenants`, so the hottest ones are spread over the tenants.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Chooser of conversations.
#[derive(Debug)]
pub(crate) struct Choice {
    conversations: u32,
    tenants: u32,
    /// Cumulative share of each conversation; empty where all are equally likely.
    cumulative: Vec<f64>,
    rng: SmallRng,
}

impl Choice {
    /// Creates a chooser among `conversations` of `tenants`, neither of them 0, with exponent `skew`.
    pub(crate) fn new(conversations: u32, tenants: u32, skew: f64, seed: u64) -> Self {
        let mut cumulative = Vec::new();
        if skew > 0.0 {
            let mut sum = 0.0;
            cumulative.extend((1..=conversations).map(|rank| {
                sum += f64::from(rank).powf(-skew);
                sum
            }));
            cumulative.iter_mut().for_each(|share| *share /= sum);
        }
        Self { conversations, tenants, cumulative, rng: SmallRng::seed_from_u64(seed) }
    }

    /// Returns the next conversation.
    pub(crate) fn any(&mut self) -> u32 {
        if self.cumulative.is_empty() {
            return self.rng.random_range(0..self.conversations);
        }
        let drawn: f64 = self.rng.random();
        let place = self.cumulative.partition_point(|share| *share <= drawn);
        u32::try_from(place).map_or(0, |place| place.min(self.conversations - 1))
    }

    /// Returns the next conversation of the same tenant as this one.
    pub(crate) fn beside(&mut self, other: u32) -> u32 {
        let (drawn, tenant) = (self.any(), other % self.tenants);
        let near = drawn - drawn % self.tenants + tenant;
        if near < self.conversations { near } else { tenant }
    }

    /// Returns the conversation after this one of its tenant, cyclically.
    pub(crate) fn after(&self, conversation: u32) -> u32 {
        let next = conversation.saturating_add(self.tenants);
        if next < self.conversations { next } else { conversation % self.tenants }
    }

    /// Returns the hottest conversation's share of all messages.
    pub(crate) fn hottest(&self) -> f64 {
        self.cumulative.first().copied().unwrap_or(1.0 / f64::from(self.conversations))
    }

    /// Returns the busiest tenant's share of all messages.
    pub(crate) fn busiest(&self) -> f64 {
        let step = self.tenants as usize;
        if self.cumulative.is_empty() {
            return f64::from(self.conversations.div_ceil(self.tenants)) / f64::from(self.conversations);
        }
        // The first tenant has the hottest of each round.
        let share =
            |place: usize| self.cumulative[place] - if place > 0 { self.cumulative[place - 1] } else { 0.0 };
        (0..self.cumulative.len()).step_by(step).map(share).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(skew: f64, draws: u32) -> Vec<u32> {
        let mut choice = Choice::new(10, 2, skew, 7);
        let mut times = vec![0; 10];
        (0..draws).for_each(|_| times[choice.any() as usize] += 1);
        times
    }

    #[test]
    fn shares_fall_as_zipf_says() {
        // The tenth harmonic number is 2.928968: ranks 1, 2 and 10 have 0.34142, 0.17071 and 0.03414.
        let times = drawn(1.0, 100_000);
        for (place, expected) in [(0, 34_142), (1, 17_071), (9, 3_414)] {
            let off = i64::from(times[place]) - expected;
            assert!(off.abs() < 600, "rank {}: {} of {expected}", place + 1, times[place]);
        }
        let choice = Choice::new(10, 2, 1.0, 7);
        assert!((choice.hottest() - 0.341_417).abs() < 1e-6);
        // Ranks 1, 3, 5, 7 and 9: 1 + 1/3 + 1/5 + 1/7 + 1/9 = 1.787302 of 2.928968.
        assert!((choice.busiest() - 0.610_215).abs() < 1e-6, "{}", choice.busiest());
    }

    #[test]
    fn without_skew_all_are_alike() {
        assert!(drawn(0.0, 100_000).iter().all(|times| (9_400..10_600).contains(times)));
        let choice = Choice::new(10, 4, 0.0, 7);
        assert!((choice.hottest() - 0.1).abs() < 1e-9);
        assert!((choice.busiest() - 0.3).abs() < 1e-9, "two tenants have three of the ten");
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let sequence = |seed| {
            let mut choice = Choice::new(1000, 10, 0.8, seed);
            (0..50).map(|_| choice.any()).collect::<Vec<_>>()
        };
        assert_eq!(sequence(3), sequence(3));
        assert_ne!(sequence(3), sequence(4));
    }

    #[test]
    fn who_shares_a_body_or_stands_in_is_of_the_same_tenant() {
        let mut choice = Choice::new(11, 4, 1.0, 1);
        for first in 0..11 {
            for _ in 0..50 {
                let beside = choice.beside(first);
                assert!(beside < 11 && beside % 4 == first % 4, "{first} {beside}");
            }
            let mut round = first;
            for _ in 0..11 {
                round = choice.after(round);
                assert!(round < 11 && round % 4 == first % 4, "{first} {round}");
            }
        }
        assert_eq!(choice.after(10), 2);
    }
}
