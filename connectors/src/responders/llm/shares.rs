//! Division of a provider key's limits between nodes. Pure.
//!
//! Each node that makes calls under a key has a share of its requests and tokens a minute, under a lease that
//! it renews.
//! Contract: the shares of all nodes are together never more than the limits, and a node's share is never less than
//! its use of the last minute. So no minute has more than the limits, whichever node uses them, and however
//! shares move. The share of a dead node counts until its last use is more than a minute ago.
//!
//! A share follows the node's demand, measured against the others, and is no larger than what a burst takes
//! until it is renewed: the share that a crash leaves behind is missing for a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::allowance::{Limits, WINDOW};

/// Duration of a lease. It is renewed three times as often.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// Interval of renewals.
pub(super) const RENEWAL: Duration = Duration::from_secs(5);
/// Maximum difference between the clocks of two nodes.
const SKEW: Duration = Duration::from_secs(10);
/// A node without calls that wait has room for this part of the limits beside its use. Its next renewal, which
/// comes at once when a call waits, gives it more; this number of crashes within a minute leaves the next node nothing.
const BURST: u64 = 16;
/// A share that is less than a tenth too large stays: moving it costs a little of the limit.
const NEAR: u64 = 10;

/// A node's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Share {
    requests: u64,
    tokens: u64,
    /// Demand of the node: calls that wait, and calls of the last minute.
    demand: u64,
    /// The most tokens that one waiting call needs.
    need: u64,
    /// The end of the lease.
    until: Timestamp,
}

/// Use and demand of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// Requests of the last minute.
    pub(super) requests: u64,
    /// Tokens of the last minute, reserved ones as well.
    pub(super) tokens: u64,
    /// Calls that wait.
    pub(super) waiting: u64,
    /// The most tokens that one of them needs.
    pub(super) need: u64,
}

/// The shares of a key, as they are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shares {
    v: u16,
    nodes: BTreeMap<String, Share>,
}

impl Shares {
    pub(super) const VERSION: u16 = 1;

    pub(super) fn new() -> Self {
        Self { v: Self::VERSION, nodes: BTreeMap::new() }
    }

    /// Nodes that have a share now.
    pub(super) fn nodes(&self, now: Timestamp) -> u64 {
        self.nodes.values().filter(|share| share.until > now).count() as u64
    }

    /// Renews a node's share. Returns what the node may use in a minute from now on, once this is stored: less than
    /// its share where it has used more already.
    pub(super) fn renew(&mut self, node: &str, limits: Limits, used: Use, now: Timestamp) -> Limits {
        // An entry of this node's name and another process is of a dead process.
        let name = name_of(node);
        for (other, share) in &mut self.nodes {
            if other != node && name_of(other) == name {
                share.until = share.until.min(now);
            }
        }
        // A use right before the end of a lease counts for a minute.
        self.nodes.retain(|name, share| name == node || share.until.after(WINDOW + SKEW) >= now);
        let demand = (used.requests + used.waiting).max(1);
        let mine = self.nodes.remove(node);
        let others = self.nodes.values();
        let (mut taken, mut demands, mut needed) = ((0, 0), demand, 0);
        for share in others {
            taken.0 += share.requests;
            taken.1 += share.tokens;
            needed = needed.max(share.need);
            // Dead nodes have no demand.
            demands += if share.until > now { share.demand } else { 0 };
        }
        let part = |limit: u64| u64::try_from(u128::from(limit) * u128::from(demand) / u128::from(demands));
        let part = |limit: u64| part(limit).unwrap_or(limit);
        let steady = |part: u64, before: Option<u64>| match before {
            Some(before) if before >= part && (before - part) * NEAR <= part => before,
            _ => part,
        };
        let free = (limits.requests.saturating_sub(taken.0), limits.tokens.saturating_sub(taken.1));
        let burst = used.requests + limits.requests.div_ceil(BURST).max(used.waiting);
        let requests = steady(part(limits.requests).max(1), mine.map(|mine| mine.requests));
        let requests = requests.min(burst).min(free.0);
        // A node that needs more than its part for a single call gets it.
        let most = limits.tokens.saturating_sub(if used.need < needed { needed } else { 0 });
        let tokens = steady(part(limits.tokens).min(most), mine.map(|mine| mine.tokens));
        let burst = used.tokens + limits.tokens.div_ceil(BURST).max(used.need.saturating_mul(used.waiting));
        let tokens = tokens.min(burst).max(used.need).min(free.1);
        self.nodes.insert(
            node.to_owned(),
            Share {
                requests: requests.max(used.requests),
                tokens: tokens.max(used.tokens),
                demand,
                need: if used.need > tokens { used.need } else { 0 },
                until: now.after(LEASE),
            },
        );
        Limits { requests, tokens }
    }

