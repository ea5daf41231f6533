//! Invariants of the engine, each defined once: the simulation asserts them, production counts violations.
//!
//! A check is a pure function of observed facts. The engine makes it where the fact is at hand and reports a violation
//! to [`Metrics::check`](crate::metrics::Metrics::check), which counts it in `heddle_invariant_violations_total` and
//! logs it; the simulation makes the same checks over everything that left the engine, and expects the counters of
//! every node to be 0.
//!
//! A violation is a defect of the engine. It is counted, alerted and, where that protects a person or tenant, refused;
//! it never stops a node.

use std::time::Duration;

use heddle_schemas::topic::Offset;

/// Times that one turn may call its model or one of its tools: once, and once more where a crash left a call without a
/// result.
pub const CALLS_PER_TURN: u32 = 2;

/// A promise of the engine (design, I1 to I9) that is checked while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// I1: the records of a partition are delivered in the order of their offsets.
    Order,
    /// I3: nothing is decided, paid or sent twice.
    OneEffect,
    /// I5: a tenant spends no more than its quota.
    Quota,
    /// I6: an account sends no faster than its channel allows.
    Limits,
    /// I8: nothing is sent against an opt-out or outside the window.
    Consent,
    /// I9: memory stays within its bounds.
    Bounds,
}

impl Invariant {
    /// Every invariant, in the order of the design.
    pub const ALL: [Self; 6] =
        [Self::Order, Self::OneEffect, Self::Quota, Self::Limits, Self::Consent, Self::Bounds];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::OneEffect => "one_effect",
            Self::Quota => "quota",
            Self::Limits => "limits",
            Self::Consent => "consent",
            Self::Bounds => "bounds",
        }
    }
}

/// I1: a record follows the one delivered before it. Offsets rise; gaps are records that were done before.
#[must_use]
pub fn is_in_order(before: Option<Offset>, next: Offset) -> bool {
    before.is_none_or(|before| before < next)
}

/// I3: a turn was called so often and no more. Each call beyond the first needs an interruption of its own, and policy
/// ends after [`CALLS_PER_TURN`].
#[must_use]
pub fn are_calls_allowed(calls: u32, interruptions: u32) -> bool {
    calls <= CALLS_PER_TURN && calls <= interruptions.saturating_add(1)
}

/// I5: a tenant has spent no more than its limit. Without a limit there is none to break.
#[must_use]
pub fn is_within_quota(spent: u64, limit: Option<u64>) -> bool {
    limit.is_none_or(|limit| spent <= limit)
}

/// I6: a call leaves no sooner than a window after the one that left as many calls before as a window may hold.
#[must_use]
pub fn is_paced(limit_before: Option<Duration>, now: Duration, window: Duration) -> bool {
    limit_before.is_none_or(|before| now.saturating_sub(before) >= window)
}

/// I6: no window of `window` holds more than `limit` of these times, which are sorted.
#[must_use]
pub fn is_within_limit(times: &[Duration], limit: usize, window: Duration) -> bool {
    times.windows(limit.saturating_add(1)).all(|few| is_paced(few.first().copied(), few[limit], window))
}

/// I8: consent and window were checked no longer than `bound` before the call left.
#[must_use]
pub fn is_check_fresh(checked_at: Duration, left_at: Duration, bound: Duration) -> bool {
    left_at.saturating_sub(checked_at) <= bound
}

/// I9: records in work stay within the permits of a partition.
#[must_use]
pub fn are_permits_kept(in_work: usize, permits: usize) -> bool {
    in_work <= permits
}

/// I9: entities in memory stay within the bound of a partition. One at work is not retired, so there may be one more
/// for each record in work and for each entry of the agenda that is being woken.
#[must_use]
pub fn are_entities_bounded(entities: usize, bound: usize, permits: usize, woken: usize) -> bool {
    entities <= bound.saturating_add(permits).saturating_add(woken).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn offsets_rise() {
        assert!(is_in_order(None, 0) && is_in_order(Some(3), 7));
        assert!(!is_in_order(Some(7), 7) && !is_in_order(Some(7), 3));
    }

    #[test]
    fn a_second_call_needs_an_interruption_and_a_third_is_never_allowed() {
        assert!(are_calls_allowed(1, 0) && are_calls_allowed(2, 1));
        assert!(!are_calls_allowed(2, 0) && !are_calls_allowed(3, 9));
    }

    #[test]
    fn a_window_holds_the_limit_and_not_one_more() {
        let at = |millis: &[u64]| millis.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert!(is_within_limit(&at(&[0, 10, 1000, 1010]), 2, SECOND));
        assert!(!is_within_limit(&at(&[0, 10, 999]), 2, SECOND));
        assert!(is_within_limit(&[], 1, SECOND));
    }

    #[test]
    fn a_check_is_fresh_up_to_its_bound() {
        assert!(is_check_fresh(SECOND, 2 * SECOND, SECOND) && !is_check_fresh(SECOND, 3 * SECOND, SECOND));
    }

    #[test]
    fn spending_ends_at_the_limit() {
        assert!(is_within_quota(5, Some(5)) && is_within_quota(u64::MAX, None));
        assert!(!is_within_quota(6, Some(5)));
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> =
            Invariant::ALL.map(Invariant::as_str).into_iter().collect();
        assert_eq!(names.len(), Invariant::ALL.len());
    }
}
