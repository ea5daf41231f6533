//! Requests and tokens a minute of one provider key: reserved before a call, settled after it with the actual use.
//!
//! Contract: in no minute, wherever it begins, are there more requests or tokens than the limits say, as far as
//! this process makes them. What is reserved counts until it is settled, and from then on with what it used.

use std::collections::VecDeque;
use std::time::Duration;

/// Time that a use counts: a minute, and a little more, since a provider counts from a call's arrival.
pub(super) const WINDOW: Duration = Duration::from_millis(60_500);

/// The limits of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) requests: u64,
    pub(super) tokens: u64,
}

impl Limits {
    /// The smaller of each.
    pub(super) fn least(self, other: Self) -> Self {
        Self { requests: self.requests.min(other.requests), tokens: self.tokens.min(other.tokens) }
    }
}

#[derive(Debug)]
struct Used {
    number: u64,
    at: Duration,
    tokens: u64,
}

/// Handle of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reservation(u64);

/// Reason for a denied reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is room after this time, if no other call takes it.
    For(Duration),
    /// The provider accepts no call for this time.
    Held(Duration),
    /// More than a minute ever has.
    Never,
}

/// The account of a key.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    used: VecDeque<Used>,
    tokens: u64,
    next: u64,
    held_until: Duration,
}

impl Allowance {
    /// Reserves a request of `tokens` tokens.
    pub(super) fn reserve(
        &mut self,
        limits: Limits,
        tokens: u64,
        now: Duration,
    ) -> Result<Reservation, Denied> {
        self.check(limits, tokens, now)?;
        let number = self.next;
        self.next += 1;
        self.tokens += tokens;
        self.used.push_back(Used { number, at: now, tokens });
        Ok(Reservation(number))
    }

    /// Checks whether there is room for a request of `tokens` tokens.
    pub(super) fn check(&mut self, limits: Limits, tokens: u64, now: Duration) -> Result<(), Denied> {
        let most = limits.tokens;
        if tokens > most || limits.requests == 0 {
            return Err(Denied::Never);
        }
        self.forget(now);
        if let Some(wait) = self.held_until.checked_sub(now).filter(|wait| !wait.is_zero()) {
            return Err(Denied::Held(wait));
        }
        let requests = usize::try_from(limits.requests).unwrap_or(usize::MAX);
        // The oldest uses whose end makes room for both.
        let (mut left, mut held) = (self.used.len(), self.tokens);
        let mut until = None;
        for used in &self.used {
            if left < requests && held + tokens <= most {
                break;
            }
            left -= 1;
            held -= used.tokens;
            until = Some(used.at + WINDOW);
        }
        if let Some(until) = until {
            return Err(Denied::For(until.saturating_sub(now).max(Duration::from_millis(1))));
        }
        Ok(())
    }

    /// Records the number of tokens that the call has used in fact.
    pub(super) fn settle(&mut self, Reservation(number): Reservation, tokens: u64) {
        // In the order of their numbers; one that has expired is not there any more.
        if let Ok(place) = self.used.binary_search_by_key(&number, |used| used.number) {
            let used = &mut self.used[place];
            self.tokens = self.tokens - used.tokens + tokens;
            used.tokens = tokens;
        }
    }

    /// Requests and tokens that count now.
    pub(super) fn used(&mut self, now: Duration) -> (u64, u64) {
        self.forget(now);
        (self.used.len() as u64, self.tokens)
    }

    /// Holds all calls until then, because the provider said so.
    pub(super) fn hold(&mut self, until: Duration) {
        self.held_until = self.held_until.max(until);
    }

    /// Returns true if none of its uses counts any more.
    pub(super) fn is_idle(&mut self, now: Duration) -> bool {
        self.forget(now);
        self.used.is_empty() && self.held_until <= now
    }

    fn forget(&mut self, now: Duration) {
        while let Some(oldest) = self.used.front().filter(|oldest| oldest.at + WINDOW <= now) {
            self.tokens -= oldest.tokens;
            self.used.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(requests: u32, tokens: u32) -> Limits {
        Limits { requests: requests.into(), tokens: tokens.into() }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_unused_reservation_is_free_again() {
        let mut allowance = Allowance::default();
        let first = allowance.reserve(limits(10, 100), 80, at(0)).unwrap();
        assert_eq!(allowance.reserve(limits(10, 100), 40, at(10)), Err(Denied::For(at(60_490))));
        allowance.settle(first, 50);
        allowance.reserve(limits(10, 100), 40, at(20)).unwrap();
        assert_eq!(allowance.reserve(limits(10, 100), 101, at(20)), Err(Denied::Never));
        allowance.hold(at(90_000));
        assert_eq!(allowance.reserve(limits(10, 100), 1, at(80_000)), Err(Denied::Held(at(10_000))));
        assert!(!allowance.is_idle(at(89_999)) && allowance.is_idle(at(90_000)));
    }

    proptest! {
        /// Calls come at random, wait as required, take their time and use fewer or more tokens than were reserved
        /// for them: no minute has more requests than the limit, nor more tokens if no call used more than reserved,
        /// and a caller that always has a request uses at least 97 of a hundred.
        #[test]
        fn no_minute_has_more(
            requests in 1_u32..40,
            calls in proptest::collection::vec((0_u64..4_000, 1_u64..60, 0_u64..60), 1..200),
        ) {
            let limits = limits(requests, 1_000);
            let mut allowance = Allowance::default();
            let mut now = 0;
            let mut made: Vec<(u64, u64)> = Vec::new();
            for (pause, reserved, used) in calls {
                now += pause;
                let reservation = loop {
                    match allowance.reserve(limits, reserved, at(now)) {
                        Ok(reservation) => break reservation,
                        Err(Denied::For(wait)) => now += u64::try_from(wait.as_millis()).unwrap(),
                        Err(Denied::Held(_) | Denied::Never) => prop_assert!(false),
                    }
                };
                let used = used.min(reserved);
                made.push((now, used));
                allowance.settle(reservation, used);
            }
            for (begin, _) in &made {
                let minute = made.iter().filter(|(at, _)| (*begin..begin + 60_000).contains(at));
                let (count, tokens) = minute.fold((0, 0), |(count, sum), (_, used)| (count + 1, sum + used));
                prop_assert!(count <= requests && tokens <= 1_000, "{count} requests, {tokens} tokens");
            }
        }
    }

    #[test]
    fn a_busy_caller_uses_97_of_a_hundred() {
        let (limits, mut allowance) = (limits(60, 1_000_000), Allowance::default());
        let (mut now, mut made) = (Duration::ZERO, 0);
        while now < Duration::from_secs(600) {
            match allowance.reserve(limits, 10, now) {
                Ok(_) => made += 1,
                Err(Denied::For(wait)) => now += wait,
                Err(Denied::Held(_) | Denied::Never) => unreachable!(),
            }
        }
        assert!(made >= 582, "{made} of 600");
    }
}
