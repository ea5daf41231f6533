//! Topic dlq: what could not be processed, with why and where from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::version::{Step, after};
use super::{V, Versioned, log_aad};
use crate::id::TenantId;
use crate::lenient::Lenient;
use crate::sealed::Sealed;
use crate::time::Timestamp;
use crate::topic::{Offset, Topic, TopicPartition};

/// Steps from each version of these records to the next.
const STEPS: &[Step] = &[];
/// The version that this build writes.
pub const VERSION: u16 = after(STEPS);

/// A record of topic dlq.
///
/// An original that the engine wrote is kept as it was, base64: its sealed parts stay sealed. One of topic ingress is
/// plaintext: it is sealed here for its tenant. Where the tenant is unknown it is not kept, since no key could be
/// erased to make it unreadable. Its coordinates lead to it for as long as ingress keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Version.
    pub v: V<{ VERSION }>,
    /// Time of the dead-lettering, microseconds since 1970.
    pub at: Timestamp,
    /// The partition it came from.
    pub from: TopicPartition,
    /// Its offset there.
    pub offset: Offset,
    /// The reason; that of a later build is kept by its name.
    pub reason: Lenient<DeadReason>,
    /// Details of the reason; no content.
    pub detail: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The original's number of bytes.
    #[serde(default)]
    pub bytes: u64,
    /// The tenant under whose log key `original` is sealed, bound to its coordinates; none where the
    /// original is as it stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The original; none where it was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Sealed>,
}

impl Versioned for DeadLetter {
    const STEPS: &'static [Step] = STEPS;
}

impl DeadLetter {
    /// Associated data of an original that is sealed here.
    #[must_use]
    pub fn aad(from: TopicPartition, offset: Offset) -> Vec<u8> {
        log_aad(Topic::Dlq, &format_args!("{from}/{offset}"))
    }
}

/// Reason why a record was dead-lettered. A label in metrics, so the list is short.
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
    /// Its tenant's data stays in another region.
    Region,
    /// Its account is not one of its tenant's.
    Account,
    /// It names no sender.
    Nameless,
    /// It is larger than a record of its topic may be.
    TooLarge,
    /// It claims to be from the future.
    Future,
    /// It made its actor fail again and again.
    Poison,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Shape,
        Self::Version,
        Self::Unreadable,
        Self::UnknownTenant,
        Self::Region,
        Self::Account,
        Self::Nameless,
        Self::TooLarge,
        Self::Future,
        Self::Poison,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Version => "version",
            Self::Unreadable => "unreadable",
            Self::UnknownTenant => "unknown_tenant",
            Self::Region => "region",
            Self::Account => "account",
            Self::Nameless => "nameless",
            Self::TooLarge => "too_large",
            Self::Future => "future",
            Self::Poison => "poison",
        }
    }
}
