//! Limits of one contact: what it has used this hour of models and tools, and its appointments that are still to come.
//!
//! A stranger who writes without end spends neither the tenant's month nor its calendar. Turns that call nothing
//! outside cost nothing and are not limited. The counts are in the head of the conversation, so they change with each
//! decision and outlive crashes; each channel account of a tenant counts by itself.

use std::time::Duration;

use heddle_schemas::tenant::PerContact;
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Window of the counts.
const HOUR: Duration = Duration::from_secs(3_600);
/// Appointments that are remembered.
const BOOKINGS: usize = 64;

/// Use by one contact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactUsage {
    /// Begin of the hour that is counted: the first use after the hour before.
    since: Timestamp,
    turns: u32,
    tokens: u64,
    tool_calls: u32,
    /// The customer was answered this hour that it is over a limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    said: bool,
    /// Ends of appointments, at most [`BOOKINGS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bookings: Vec<Timestamp>,
}

/// Use by one turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TurnUsage {
    /// True when a model was called.
    pub is_outside: bool,
    /// Tokens, sent and received.
    pub tokens: u64,
    /// Calls of tools.
    pub tool_calls: u32,
    /// Ends of appointments that were booked.
    pub booked: Vec<Timestamp>,
    /// True when the turn was over a limit.
    pub is_limited: bool,
}

/// A contact over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// The fallback is said.
    Fallback,
    /// It was said this hour; nothing is.
    Silence,
}

/// Allowance of a contact that is left for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Calls of tools.
    pub tool_calls: usize,
    /// Appointments.
    pub bookings: usize,
}

impl ContactUsage {
    /// Returns the use of a contact that has used nothing.
    pub(super) fn none() -> &'static Self {
        static NONE: ContactUsage = ContactUsage {
            since: Timestamp::EPOCH,
            turns: 0,
            tokens: 0,
            tool_calls: 0,
            said: false,
            bookings: Vec::new(),
        };
        &NONE
    }

    fn is_of(&self, now: Timestamp) -> bool {
        now.since(self.since) < HOUR
    }

    /// Decides whether a turn that would call a model is over a limit.
    #[must_use]
    pub fn limited(&self, now: Timestamp, limits: &PerContact) -> Option<Limited> {
        let is_over = |used: u64, limit: u64| limit > 0 && used >= limit;
        let is_limited = self.is_of(now)
            && (is_over(self.turns.into(), limits.turns_per_hour.into())
                || is_over(self.tokens, limits.tokens_per_hour));
        is_limited.then_some(if self.said { Limited::Silence } else { Limited::Fallback })
    }

    /// Returns what is left for a turn that begins now.
    #[must_use]
    pub fn left(&self, now: Timestamp, limits: &PerContact) -> Left {
        let used = if self.is_of(now) { self.tool_calls } else { 0 };
        let left = |limit: u32, used: usize| match limit {
            0 => usize::MAX,
            limit => (limit as usize).saturating_sub(used),
        };
        let open = self.bookings.iter().filter(|end| **end > now).count();
        Left {
            tool_calls: left(limits.tool_calls_per_hour, used as usize),
            bookings: left(limits.open_bookings, open).min(BOOKINGS.saturating_sub(open)),
        }
    }

    /// Counts a decided turn.
    pub fn decided(&mut self, turn: TurnUsage, now: Timestamp) {
        if !self.is_of(now) {
            (self.since, self.turns, self.tokens, self.tool_calls, self.said) = (now, 0, 0, 0, false);
        }
        self.turns = self.turns.saturating_add(turn.is_outside.into());
        self.tokens = self.tokens.saturating_add(turn.tokens);
        self.tool_calls = self.tool_calls.saturating_add(turn.tool_calls);
        self.said |= turn.is_limited;
        self.bookings.retain(|end| *end > now);
        self.bookings.extend(turn.booked);
        self.bookings.truncate(BOOKINGS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PerContact =
        PerContact { turns_per_hour: 3, tokens_per_hour: 1_000, tool_calls_per_hour: 5, open_bookings: 2 };
    const NONE: PerContact =
        PerContact { turns_per_hour: 0, tokens_per_hour: 0, tool_calls_per_hour: 0, open_bookings: 0 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_767_225_600 + seconds)
    }

    fn turn(tokens: u64, tool_calls: u32) -> TurnUsage {
        TurnUsage { is_outside: true, tokens, tool_calls, ..TurnUsage::default() }
    }

    #[test]
    fn a_contact_over_a_limit_hears_so_once_an_hour_and_then_nothing() {
        let mut usage = ContactUsage::default();
        for second in 0..3 {
            assert_eq!(usage.limited(at(second), &LIMITS), None);
            usage.decided(turn(10, 0), at(second));
        }
        assert_eq!(usage.limited(at(3), &LIMITS), Some(Limited::Fallback));
        assert_eq!(usage.limited(at(3), &NONE), None);
        usage.decided(TurnUsage { is_limited: true, ..TurnUsage::default() }, at(3));
        assert_eq!(usage.limited(at(4), &LIMITS), Some(Limited::Silence));
        assert_eq!(usage.limited(at(3_599), &LIMITS), Some(Limited::Silence));
        assert_eq!(usage.limited(at(3_600), &LIMITS), None, "the next hour");
        usage.decided(turn(1_000, 0), at(3_600));
        assert_eq!(usage.limited(at(3_601), &LIMITS), Some(Limited::Fallback), "tokens");
    }

    #[test]
    fn tools_and_appointments_are_what_is_left() {
        let mut usage = ContactUsage::default();
        assert_eq!(usage.left(at(0), &LIMITS), Left { tool_calls: 5, bookings: 2 });
        usage.decided(TurnUsage { booked: vec![at(86_400)], ..turn(1, 4) }, at(0));
        assert_eq!(usage.left(at(1), &LIMITS), Left { tool_calls: 1, bookings: 1 });
        usage.decided(TurnUsage { booked: vec![at(7_200)], ..turn(1, 4) }, at(2));
        assert_eq!(usage.left(at(3), &LIMITS), Left { tool_calls: 0, bookings: 0 });
        assert_eq!(usage.left(at(3_601), &LIMITS), Left { tool_calls: 5, bookings: 0 }, "the next hour");
        assert_eq!(usage.left(at(7_201), &LIMITS).bookings, 1, "one is over");
        assert_eq!(usage.left(at(3), &NONE).tool_calls, usize::MAX);
    }
}
