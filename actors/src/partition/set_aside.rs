//! Agenda entries that fail for good: set aside with their reason, and retried after a growing pause.
//!
//! The entry's row stays where it is; its value, empty otherwise, holds the reason and the number of failures. So an
//! entry that is set aside survives a restart, which tries it once, and is settled as soon as it succeeds: when an
//! operator has repaired the stored data, or a build that can read it runs again.

use std::time::Duration;

use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// Value of the row of an entry that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Why.
    pub reason: DeadReason,
    /// More about why; no content.
    pub detail: String,
    /// Number of failures.
    pub attempts: u32,
    /// When it failed first.
    pub since: Timestamp,
    /// When it is tried again.
    pub again: Timestamp,
}

impl SetAside {
    /// Sets an entry aside once more; `stored` is the value of its row.
    #[must_use]
    pub fn next(stored: Option<&[u8]>, reason: DeadReason, detail: String, now: Timestamp) -> Self {
        let before = stored.and_then(|stored| serde_json::from_slice::<Self>(stored).ok());
        let (attempts, since) = before.map_or((0, now), |before| (before.attempts, before.since));
        let pause = PAUSES.0.saturating_mul(1 << attempts.min(16)).min(PAUSES.1);
        Self { reason, detail, attempts: attempts.saturating_add(1), since, again: now.after(pause) }
    }
}

#[cfg(test)]
mod tests {
    use heddle_schemas::record::encode;

    use super::*;

    #[test]
    fn the_pause_grows_up_to_an_hour_and_the_first_failure_is_remembered() {
        let mut now = Timestamp::from_secs(100);
        let mut stored = None;
        let mut pauses = Vec::new();
        for _ in 0..40 {
            let next = SetAside::next(stored.as_deref(), DeadReason::Unreadable, "x".into(), now);
            assert_eq!(next.since, Timestamp::from_secs(100));
            pauses.push(next.again.since(now).as_secs());
            now = next.again;
            stored = Some(encode(&next));
        }
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert!(pauses[10..].iter().all(|pause| *pause == 3600));
    }

    #[test]
    fn a_row_that_was_never_set_aside_begins_anew() {
        let next = SetAside::next(Some(b""), DeadReason::TooLarge, String::new(), Timestamp::EPOCH);
        assert_eq!(next.attempts, 1);
    }
}
