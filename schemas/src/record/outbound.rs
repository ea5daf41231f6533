//! Topic outbound: what accounts are asked to send, and the reports that settle sends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inbound::DeliveryReport;
use super::version::{Step, after};
use super::{V, Versioned};
use crate::consent::Category;
use crate::content::{Address, Content};
use crate::id::{ConversationId, OutboundId};
use crate::ports::state::Fence;
use crate::sealed::Sealed;
use crate::time::Timestamp;

/// How each version of these records became the next.
const STEPS: &[Step] = &[];
/// The version that this build writes.
pub const VERSION: u16 = after(STEPS);

/// A record of topic outbound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutboundRecord {
    /// Version.
    pub v: V<{ VERSION }>,
    /// Which conversation it belongs to; its account does the work.
    pub conversation: ConversationId,
    /// When it was decided, microseconds since 1970.
    pub at: Timestamp,
    /// What.
    pub command: OutboundCommand,
}

impl Versioned for OutboundRecord {
    const STEPS: &'static [Step] = STEPS;
}

/// What an account is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutboundCommand {
    /// Send a message.
    Send(SendCommand),
    /// Settle a send by what the channel reported.
    Settle(DeliveryReport),
    /// Send nothing more of what was asked for in this conversation before: its contact is being forgotten.
    Forget,
    /// The account's tenant is being deleted: nothing waits any more, and these entries of the journal go. It counts
    /// only where that is so; the contact of the record's conversation says nothing.
    Leave(Leave),
}

/// What of an account goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Leave {
    /// Entries of the journal of sends, which can be found only by a walk over all rows.
    pub sends: Vec<OutboundId>,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SendCommand {
    /// Its id: sending it twice is sending the same.
    pub id: OutboundId,
    /// Why it is sent.
    pub purpose: Purpose,
    /// Whether it may have been published before, so that the journal must be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Under which ownership it was published. A log has no fence: what an owner had handed to its client
    /// before it lost the partition may come after the next owner has published the same again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// Until when the channel takes it, where that ends: anything but a template may be sent only within 24 hours of
    /// the customer's last message. The account looks when it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_until: Option<Timestamp>,
    /// Of a campaign, what it needs the contact's consent for; marketing where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// A [`SealedMessage`], bound to topic outbound and `id`.
    pub sealed: Sealed,
}

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It answers a customer.
    Reply,
    /// It belongs to a campaign.
    Campaign,
}

/// What is inside the ciphertext of a [`SendCommand`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedMessage {
    /// To whom.
    pub to: Address,
    /// What it says.
    pub content: Content,
}
