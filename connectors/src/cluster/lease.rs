//! Lease of one partition as its owner sees it: its end, and its write timestamps.
//!
//! A lease is counted by a clock that runs on during suspension and began before the lease was written, so it
//! expires here no later than for any other node. Write timestamps come from a block that was reserved in the
//! ownership's row, and the next owner's block begins behind it: whatever the clocks say, and however late a
//! write of the previous owner arrives, it loses against the new one's. Within a block a timestamp is the time
//! where that is not behind the last one, so that timestamps stay near real time, as compaction needs.

use std::time::Duration;

use heddle_schemas::time::Timestamp;

/// Microseconds ahead of now for which timestamps are reserved: longer than any lease, less than the lead that
/// ScyllaDB accepts of timestamps in the future.
pub(super) const BLOCK: i64 = 10_000_000;
/// Minimum number of timestamps that are left after a renewal, also if the clock is behind the block.
const LEFT: i64 = BLOCK / 2;

/// Reason for not giving a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The lease has run out and is not renewed yet.
    Expired,
    /// The block is used up; the next renewal reserves more.
    UsedUp,
}

/// An ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// The number of the ownership.
    pub(super) epoch: u64,
    /// Until when it holds, by the running clock.
    until: Duration,
    /// Last timestamp that was used.
    last: i64,
    /// Last timestamp that may be used.
    end: i64,
}

impl Lease {
    /// Creates the lease of an ownership taken over from one whose block ended at `before`.
    pub(super) fn taken(epoch: u64, until: Duration, before: i64, end: i64) -> Self {
        Self { epoch, until, last: before, end }
    }

    /// Returns true if the lease holds now.
    pub(super) fn holds(&self, elapsed: Duration) -> bool {
        elapsed < self.until
    }

    /// The next write timestamp.
    pub(super) fn timestamp(&mut self, now: Timestamp, elapsed: Duration) -> Result<i64, Refusal> {
        if !self.holds(elapsed) {
            return Err(Refusal::Expired);
        }
        if self.last >= self.end {
            return Err(Refusal::UsedUp);
        }
        self.last = now.as_micros().clamp(self.last + 1, self.end);
        Ok(self.last)
    }

    /// The end of the block that the next renewal reserves.
    pub(super) fn next_end(&self, now: Timestamp) -> i64 {
        self.end.max(now.as_micros() + BLOCK).max(self.last + LEFT)
    }

    /// Records a renewal.
    pub(super) fn renewed(&mut self, until: Duration, end: i64) {
        self.until = self.until.max(until);
        self.end = self.end.max(end);
    }

    /// Last timestamp that was used: the next owner's block may begin behind it after an orderly end.
    pub(super) fn last(&self) -> i64 {
        self.last
    }
}

/// The end of a new owner's first block, behind one that ended at `before`.
pub(super) fn first_end(now: Timestamp, before: i64) -> i64 {
    (now.as_micros() + BLOCK).max(before + LEFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lease_that_ran_out_gives_no_timestamp_until_it_is_renewed() {
        let mut lease = Lease::taken(1, Duration::from_secs(10), 0, 100);
        let now = Timestamp::from_micros(5);
        assert_eq!(lease.timestamp(now, Duration::from_secs(9)), Ok(5));
        assert_eq!(lease.timestamp(now, Duration::from_secs(10)), Err(Refusal::Expired));
        lease.renewed(Duration::from_secs(20), 100);
        assert_eq!(lease.timestamp(now, Duration::from_secs(10)), Ok(6));
    }

    #[test]
    fn a_block_ends_also_when_the_clock_runs_ahead() {
        let mut lease = Lease::taken(1, Duration::MAX, 0, 2);
        let far = Timestamp::from_secs(100);
        assert_eq!(lease.timestamp(far, Duration::ZERO), Ok(2));
        assert_eq!(lease.timestamp(far, Duration::ZERO), Err(Refusal::UsedUp));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write { skew: i64 },
        Renew { skew: i64 },
        TakeOver { skew: i64, orderly: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        let skew = -60_000_000_i64..60_000_000;
        prop_oneof![
            6 => skew.clone().prop_map(|skew| Step::Write { skew }),
            2 => skew.clone().prop_map(|skew| Step::Renew { skew }),
            1 => (skew, any::<bool>()).prop_map(|(skew, orderly)| Step::TakeOver { skew, orderly }),
        ]
    }

    proptest! {
        /// Owners follow each other with clocks that are up to a minute off and jump, and every previous owner
        /// goes on writing: none of its timestamps ever reaches one of a later owner.
        #[test]
        fn no_previous_owner_ever_wins(steps in proptest::collection::vec(step(), 1..200)) {
            let mut real = 1_000_000_000_000_i64;
            let first = first_end(Timestamp::from_micros(real), 0);
            let mut stored_end = first;
            let mut owners = vec![(Lease::taken(1, Duration::MAX, 0, first), Vec::<i64>::new())];
            for step in steps {
                real += 50_000;
                let now = |skew: i64| Timestamp::from_micros(real + skew);
                match step {
                    Step::Write { skew } => {
                        for (owner, written) in &mut owners {
                            written.extend(owner.timestamp(now(skew), Duration::ZERO));
                        }
                    }
                    Step::Renew { skew } => {
                        let (owner, _) = owners.last_mut().unwrap();
                        let end = owner.next_end(now(skew));
                        prop_assert!(end >= stored_end);
                        stored_end = end;
                        owner.renewed(Duration::MAX, end);
                    }
                    Step::TakeOver { skew, orderly } => {
                        let (owner, _) = owners.last().unwrap();
                        if orderly {
                            stored_end = owner.last();
                            // An owner that has released writes no more.
                            owners.last_mut().unwrap().0.end = stored_end;
                        }
                        let end = first_end(now(skew), stored_end);
                        let epoch = owners.len() as u64 + 1;
                        owners.push((Lease::taken(epoch, Duration::MAX, stored_end, end), Vec::new()));
                        stored_end = end;
                    }
                }
            }
            for pair in owners.windows(2) {
                let (before, after) = (&pair[0].1, &pair[1].1);
                prop_assert!(before.is_sorted_by(|a, b| a < b));
                if let (Some(last), Some(first)) = (before.last(), after.first()) {
                    prop_assert!(last < first, "{last} {first}");
                }
            }
        }
    }
}
