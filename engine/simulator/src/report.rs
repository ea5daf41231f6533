//! The sum of a run: what customers sent, what they received, and what should not have happened.

use std::time::Duration;

use serde::Serialize;

use crate::{graph, webhooks};

/// How long answers took, from the last line of a question to the taking of its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of them took at most this.
    pub p50: Duration,
    /// Nine of ten.
    pub p90: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// All of them.
    pub max: Duration,
}

impl Latency {
    /// The percentiles of these times, by nearest rank; zero where there are none.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let rank = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(place).copied().unwrap_or_default()
        };
        Self { p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) }
    }
}

/// What a run came to. Plain data: no names, numbers or texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// People who asked.
    pub customers: usize,
    /// Questions asked.
    pub questions: u64,
    /// Questions answered.
    pub answered: u64,
    /// Questions without an answer, or with another one than expected.
    pub unanswered: u64,
    /// Messages customers sent, each counted once.
    pub messages: u64,
    /// Messages of those whose webhook got its 200.
    pub acknowledged: u64,
    /// Messages sent once more though they were taken.
    pub duplicates: u64,
    /// Messages taken for these customers, doubles too.
    pub replies: u64,
    /// Messages taken again under an id already taken.
    pub doubled: u64,
    /// Replies in another order than they should be.
    pub out_of_order: u64,
    /// Replies to nothing that was asked, such as the fallback to a sticker.
    pub unmatched: u64,
    /// Messages taken for people who are no customers here.
    pub strangers: u64,
    /// How long answers took.
    pub latency: Latency,
    /// What the webhooks came to.
    pub webhooks: webhooks::Counts,
    /// What the API came to.
    pub graph: graph::Counts,
}

impl Report {
    /// Whether nothing is lost, doubled, out of order, or sent to someone else.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.questions > 0
            && self.unanswered == 0
            && self.acknowledged == self.messages
            && self.doubled == 0
            && self.out_of_order == 0
            && self.strangers == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let millis = Duration::from_millis;
        let hundred = Latency::of((1..=100).rev().map(millis).collect());
        let expected = Latency { p50: millis(50), p90: millis(90), p99: millis(99), max: millis(100) };
        assert_eq!(hundred, expected);
        assert_eq!(Latency::of(vec![millis(7)]).p50, millis(7));
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn a_run_is_clean_only_when_nothing_went_wrong() {
        let clean = Report { questions: 1, answered: 1, messages: 2, acknowledged: 2, ..Report::default() };
        assert!(clean.is_clean());
        assert!(!Report::default().is_clean(), "nothing asked proves nothing");
        for broken in [
            Report { unanswered: 1, ..clean.clone() },
            Report { acknowledged: 1, ..clean.clone() },
            Report { doubled: 1, ..clean.clone() },
            Report { out_of_order: 1, ..clean.clone() },
            Report { strangers: 1, ..clean.clone() },
        ] {
            assert!(!broken.is_clean(), "{broken:?}");
        }
    }
}
