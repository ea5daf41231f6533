//! Options of a load run, and warnings of what it cannot measure.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use heddle_connectors::kafka::Connection;

use crate::choice::Choice;

/// Burst of messages that WhatsApp allows a pair of number and user, repaid at one message in [`PAIR_INTERVAL`]
/// (<https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput>). The engine respects it
/// whatever the simulated API enforces.
const PAIR_BURST: f64 = 45.0;
/// Interval of one message of a pair, in seconds.
const PAIR_INTERVAL: f64 = 6.0;
/// Share of a number's limit above which a run measures the limit.
const NEAR: f64 = 0.9;
/// Maximum number of customers: one per phone number available.
const MOST_CONVERSATIONS: u32 = 100_000_000;

/// Rate of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Fixed number of messages a second, whatever the engine does (open loop).
    Rate(NonZeroU32),
    /// Maximum speed: a number of customers ask, wait for the reply and ask again (closed loop).
    Max {
        /// Number of messages without a reply at any time.
        in_flight: NonZeroU32,
    },
}

/// End of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After this time.
    Duration(Duration),
    /// After this number of messages.
    Messages(NonZeroU64),
}

/// Ingress that messages are sent to.
#[derive(Debug, Clone)]
pub enum Way {
    /// Signed webhooks, as WhatsApp sends them.
    Webhooks {
        /// Base addresses of the target nodes, in turn; empty: the node whose admin API is used.
        nodes: Vec<String>,
    },
    /// Records of topic ingress, as a connector publishes them.
    Kafka {
        /// Connection to the brokers.
        connection: Connection,
        /// Prefix of the topics' names.
        prefix: String,
    },
}

/// Options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rate of messages. Default: maximum speed, 64 customers.
    pub pace: Pace,
    /// End of sending. Default: after 30 s.
    pub until: Until,
    /// Number of tenants, one WhatsApp account each. Default 20.
    pub tenants: NonZeroU32,
    /// Number of conversations, spread over the tenants. Default 10,000.
    pub conversations: NonZeroU32,
    /// Exponent of Zipf's law for the choice of conversations; 0, the default: all equally likely.
    pub skew: f64,
    /// Number of messages in one body. Default 1.
    pub batch: NonZeroU32,
    /// The tenants' settle delay. Default 0: each message is a turn.
    pub settle: Duration,
    /// The tenants' `messages_per_second` of a number, in and out together. Default 1,000, the most that
    /// WhatsApp grants.
    pub per_number: NonZeroU32,
    /// Makes the simulated API refuse calls over its limits. Default no.
    pub enforce_limits: bool,
    /// Listen address of the simulated API, which the engine must be able to reach. Default loopback.
    pub graph_listen: SocketAddr,
    /// Ingress. Default: webhooks to the node whose admin API is used.
    pub way: Way,
    /// Maximum number of bodies in flight. Default 256, the default number of webhooks that a node reads at once.
    pub connections: NonZeroU32,
    /// Timeout for the acceptance of a body. Default 10 s.
    pub timeout: Duration,
    /// Timeout for a reply, at the end of the run and for a customer of a closed loop. Default 30 s.
    pub wait: Duration,
    /// Seed of secrets and choices. Default 1.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pace: Pace::Max { in_flight: const { NonZeroU32::new(64).unwrap() } },
            until: Until::Duration(Duration::from_secs(30)),
            tenants: const { NonZeroU32::new(20).unwrap() },
            conversations: const { NonZeroU32::new(10_000).unwrap() },
            skew: 0.0,
            batch: NonZeroU32::MIN,
            settle: Duration::ZERO,
            per_number: const { NonZeroU32::new(1000).unwrap() },
            enforce_limits: false,
            graph_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            way: Way::Webhooks { nodes: Vec::new() },
            connections: const { NonZeroU32::new(256).unwrap() },
            timeout: Duration::from_secs(10),
            wait: Duration::from_secs(30),
            seed: 1,
        }
    }
}

