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
    /// How far a message of ours has come.
    Status(ReceivedStatus),
    /// A person said what the business may send, in a setting of the channel.
    Preference(ReceivedPreference),
    /// Anything else the channel tells the business, such as `account_update`.
    Notice {
        /// The account that it concerns, where the channel says so.
        account: Option<AccountId>,
        /// The webhook's field.
        field: String,
        /// What it says.
        value: Value,
    },
}

/// What a received message does to the thread.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Adds to it.
    Say(Content),
    /// Replaces an earlier message.
    Edit {
        /// The channel's id of the earlier one.
        target: String,
        /// What it says now.
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
        /// What the channel wrote about it.
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
    /// Who sent it.
    pub from: Address,
    /// When, by the channel's clock.
    pub sent_at: Timestamp,
    /// What it does.
    pub act: Act,
    /// What it refers to.
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
    /// How far it has come.
    pub status: DeliveryStatus,
    /// When, by the channel's clock.
    pub at: Timestamp,
    /// Why it failed.
    pub failure: Option<DeliveryFailure>,
}

/// What a person set in the channel about what a business may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedPreference {
    /// The account that was told.
    pub account: AccountId,
    /// Who.
    pub from: Address,
    /// When, by the channel's clock.
    pub at: Timestamp,
    /// About what.
    pub category: Category,
    /// What.
    pub says: Says,
    /// What the channel wrote about it.
    pub detail: Option<String>,
}
