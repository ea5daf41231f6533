//! Limits at which a campaign stops by itself: shares of failures and of opt-outs among its last messages.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::state::StopReason;

/// Largest window, in messages.
const MAX_WINDOW: u32 = 100_000;

/// Limits at which a campaign stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopLimits {
    /// Failed messages among the last ones, in percent. 100 turns it off.
    pub failed_percent: u8,
    /// Opt-outs among the last ones, in percent. 100 turns it off.
    pub opted_out_percent: u8,
    /// Number of last messages that are looked at. Fewer never stop it.
    pub of_last: u32,
}

impl Default for StopLimits {
    /// 20 % failed or 3 % opted out of the last 500.
    fn default() -> Self {
        Self { failed_percent: 20, opted_out_percent: 3, of_last: 500 }
    }
}

/// Outcome of a message, as a breaker counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It went out.
    Sent,
    /// The channel refused it for good.
    Failed,
}

/// Last messages of a campaign. Its memory is bounded by the window.
#[derive(Debug, Clone)]
pub struct Breaker {
    limits: StopLimits,
    /// For each of the last messages: whether it failed, and whether its recipient opted out since.
    window: VecDeque<(bool, bool)>,
    failed: u32,
    opted_out: u32,
    /// Number of messages that have left the window.
    gone: u64,
}

impl StopLimits {
    /// Returns every fault, each with its place in the file.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, percent) in
            [("failed_percent", self.failed_percent), ("opted_out_percent", self.opted_out_percent)]
        {
            if !(1..=100).contains(&percent) {
                faults.push(format!("stop.{name}: 1 to 100, not {percent}"));
            }
        }
        if !(1..=MAX_WINDOW).contains(&self.of_last) {
            faults.push(format!("stop.of_last: 1 to {MAX_WINDOW}, not {}", self.of_last));
        }
        faults
    }
}

impl Breaker {
    /// Returns a breaker that has seen nothing.
    #[must_use]
    pub fn new(limits: StopLimits) -> Self {
        Self { limits, window: VecDeque::new(), failed: 0, opted_out: 0, gone: 0 }
    }

    /// Counts a message. Returns its number, for an opt-out that follows it, and the reason to stop, if there is one.
    pub fn count(&mut self, outcome: Counted) -> (u64, Option<StopReason>) {
        let number = self.gone + self.window.len() as u64;
        let failed = outcome == Counted::Failed;
        self.window.push_back((failed, false));
        self.failed += u32::from(failed);
        if self.window.len() > self.limits.of_last.max(1) as usize
            && let Some((failed, opted_out)) = self.window.pop_front()
        {
            self.gone += 1;
            self.failed -= u32::from(failed);
            self.opted_out -= u32::from(opted_out);
        }
        (number, self.reason())
    }

    /// Counts the opt-out of the recipient of a message; one that has left the window counts no more.
    pub fn opted_out(&mut self, number: u64) -> Option<StopReason> {
        let place = usize::try_from(number.checked_sub(self.gone)?).ok()?;
        let (_, opted_out) = self.window.get_mut(place)?;
        if !std::mem::replace(opted_out, true) {
            self.opted_out += 1;
        }
        self.reason()
    }

    fn reason(&self) -> Option<StopReason> {
        let of = self.limits.of_last.max(1);
        if (self.window.len() as u64) < u64::from(of) {
            return None;
        }
        let percent = |count: u32| u8::try_from(u64::from(count) * 100 / u64::from(of)).unwrap_or(100);
        let is_over =
            |count: u32, limit: u8| limit < 100 && u64::from(count) * 100 > u64::from(limit) * u64::from(of);
        if is_over(self.failed, self.limits.failed_percent) {
            return Some(StopReason::Failures { percent: percent(self.failed) });
        }
        is_over(self.opted_out, self.limits.opted_out_percent)
            .then(|| StopReason::OptOuts { percent: percent(self.opted_out) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(failed_percent: u8, opted_out_percent: u8, of_last: u32) -> StopLimits {
        StopLimits { failed_percent, opted_out_percent, of_last }
    }

    #[test]
    fn more_failures_than_the_limit_among_the_last_messages_stop_it() {
        let mut breaker = Breaker::new(limits(20, 100, 10));
        for _ in 0..8 {
            assert_eq!(breaker.count(Counted::Sent).1, None);
        }
        assert_eq!(breaker.count(Counted::Failed).1, None);
        assert_eq!(breaker.count(Counted::Failed).1, None, "20 % is the limit");
        assert_eq!(breaker.count(Counted::Failed).1, Some(StopReason::Failures { percent: 30 }));
    }

    #[test]
    fn opt_outs_count_once_each_while_their_message_is_among_the_last() {
        let mut breaker = Breaker::new(limits(100, 10, 10));
        let numbers: Vec<_> = (0..10).map(|_| breaker.count(Counted::Sent).0).collect();
        assert_eq!(breaker.opted_out(numbers[0]), None);
        assert_eq!(breaker.opted_out(numbers[0]), None, "the same person again");
        assert_eq!(breaker.opted_out(numbers[1]), Some(StopReason::OptOuts { percent: 20 }));
        breaker.count(Counted::Sent);
        assert_eq!(breaker.opted_out(numbers[0]), None, "it has left the window");
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_the_window(
            events in proptest::collection::vec((any::<bool>(), proptest::option::of(0_u64..60)), 0..60),
            of_last in 1_u32..12,
        ) {
            let mut breaker = Breaker::new(limits(100, 100, of_last));
            let mut all: Vec<(bool, bool)> = Vec::new();
            for (failed, opted_out) in events {
                breaker.count(if failed { Counted::Failed } else { Counted::Sent });
                all.push((failed, false));
                if let Some(number) = opted_out.filter(|number| *number < all.len() as u64) {
                    breaker.opted_out(number);
                    let first = all.len().saturating_sub(of_last as usize);
                    if number as usize >= first {
                        all[number as usize].1 = true;
                    }
                }
                let last = &all[all.len().saturating_sub(of_last as usize)..];
                prop_assert_eq!(breaker.failed as usize, last.iter().filter(|(failed, _)| *failed).count());
                prop_assert_eq!(breaker.opted_out as usize, last.iter().filter(|(_, out)| *out).count());
            }
        }
    }
}
