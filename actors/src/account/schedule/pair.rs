//! Pace of each pair of a number and a user.
//!
//! A pair borrows from the future: one message in six seconds, up to 45 at once
//! (<https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput>, "pair rate limits"). That is the
//! generic cell rate algorithm, so no window is over the limit. A debt is kept until it is paid, 270 s at most.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_schemas::id::ContactId;

/// One message to one user in this time.
const INTERVAL: Duration = Duration::from_secs(6);
/// Messages to one user at once, borrowed from the future.
const BURST: u32 = 45;
/// Pairs in memory at which those without a debt are dropped. A number of 1,000/s has 6,000 with a debt of one
/// message, so the map stays below twice that.
const SWEPT_AT: usize = 10_000;

/// Pace of each pair.
#[derive(Debug, Default)]
pub struct Pairs {
    /// When the debt of a user is paid.
    paid_at: BTreeMap<ContactId, Duration>,
    /// When the last debt is paid.
    all_paid_at: Duration,
    /// Size at which the next sweep is worth it.
    sweep_at: usize,
}

impl Pairs {
    /// Returns from when on the next message to this user may leave.
    #[must_use]
    pub fn free_at(&self, contact: ContactId) -> Duration {
        let borrowed = INTERVAL * (BURST - 1);
        self.paid_at.get(&contact).map_or(Duration::ZERO, |paid_at| paid_at.saturating_sub(borrowed))
    }

    /// Counts a message that leaves.
    pub fn sent(&mut self, contact: ContactId, now: Duration) {
        if self.paid_at.len() >= self.sweep_at.max(SWEPT_AT) {
            self.paid_at.retain(|_, paid_at| *paid_at > now);
            self.sweep_at = self.paid_at.len() * 2;
        }
        let paid_at = self.paid_at.entry(contact).or_insert(now);
        *paid_at = (*paid_at).max(now) + INTERVAL;
        self.all_paid_at = self.all_paid_at.max(*paid_at);
    }

    /// Returns when the last debt is paid; before that, forgetting the pairs would allow a second burst.
    #[must_use]
    pub fn all_paid_at(&self) -> Duration {
        self.all_paid_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_borrows_45_and_then_waits_six_seconds_each() {
        let contact = ContactId::from_bytes([1; 16]);
        let mut pairs = Pairs::default();
        let now = Duration::from_secs(1000);
        let mut burst = 0;
        while pairs.free_at(contact) <= now {
            pairs.sent(contact, now);
            burst += 1;
        }
        assert_eq!(burst, 45);
        assert_eq!(pairs.free_at(contact), now + Duration::from_secs(6));
        assert_eq!(pairs.free_at(ContactId::from_bytes([2; 16])), Duration::ZERO, "others are free");
        assert_eq!(pairs.all_paid_at(), now + Duration::from_secs(270));
    }
}
