//! Injected faults of a provider of language models, and their choice.

use std::time::Duration;

/// Frequency of each fault. Shares are of all calls within the limits; their sum is at most 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// Share answered with 429 and a `Retry-After` though it is within the limits.
    pub rate_limited: f64,
    /// The `Retry-After` of those, in whole seconds.
    pub retry_after: Duration,
    /// Share answered with 500.
    pub server_error: f64,
    /// Share that hangs, and is then closed without an answer.
    pub hang: f64,
    /// Duration of a hang.
    pub hang_for: Duration,
    /// Share answered with a body that breaks off in the middle.
    pub truncated: f64,
}

impl Default for Faults {
    /// Returns no faults.
    fn default() -> Self {
        Self {
            rate_limited: 0.0,
            retry_after: Duration::from_secs(1),
            server_error: 0.0,
            hang: 0.0,
            hang_for: Duration::from_secs(60),
            truncated: 0.0,
        }
    }
}

/// Fate of a call within the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Answer,
    RateLimited,
    ServerError,
    Hang,
    Truncated,
}

impl Faults {
    /// Returns the fate of a call for the draw `roll`, a number from 0 to 1.
    pub(super) fn fate(&self, roll: f64) -> Fate {
        let mut end = 0.0;
        for (share, fate) in [
            (self.rate_limited, Fate::RateLimited),
            (self.server_error, Fate::ServerError),
            (self.hang, Fate::Hang),
            (self.truncated, Fate::Truncated),
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
    fn shares_of_faults_follow_one_another() {
        let faults = Faults { rate_limited: 0.1, hang: 0.2, truncated: 0.2, ..Faults::default() };
        let fates = [0.0, 0.09, 0.11, 0.29, 0.31, 0.49, 0.51].map(|roll| faults.fate(roll));
        use Fate::{Answer, Hang, RateLimited, Truncated};
        assert_eq!(fates, [RateLimited, RateLimited, Hang, Hang, Truncated, Truncated, Answer]);
        assert_eq!(Faults::default().fate(0.0), Answer);
    }
}
