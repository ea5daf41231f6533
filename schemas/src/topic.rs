//! Topics, partitions and offsets, and the partition of a conversation or an account.
//!
//! The partition is computed here from the id, never by a client's default partitioner: Java's and librdkafka's differ,
//! and one conversation must stay in one partition.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{AccountKey, ConversationId, TenantId};

/// A topic of the engine; in Kafka its name follows the configured prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// Records of third-party connectors, with raw identity, by any partitioner.
    Ingress,
    /// Records for conversations, one conversation in one partition.
    Inbound,
    /// Commands to accounts, one account in one partition.
    Outbound,
    /// Tenants' configuration, compacted by tenant.
    Tenants,
    /// Events, without content.
    Events,
    /// Records that could not be processed.
    Dlq,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 6] =
        [Self::Ingress, Self::Inbound, Self::Outbound, Self::Tenants, Self::Events, Self::Dlq];

    /// The topics whose partitions are owned and consumed, in the order in which a message passes them.
    pub const CONSUMED: [Self; 3] = [Self::Ingress, Self::Inbound, Self::Outbound];

    /// The name without prefix.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Tenants => "tenants",
            Self::Events => "events",
            Self::Dlq => "dlq",
        }
    }

    /// Returns whether only the newest record of each key is kept.
    #[must_use]
    pub fn is_compacted(self) -> bool {
        self == Self::Tenants
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The place of a record in its partition. Never used twice.
pub type Offset = u64;

/// One partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition, from 0.
    pub partition: u32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Epoch of a partition's ownership: rises with every change of owner; a write of an older epoch is fenced.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The first eight bytes of SHA-256 over the text, modulo the number of partitions.
///
/// Stable over versions and easy to repeat in any language, which is all that is asked of it.
fn place(text: &str, partitions: u32) -> u32 {
    let digest = Sha256::digest(text.as_bytes());
    let mut first = [0_u8; 8];
    first.copy_from_slice(&digest[..8]);
    let bucket = u64::from_be_bytes(first) % u64::from(partitions.max(1));
    u32::try_from(bucket).unwrap_or(0)
}

/// The partition of inbound in which all records of this conversation are.
#[must_use]
pub fn inbound_partition(conversation: &ConversationId, partitions: u32) -> TopicPartition {
    TopicPartition { topic: Topic::Inbound, partition: place(&conversation.to_string(), partitions) }
}

/// The partition of outbound in which all records of this account are.
#[must_use]
pub fn outbound_partition(account: &AccountKey, partitions: u32) -> TopicPartition {
    TopicPartition { topic: Topic::Outbound, partition: place(&account.to_string(), partitions) }
}

/// The partition of a topic that is keyed by tenant.
#[must_use]
pub fn tenant_partition(topic: Topic, tenant: &TenantId, partitions: u32) -> TopicPartition {
    TopicPartition { topic, partition: place(tenant.as_str(), partitions) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_the_one_any_language_computes() {
        // python3 -c "import hashlib;print(int.from_bytes(hashlib.sha256(b'acme').digest()[:8],'big')%8)"
        let tenant: TenantId = "acme".parse().unwrap();
        assert_eq!(tenant_partition(Topic::Events, &tenant, 8).partition, PYTHON_SAYS);
    }
    const PYTHON_SAYS: u32 = 0;
}