impl Options {
    /// Validates the options.
    ///
    /// # Errors
    /// Every fault, one per line.
    pub fn validate(&self) -> Result<(), String> {
        let mut faults = Vec::new();
        if !(0.0..=10.0).contains(&self.skew) {
            faults.push(format!("--skew {} is not between 0 and 10", self.skew));
        }
        if self.conversations < self.tenants {
            faults.push(format!(
                "{} conversations are fewer than {} tenants",
                self.conversations, self.tenants
            ));
        }
        if self.conversations.get() > MOST_CONVERSATIONS {
            faults.push(format!("--conversations is over {MOST_CONVERSATIONS}"));
        }
        if let Pace::Max { in_flight } = self.pace
            && in_flight < self.batch
        {
            faults.push(format!("--in-flight {in_flight} is below --batch {}", self.batch));
        }
        if self.graph_listen.ip().is_unspecified() {
            faults.push(
                "--graph-listen needs an address that the engine can call, not an unspecified one such as 0.0.0.0"
                    .into(),
            );
        }
        if self.settle > Duration::from_secs(60) {
            faults.push("--settle is over 60s".into());
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    /// Returns the maximum number of messages of one conversation without a reply. The answer to a turn of several
    /// messages names at most three of them, so no more may be open.
    pub(crate) fn most_open(&self) -> usize {
        let most: NonZeroUsize =
            if self.settle.is_zero() { NonZeroUsize::MAX } else { const { NonZeroUsize::new(3).unwrap() } };
        most.get()
    }

    /// Returns a warning for each channel limit that a run would measure at `rate` messages a second for this number
    /// of seconds.
    pub(crate) fn cautions(&self, choice: &Choice, rate: f64, seconds: f64) -> Vec<String> {
        let mut cautions = Vec::new();
        let expected = choice.hottest() * rate * seconds;
        // By chance a conversation gets more than its share: at most four standard deviations of a Poisson count.
        let most = expected + 4.0 * expected.sqrt();
        let allowed = PAIR_BURST + seconds / PAIR_INTERVAL;
        if most > allowed {
            cautions.push(format!(
                "the hottest conversation gets up to {most:.0} messages in {seconds:.0} s, and a pair of number and \
                 user may only have {allowed:.0} replies (45, and one in 6 s): replies wait for that limit; take \
                 more --conversations or a smaller --skew"
            ));
        }
        let busiest = 2.0 * choice.busiest() * rate;
        if busiest > NEAR * f64::from(self.per_number.get()) {
            cautions.push(format!(
                "the busiest number has {busiest:.0} messages a second, in and out together, and its limit is {}: \
                 replies wait for that limit; take more --tenants or a larger --per-number",
                self.per_number
            ));
        }
        cautions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cautions(conversations: u32, tenants: u32, skew: f64, rate: f64, seconds: f64) -> Vec<String> {
        let choice = Choice::new(conversations, tenants, skew, 1);
        Options::default().cautions(&choice, rate, seconds)
    }

    #[test]
    fn a_limit_of_the_channel_is_named_where_it_is_what_is_measured() {
        // Each of 10,000 conversations gets about three messages, and 20 numbers have 100 messages a second each.
        assert!(cautions(10_000, 20, 0.0, 1000.0, 30.0).is_empty());
        // 100 conversations sustain 16 messages a second.
        let pairs = cautions(100, 20, 0.0, 100.0, 600.0);
        assert!(pairs.len() == 1 && pairs[0].contains("pair"), "{pairs:?}");
        // One of ten messages goes to one person.
        assert!(cautions(10_000, 20, 1.0, 1000.0, 30.0)[0].contains("pair"));
        // Two numbers have 500 messages a second each, and as many replies.
        let numbers = cautions(10_000, 2, 0.0, 1000.0, 10.0);
        assert!(numbers.len() == 1 && numbers[0].contains("busiest number"), "{numbers:?}");
    }

    #[test]
    fn every_fault_is_told_at_once() {
        Options::default().validate().unwrap();
        let options = Options {
            skew: f64::NAN,
            conversations: NonZeroU32::MIN,
            batch: NonZeroU32::new(65).unwrap(),
            graph_listen: "0.0.0.0:9000".parse().unwrap(),
            settle: Duration::from_secs(61),
            ..Options::default()
        };
        assert_eq!(options.validate().unwrap_err().lines().count(), 5);
    }
}
