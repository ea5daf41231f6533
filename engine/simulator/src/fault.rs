//! Injected faults of the simulated API: seeded dice choose one fate per request.

use std::ops::Range;
use std::time::Duration;

/// Frequency of each fault. Shares are of all well-formed requests; their sum is at most 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// Latency of each answer.
    pub latency: Range<Duration>,
    /// Share answered with 500 and a Graph error; not accepted.
    pub server_error: f64,
    /// Share answered with 429, code 130429 and a `Retry-After`; not accepted.
    pub rate_limited: f64,
    /// The `Retry-After` of those, in whole seconds.
    pub retry_after: Duration,
    /// Share accepted, the connection then closed without an answer: the outcome is unknown to the caller.
    pub taken_then_dropped: f64,
    /// Share not accepted, the connection closed likewise: indistinguishable to the caller.
    pub dropped: f64,
    /// Share that hangs before it is closed without an answer; every second one was accepted.
    pub hang: f64,
    /// Duration of a hang.
    pub hang_for: Duration,
}

impl Default for Faults {
    /// Returns no faults.
    fn default() -> Self {
        Self {
            latency: Duration::ZERO..Duration::ZERO,
            server_error: 0.0,
            rate_limited: 0.0,
            retry_after: Duration::from_secs(1),
            taken_then_dropped: 0.0,
            dropped: 0.0,
            hang: 0.0,
            hang_for: Duration::from_secs(60),
        }
    }
}

/// Fate of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answer,
    ServerError,
    RateLimited,
    TakenThenDropped,
    Dropped,
    HangTaken,
    HangUntaken,
}

impl Faults {
    /// Returns the fate of a request for the draw `roll`, a number from 0 to 1.
    pub(crate) fn fate(&self, roll: f64) -> Fate {
        let mut end = 0.0;
        for (share, fate) in [
            (self.server_error, Fate::ServerError),
            (self.rate_limited, Fate::RateLimited),
            (self.taken_then_dropped, Fate::TakenThenDropped),
            (self.dropped, Fate::Dropped),
            (self.hang / 2.0, Fate::HangTaken),
            (self.hang / 2.0, Fate::HangUntaken),
        ] {
            end += share;
            if roll < end {
                return fate;
            }
        }
        Fate::Answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_one_another() {
        let faults = Faults { server_error: 0.1, taken_then_dropped: 0.2, hang: 0.2, ..Faults::default() };
        let fates = [0.0, 0.09, 0.11, 0.29, 0.31, 0.39, 0.41, 0.49, 0.51, 0.99].map(|roll| faults.fate(roll));
        use Fate::{Answer, HangTaken, HangUntaken, ServerError, TakenThenDropped};
        assert_eq!(
            fates,
            [
                ServerError,
                ServerError,
                TakenThenDropped,
                TakenThenDropped,
                HangTaken,
                HangTaken,
                HangUntaken,
                HangUntaken,
                Answer,
                Answer
            ]
        );
        assert_eq!(Faults::default().fate(0.0), Answer);
    }
}
