//! Topic dlq: what could not be processed, with why and where from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::V;
use crate::sealed::Sealed;
use crate::time::Timestamp;
use crate::topic::{Offset, TopicPartition};

/// A record of topic dlq. The original is kept as it was, base64: its sealed parts stay sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Version.
    pub v: V,
    /// When it was given up, microseconds since 1970.
    pub at: Timestamp,
    /// Which partition it came from.
    pub from: TopicPartition,
    /// Its offset there.
    pub offset: Offset,
    /// Why.
    pub reason: DeadReason,
    /// More about why; no content.
    pub detail: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The original's bytes. What reaches the log is sealed already where it must be.
    pub original: Sealed,
}

/// Why a record was given up. A label in metrics, so the list is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// Not a record of the topic.
    Shape,
    /// A version that is not known.
    Version,
    /// Its ciphertext does not open.
    Unreadable,
    /// Its tenant is not known.
    UnknownTenant,
    /// It made its actor fail again and again.
    Poison,
}

impl DeadReason {
    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Version => "version",
            Self::Unreadable => "unreadable",
            Self::UnknownTenant => "unknown_tenant",
            Self::Poison => "poison",
        }
    }
}
