//! The events of a channel's webhook, whatever the channel.

use serde_json::Value;

use crate::consent::{Category, Says};
use crate::content::{Address, Content, Context};
use crate::id::{AccountId, OutboundId};
use crate::record::inbound::{DeliveryFailure, DeliveryStatus};
use crate::time::Timestamp;

/// One thing that a webhook says.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most events are messages, and a body's few are moved once")]
pub enum ChannelEvent {
    /// A customer's message.
    Message(ReceivedMessage),
    /// Delivery status of a message of ours.
    Status(ReceivedStatus),
    /// A person said what the business may send, in a setting of the channel.
    Preference(ReceivedPreference),
    /// Any other notice that the channel sends the business, such as `account_update`.
    Notice {
        /// The account that it concerns, where the channel says so.
        account: Option<AccountId>,
        /// The webhook's field.
        field: String,
        /// Content of the notice.
        value: Value,
    },
}

/// Effect of a received message on the thread.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Adds to it.
    Say(Content),
    /// Replaces an earlier message.
    Edit {
        /// The channel's id of the earlier one.
        target: String,
        /// New content of the message.
        content: Content,
    },
    /// Takes an earlier message back.
    Delete {
        /// The channel's id of it.
        target: String,
    },
    /// Reacts to a message.
    React {
        /// The channel's id of it.
        target: String,
        /// With what; `None` takes the reaction back.
        emoji: Option<String>,
    },
    /// The person has a new number or id; [`ReceivedMessage::from`] is the old one.
    Rename {
        /// The new one.
        to: Address,
        /// Text of the channel about it.
        body: Option<String>,
    },
}

/// A message that a customer sent.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedMessage {
    /// The account it was sent to.
    pub account: AccountId,
    /// The channel's id of it.
    pub id: String,
    /// Sender of the message.
    pub from: Address,
    /// When, by the channel's clock.
    pub sent_at: Timestamp,
    /// Effect on the thread.
    pub act: Act,
    /// References of the message, and its origin.
    pub context: Context,
}

/// A status that the channel reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedStatus {
    /// The account that sent it.
    pub account: AccountId,
    /// The channel's id of the message.
    pub message_id: String,
    /// Our id of it; `None` when it was not sent by this engine.
    pub outbound: Option<OutboundId>,
    /// Delivery status that the message has reached.
    pub status: DeliveryStatus,
    /// When, by the channel's clock.
    pub at: Timestamp,
    /// Why it failed.
    pub failure: Option<DeliveryFailure>,
}

/// Preference that a person set in the channel about what a business may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedPreference {
    /// The account that was notified.
    pub account: AccountId,
    /// Person who set it.
    pub from: Address,
    /// When, by the channel's clock.
    pub at: Timestamp,
    /// About what.
    pub category: Category,
    /// Choice of the person.
    pub says: Says,
    /// Text of the channel about it.
    pub detail: Option<String>,
}
