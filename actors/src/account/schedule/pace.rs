//! Pace of a number: an exact sliding window over sent and received messages.
//!
//! The channel counts a number's messages in and out together, by the second
//! (<https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput>). [`Pace`] keeps the times of the
//! last `limit` of them: the next call may leave when the time that lies `limit` back has left the window. A call is
//! charged when it leaves. Messages received more than a window ago no longer count, and a late timer loses nothing,
//! since several calls may then leave at once.
//!
//! The window is a little longer than a second, so that a network that bunches calls stays within the limit, and
//! calls leave spread over it instead of all at its beginning.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

/// Window in which at most `limit` messages are sent and received: a second, and a margin for a network that delays
/// one call more than the next.
pub const WINDOW: Duration = Duration::from_millis(1_015);
/// Share by which a number that has saved up room sends faster than its limit until the room is used: 1 in 8.
const CATCH_UP: u32 = 8;
/// Lateness of a timer that costs nothing.
const LATE: Duration = Duration::from_millis(20);

/// Pace of a number.
#[derive(Debug)]
pub struct Pace {
    limit: NonZeroU32,
    /// Times of sent and received messages, in order; at most `limit`, and none older than a window.
    times: VecDeque<Duration>,
    /// Due time of the next call if calls leave evenly.
    even_at: Duration,
}

impl Pace {
    /// Returns a pace with no saved allowance at `now`: the previous owner of the number may have used all of its
    /// limit.
    #[must_use]
    pub fn new(limit: NonZeroU32, now: Duration) -> Self {
        let mut pace = Self { limit, times: VecDeque::new(), even_at: now };
        pace.start(now);
        pace
    }

    fn start(&mut self, now: Duration) {
        let limit = self.limit.get();
        self.times.clear();
        for number in 0..limit {
            let before = WINDOW * (limit - 1 - number) / limit;
            // Before the start of the clock nothing was sent.
            if let Some(at) = now.checked_sub(before) {
                self.times.push_back(at);
            }
        }
    }

    /// Limit in messages a second.
    #[must_use]
    pub fn limit(&self) -> NonZeroU32 {
        self.limit
    }

    /// Changes the limit. Messages that were counted stay counted.
    pub fn set(&mut self, limit: NonZeroU32) {
        self.limit = limit;
        self.trim();
    }

    /// Returns when the next call may leave; it may be over already.
    #[must_use]
    pub fn free_at(&self) -> Duration {
        let full = self.times.len().checked_sub(self.limit.get() as usize);
        let window = full.and_then(|first| self.times.get(first)).map_or(Duration::ZERO, |at| *at + WINDOW);
        window.max(self.even_at.saturating_sub(LATE))
    }

    /// Counts a call that leaves.
    pub fn sent(&mut self, now: Duration) {
        let interval = WINDOW / self.limit.get();
        let interval = interval - interval / CATCH_UP;
        self.even_at = self.even_at.max(now.saturating_sub(LATE)) + interval;
        self.count(now);
    }

    /// Counts messages received at `at`. They use the same limit and cannot be delayed.
    pub fn received(&mut self, messages: u32, at: Duration) {
        for _ in 0..messages.min(self.limit.get()) {
            self.count(at);
        }
    }

    fn count(&mut self, at: Duration) {
        // A result is reported a little later than it came.
        let place = self.times.iter().rposition(|time| *time <= at).map_or(0, |last| last + 1);
        self.times.insert(place, at);
        self.trim();
    }

