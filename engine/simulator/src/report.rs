//! Totals of a run: the messages that customers sent and received, and the violations.

use std::time::Duration;

use serde::Serialize;

use crate::{graph, webhooks};

/// Latencies of answers, from the last line of a question to the acceptance of its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// 50th percentile.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Maximum.
    pub max: Duration,
}

impl Latency {
    /// Returns the percentiles of these times, by nearest rank; zero without times.
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

/// Report of a run. Plain data: no names, numbers or texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Number of customers.
    pub customers: usize,
    /// Questions asked.
    pub questions: u64,
    /// Questions answered.
    pub answered: u64,
    /// Questions without an answer, or with another one than expected.
    pub unanswered: u64,
    /// Messages that customers sent, each counted once.
    pub messages: u64,
    /// Of those, messages whose webhook was answered with 200.
    pub acknowledged: u64,
    /// Messages sent again although they were accepted.
    pub duplicates: u64,
    /// Messages accepted for these customers, doubles included.
    pub replies: u64,
    /// Messages accepted again under the same id.
    pub doubled: u64,
    /// Replies out of order.
    pub out_of_order: u64,
    /// Replies that answer no question, such as the fallback to a sticker.
    pub unmatched: u64,
    /// Messages accepted for people who are not customers of this run.
    pub strangers: u64,
    /// Latencies of answers.
    pub latency: Latency,
    /// Counts of the webhooks.
    pub webhooks: webhooks::Counts,
    /// Counts of the API.
    pub graph: graph::Counts,
}

impl Report {
    /// Returns whether no message is lost, doubled, out of order, or sent to the wrong person.
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