    /// Releases the share of a node that makes no calls any more, and whose last use is more than a minute ago.
    pub(super) fn leave(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// Returns true if no node has a share.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// Returns the name of a node, without its process.
fn name_of(node: &str) -> &str {
    node.rsplit_once('/').map_or(node, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::allowance::{Allowance, Denied};
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_millis(millis))
    }

    const LIMITS: Limits = Limits { requests: 600, tokens: 60_000 };

    fn asks(waiting: u64) -> Use {
        Use { waiting, need: 200, ..Use::default() }
    }

    #[test]
    fn a_single_node_has_all_of_it() {
        let mut shares = Shares::new();
        assert_eq!(shares.renew("a", LIMITS, asks(600), at(0)), LIMITS);
    }

    #[test]
    fn a_node_with_little_demand_leaves_most_to_its_successor_after_a_crash() {
        let mut shares = Shares::new();
        let little = Limits { requests: 38, tokens: 3_750 };
        assert_eq!(shares.renew("a/1", LIMITS, asks(1), at(0)), little);
        assert_eq!(
            shares.renew("a/2", LIMITS, asks(600), at(1_000)),
            Limits { requests: 562, tokens: 56_250 }
        );
        // The use of the first before it died counts for a minute, and the clocks may differ.
        assert_eq!(shares.renew("a/2", LIMITS, asks(600), at(72_000)), LIMITS);
    }

    #[test]
    fn a_node_that_dies_ten_times_in_a_minute_still_has_something_to_ask_with() {
        let mut shares = Shares::new();
        for process in 0..10 {
            let granted = shares.renew(&format!("a/{process}"), LIMITS, asks(2), at(process * 3_000));
            assert!(granted.requests >= 30 && granted.tokens >= 3_000, "{granted:?} of process {process}");
        }
    }

    #[test]
    fn shares_follow_the_demand_of_nodes() {
        let mut shares = Shares::new();
        shares.renew("a", LIMITS, asks(600), at(0));
        // No share is left for another until the first renews.
        assert_eq!(shares.renew("b", LIMITS, asks(200), at(10)), Limits { requests: 0, tokens: 0 });
        assert_eq!(shares.renew("a", LIMITS, asks(600), at(5_000)), Limits { requests: 450, tokens: 45_000 });
        assert_eq!(shares.renew("b", LIMITS, asks(200), at(5_010)), Limits { requests: 150, tokens: 15_000 });
    }

    #[test]
    fn earlier_use_stays_counted() {
        let mut shares = Shares::new();
        shares.renew("a", LIMITS, asks(600), at(0));
        shares.renew("b", LIMITS, asks(500), at(10));
        let used = Use { requests: 500, tokens: 10_000, ..Use::default() };
        assert_eq!(shares.renew("a", LIMITS, used, at(5_000)).requests, 300);
        assert_eq!(shares.renew("b", LIMITS, asks(500), at(5_010)).requests, 100, "500 of a minute are used");
    }

    #[test]
    fn a_node_that_needs_more_than_its_part_for_one_call_gets_it() {
        let limits = Limits { requests: 60, tokens: 6_000 };
        let mut shares = Shares::new();
        let big = Use { waiting: 1, need: 4_000, ..Use::default() };
        for round in 0..4 {
            shares.renew("a", limits, asks(5), at(round * 5_000));
            let granted = shares.renew("b", limits, big, at(round * 5_000 + 10));
            assert!(round < 2 || granted.tokens >= 4_000, "{granted:?} in round {round}");
        }
    }

    #[test]
    fn the_share_of_the_dead_is_free_when_a_minute_has_passed_and_not_before() {
        let mut shares = Shares::new();
        shares.renew("a", LIMITS, asks(600), at(0));
        assert_eq!(shares.renew("b", LIMITS, asks(600), at(85_000)).requests, 0);
        assert_eq!(shares.renew("b", LIMITS, asks(600), at(86_000)), LIMITS);
    }

    proptest! {
        /// Nodes come and go, call at random and renew when they should: no minute has more than the limits.
        #[test]
        fn no_minute_of_all_nodes_has_more(
            requests in 1_u64..60,
            steps in proptest::collection::vec((0_usize..3, 1_u64..900, 1_u64..50, 0_u64..6), 1..300),
        ) {
            let limits = Limits { requests, tokens: 1_000 };
            let mut shares = Shares::new();
            struct Node { allowance: Allowance, may: Limits, until: u64, waiting: u64 }
            let new = || Node { allowance: Allowance::default(), may: Limits { requests: 0, tokens: 0 }, until: 0, waiting: 0 };
            let mut nodes = [new(), new(), new()];
            let mut names = [0, 1, 2];
            let (mut now, mut made) = (0, Vec::new());
            for (which, pause, tokens, what) in steps {
                now += pause;
                let elapsed = Duration::from_millis(now);
                if what == 0 {
                    // It dies, and another one takes its place.
                    nodes[which] = new();
                    names[which] += 3;
                    continue;
                }
                let node = &mut nodes[which];
                if what == 1 || node.until <= now {
                    let (used, counted) = node.allowance.used(elapsed);
                    let usage = Use { requests: used, tokens: counted, waiting: node.waiting, need: tokens };
                    node.may = shares.renew(&names[which].to_string(), limits, usage, at(now));
                    node.until = now + 15_000;
                }
                match node.allowance.reserve(node.may, tokens, elapsed) {
                    Ok(_) => { made.push((now, tokens)); node.waiting = 0; }
                    Err(Denied::For(_) | Denied::Never) => node.waiting += 1,
                    Err(Denied::Held(_)) => prop_assert!(false),
                }
            }
            for (begin, _) in &made {
                let minute = made.iter().filter(|(at, _)| (*begin..begin + 60_000).contains(at));
                let (count, sum) = minute.fold((0, 0), |(count, sum), (_, tokens)| (count + 1, sum + tokens));
                prop_assert!(count <= requests && sum <= 1_000, "{count} requests, {sum} tokens");
            }
        }
    }
}
