//! The events of a channel's webhook, whatever the channel.

use serde_json::Value;

use crate::consent::{Category, Says};
use crate::content::{Address, Content, Context};
use crate::id::{AccountId, OutboundId};
use crate::record::inbound::{DeliveryFailure, DeliveryStatus, Pricing};
use crate::time::Timestamp;

/// One thing that a webhook says.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelEvent {
    /// A customer's message.
    Message(ReceivedMessage),
    /// Delivery status of a message of the business.
    Status(ReceivedStatus),
    /// A person said what the business may send, in a setting of the channel.
    Preference(ReceivedPreference),
    /// Any other notice of the channel to the business, such as `account_update`.
    Notice {
        /// The account that it concerns, where the channel says so.
        account: Option<AccountId>,
        /// The webhook's field.
        field: String,
        /// The value of the field.
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
        /// The new content.
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
        /// The emoji; `None` takes the reaction back.
        emoji: Option<String>,
    },
    /// The person has a new number or id; [`ReceivedMessage::from`] is the old one.
    Rename {
        /// The new one.
        to: Address,
        /// The channel's text about it.
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
    /// The sender.
    pub from: Address,
    /// The time, by the channel's clock.
    pub sent_at: Timestamp,
    /// Its effect on the thread.
    pub act: Act,
    /// The messages it refers to.
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
    /// The delivery status.
    pub status: DeliveryStatus,
    /// The time, by the channel's clock.
    pub at: Timestamp,
    /// The reason of the failure.
    pub failure: Option<DeliveryFailure>,
    /// The channel's charge for the message, where it says so.
    pub pricing: Option<Pricing>,
}

/// Preference of a person, set in the channel, about messages of a business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedPreference {
    /// The account that was notified.
    pub account: AccountId,
    /// The person.
    pub from: Address,
    /// The time, by the channel's clock.
    pub at: Timestamp,
    /// The purpose.
    pub category: Category,
    /// The statement.
    pub says: Says,
    /// The channel's text about it.
    pub detail: Option<String>,
}