    fn trim(&mut self) {
        while self.times.len() > self.limit.get() as usize {
            self.times.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(messages: u32) -> NonZeroU32 {
        NonZeroU32::new(messages).unwrap()
    }

    /// Sends as much as allowed at each wake-up until `end`; wake-ups come `late` after they are due.
    fn always_sending(pace: &mut Pace, mut now: Duration, end: Duration, late: Duration) -> Vec<Duration> {
        let mut sent = Vec::new();
        while now < end {
            while pace.free_at() <= now {
                pace.sent(now);
                sent.push(now);
            }
            now = pace.free_at().max(now) + late;
        }
        sent
    }

    fn fullest_window(times: &[Duration]) -> usize {
        let within =
            |first: usize| times[first..].iter().take_while(|at| **at < times[first] + SECOND).count();
        (0..times.len()).map(within).max().unwrap_or(0)
    }

    #[test]
    fn late_timers_cost_nothing_and_no_window_is_over_the_limit() {
        let start = Duration::from_secs(100);
        for limit in [5, 20, 80, 250, 1_000] {
            for late in [Duration::ZERO, Duration::from_millis(1), Duration::from_micros(1_700)] {
                let mut pace = Pace::new(rate(limit), start);
                let sent = always_sending(&mut pace, start, start + 30 * SECOND, late);
                let allowed = limit as usize * 30;
                assert!(
                    sent.len() * 100 >= allowed * 97,
                    "{limit}/s, {late:?} late: {} of {allowed}",
                    sent.len()
                );
                assert!(fullest_window(&sent) <= limit as usize, "{limit}/s: {}", fullest_window(&sent));
            }
        }
    }

    #[test]
    fn calls_are_spread_over_the_second() {
        let start = Duration::from_secs(100);
        let mut pace = Pace::new(rate(80), start);
        pace.sent(start);
        let start = start + 60 * SECOND;
        let sent = always_sending(&mut pace, start, start + 10 * SECOND, Duration::from_millis(1));
        for from in &sent {
            let at_once = sent.iter().filter(|at| (*from..*from + SECOND / 10).contains(at)).count();
            assert!(at_once <= 13, "{at_once} within a tenth of a second at 80/s");
        }
    }

    #[test]
    fn messages_received_more_than_a_second_ago_no_longer_count() {
        let mut pace = Pace::new(rate(80), Duration::ZERO);
        let start = Duration::from_secs(100);
        for number in 0..1_200 {
            pace.received(1, start + Duration::from_micros(number * 333));
        }
        let end = start + Duration::from_millis(400);
        assert!(pace.free_at() > end, "all of the second is used");
        assert!(pace.free_at() <= end + Duration::from_millis(1_050), "{:?}", pace.free_at() - end);
    }

    #[test]
    fn received_messages_are_left_out_of_the_budget() {
        let start = Duration::from_secs(100);
        let mut pace = Pace::new(rate(80), Duration::ZERO);
        let (mut all, mut sent, mut now) = (Vec::new(), Vec::new(), start);
        for tenth in 1..=300 {
            pace.received(4, now);
            all.extend([now; 4]);
            let end = start + SECOND * tenth / 10;
            let leave = always_sending(&mut pace, now, end, Duration::from_millis(1));
            all.extend(&leave);
            sent.extend(leave);
            now = end;
        }
        // The channel refuses a call that finds the second used up; it refuses no received message.
        for at in &sent {
            let used = all.iter().filter(|other| **other <= *at && **other + SECOND > *at).count();
            assert!(used <= 80, "{used} when a call left");
        }
        assert!(sent.len() * 100 >= 40 * 30 * 97, "{} of 1200", sent.len());
    }

    #[test]
    fn a_new_owner_has_nothing_saved_up() {
        let start = Duration::from_secs(100);
        let mut pace = Pace::new(rate(80), start);
        let sent = always_sending(&mut pace, start, start + SECOND / 2, Duration::from_millis(1));
        assert!(sent.len() <= 42, "{}", sent.len());
    }

    #[test]
    fn a_lower_limit_counts_what_was_sent_under_the_higher_one() {
        let start = Duration::from_secs(100);
        let mut pace = Pace::new(rate(80), Duration::ZERO);
        let sent = always_sending(&mut pace, start, start + SECOND / 2, Duration::ZERO);
        pace.set(rate(10));
        assert_eq!(pace.free_at(), sent[sent.len() - 10] + WINDOW);
    }

    proptest! {
        /// For calls at random times, stalls and messages in between: no window of a second holds more than the limit,
        /// as long as received messages alone do not.
        #[test]
        fn no_window_of_a_second_holds_more_than_the_limit(
            limit in 2_u32..100,
            steps in proptest::collection::vec((0_u64..40_000, prop::bool::weighted(0.1), prop::bool::weighted(0.02)), 1..600),
        ) {
            let mut now = Duration::from_secs(10);
            let mut pace = Pace::new(rate(limit), now);
            let mut all = Vec::new();
            for (micros, comes_in, stalls) in steps {
                now += Duration::from_micros(micros) + if stalls { SECOND / 2 } else { Duration::ZERO };
                let recent = all.iter().rev().take_while(|at| **at + SECOND > now).count();
                if comes_in && recent < limit as usize {
                    pace.received(1, now);
                    all.push(now);
                }
                while pace.free_at() <= now {
                    pace.sent(now);
                    all.push(now);
                }
            }
            prop_assert!(fullest_window(&all) <= limit as usize, "{} in a second", fullest_window(&all));
        }
    }
}
