//! Section `[engine]`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::human;

/// Resources of this machine that the engine may use, and its policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Records of a partition that may be in work at once; more wait in the log.
    pub permits_per_partition: NonZeroUsize,
    /// Conversations kept in memory; over it, idle ones go first.
    pub max_conversations: NonZeroUsize,
    /// Time without work after which a conversation or account leaves memory.
    #[serde(with = "human")]
    pub passivate_after: Duration,
    /// The longest that a call to a channel may take.
    #[serde(with = "human")]
    pub send_timeout: Duration,
    /// Time that the engine waits for a status after an interrupted send, while webhooks are being accepted.
    #[serde(with = "human")]
    pub unknown_wait: Duration,
    /// Number of times that a reply is sent again when no status has come in that time. Then it is abandoned; a later
    /// status lifts that. A campaign's message is never sent again.
    pub unknown_repeats: u32,
    /// Turns of one tenant that may be in retrieval or with the responder at once.
    pub turns_per_tenant: NonZeroUsize,
    /// Longest wait of a turn for its tenant's share of this node before the agent's fallback is said. Time in which
    /// the node was down does not count.
    #[serde(with = "human")]
    pub answer_deadline: Duration,
    /// Turns and other waits of one tenant that may be resumed at once in a partition, when they are due. Raise it too
    /// where more turns than this number times the partitions shall wait for a responder at once (`turns_per_tenant`).
    pub woken_per_tenant: NonZeroUsize,
    /// Most rows that this node reads a second to apply a tenant's changed retention to stored data.
    pub sweep_rows_per_second: NonZeroU32,
    /// Longest wait of a shutdown for work in progress.
    #[serde(with = "human")]
    pub drain: Duration,
    /// Greatest age of a customer's message that is answered. An older one, from the dead-letter topic or after an
    /// outage, is only recorded. Channels with a reply window, such as WhatsApp with 24 hours, send nothing later.
    #[serde(with = "human")]
    pub answer_within: Duration,
    /// Version of records that this node writes. `previous`: the one that nodes of the build before this one read, for
    /// as long as a cluster is upgraded, and until it is sure that it will not be rolled back. `newest`: this build's
    /// own. By default `previous` with Kafka, where there may be other nodes, and `newest` embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_version: Option<WriteVersion>,
}

/// Version of records that a node writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteVersion {
    /// The version before this build's.
    Previous,
    /// This build's.
    Newest,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            permits_per_partition: const { NonZeroUsize::new(1024).unwrap() },
            max_conversations: const { NonZeroUsize::new(200_000).unwrap() },
            passivate_after: Duration::from_secs(60),
            send_timeout: Duration::from_secs(15),
            unknown_wait: Duration::from_secs(60),
            unknown_repeats: 1,
            turns_per_tenant: const { NonZeroUsize::new(64).unwrap() },
            answer_deadline: Duration::from_secs(600),
            woken_per_tenant: const { NonZeroUsize::new(1024).unwrap() },
            sweep_rows_per_second: const { NonZeroU32::new(2_000).unwrap() },
            drain: Duration::from_secs(20),
            answer_within: Duration::from_secs(86_400),
            write_version: None,
        }
    }
}
