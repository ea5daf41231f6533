//! Limits of a key in any minute, and the counting of tokens.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::Duration;

/// Period of the limits.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Maximum use of a key in any minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub requests: NonZeroU64,
    /// Tokens, sent and received.
    pub tokens: NonZeroU64,
}

/// Counting of tokens. With the defaults a prompt never has more than one for three bytes and eight a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// Bytes of text per token; a remainder is one more. Default 4.
    pub bytes: NonZeroU64,
    /// Tokens of a message in addition to its text. Default 4.
    pub message: u64,
    /// Fixed tokens of an answer; `None` (the default) counts its text.
    pub answer: Option<u64>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { bytes: const { NonZeroU64::new(4).unwrap() }, message: 4, answer: None }
    }
}

impl Tokens {
    /// Returns the tokens of a text, without those of its message.
    pub(super) fn of(&self, text: &str) -> u64 {
        (text.len() as u64).div_ceil(self.bytes.get())
    }
}

/// Limit that a call exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Requests,
    Tokens,
}

/// Calls counted in the past minute.
#[derive(Debug, Default)]
pub(super) struct Window {
    counted: VecDeque<(Duration, u64)>,
    tokens: u64,
}

impl Window {
    /// Counts a call of `tokens`, or returns the limit that it exceeds. Times are monotonic.
    pub(super) fn admit(&mut self, limits: &Limits, tokens: u64, now: Duration) -> Result<(), Over> {
        while let Some((_, gone)) = self.counted.pop_front_if(|(at, _)| *at + MINUTE <= now) {
            self.tokens -= gone;
        }
        if self.counted.len() as u64 + 1 > limits.requests.get() {
            return Err(Over::Requests);
        }
        if self.tokens + tokens > limits.tokens.get() {
            return Err(Over::Tokens);
        }
        self.tokens += tokens;
        self.counted.push_back((now, tokens));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: u64, tokens: u64) -> Limits {
        Limits { requests: requests.try_into().unwrap(), tokens: tokens.try_into().unwrap() }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_minute_that_begins_anywhere_has_no_more_than_the_limits() {
        let (mut window, limits) = (Window::default(), limits(3, 100));
        let mut admit = |tokens, at| window.admit(&limits, tokens, at);
        // Counted by hand: three requests and 90 tokens from 0 s to 59.999 s.
        assert_eq!(admit(40, secs(0)), Ok(()));
        assert_eq!(admit(30, secs(30)), Ok(()));
        assert_eq!(admit(20, secs(59)), Ok(()));
        assert_eq!(admit(1, Duration::from_millis(59_999)), Err(Over::Requests));
        // At 60 s the first is out: two requests and 50 tokens are left, and 50 more fit, not 51.
        assert_eq!(admit(51, secs(60)), Err(Over::Tokens));
        assert_eq!(admit(50, secs(60)), Ok(()));
        // The second goes at 90 s, the third at 119 s: what was refused has taken nothing.
        assert_eq!(admit(1, secs(89)), Err(Over::Requests));
        assert_eq!(admit(30, secs(90)), Ok(()));
        assert_eq!(admit(21, secs(119)), Err(Over::Tokens));
        assert_eq!(admit(20, secs(119)), Ok(()));
    }
}
