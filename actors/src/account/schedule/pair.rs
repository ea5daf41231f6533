//! Pace of each pair of an account and a user, by the pair limit of the channel's profile.
//!
//! A pair borrows from the future: one message in each interval, and a burst at once. That is the generic cell rate
//! algorithm, so no window is over the limit. A debt is kept until it is paid: interval times burst at most.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_schemas::id::ContactId;
use heddle_schemas::ports::channel::profile::PairLimit;

/// The pair limit of WhatsApp, for tests.
#[cfg(test)]
pub(crate) const WHATSAPP: PairLimit = PairLimit {
    interval: Duration::from_secs(6),
    burst: std::num::NonZeroU32::new(45).unwrap(),
    pause_base: 4,
};
/// Pairs in memory at which those without a debt are dropped. A number of 1,000/s has 6,000 with a debt of one
/// message, so the map stays below twice that.
const SWEPT_AT: usize = 10_000;

/// Pace of each pair; without a limit every pair is free.
#[derive(Debug, Default)]
pub struct Pairs {
    limit: Option<PairLimit>,
    /// Time at which a user's debt is paid.
    paid_at: BTreeMap<ContactId, Duration>,
    /// Time at which the last debt is paid.
    all_paid_at: Duration,
    /// Size at which the next sweep is worth it.
    sweep_at: usize,
}

impl Pairs {
    /// Pairs without a debt.
    #[must_use]
    pub fn new(limit: Option<PairLimit>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Returns from when on the next message to this user may leave.
    #[must_use]
    pub fn free_at(&self, contact: ContactId) -> Duration {
        let Some(limit) = self.limit else { return Duration::ZERO };
        let borrowed = limit.interval * (limit.burst.get() - 1);
        self.paid_at.get(&contact).map_or(Duration::ZERO, |paid_at| paid_at.saturating_sub(borrowed))
    }

    /// Counts a message that leaves.
    pub fn sent(&mut self, contact: ContactId, now: Duration) {
        let Some(limit) = self.limit else { return };
        if self.paid_at.len() >= self.sweep_at.max(SWEPT_AT) {
            self.paid_at.retain(|_, paid_at| *paid_at > now);
            self.sweep_at = self.paid_at.len() * 2;
        }
        let paid_at = self.paid_at.entry(contact).or_insert(now);
        *paid_at = (*paid_at).max(now) + limit.interval;
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
    fn a_channel_without_a_pair_limit_delays_no_pair() {
        let contact = ContactId::from_bytes([1; 16]);
        let mut pairs = Pairs::new(None);
        (0..1000).for_each(|_| pairs.sent(contact, Duration::from_secs(1)));
        assert_eq!((pairs.free_at(contact), pairs.all_paid_at()), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn a_pair_borrows_45_and_then_waits_six_seconds_each() {
        let contact = ContactId::from_bytes([1; 16]);
        let mut pairs = Pairs::new(Some(WHATSAPP));
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
