//! A channel: how messages are sent, and what its webhooks say.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::consent::{Category, Says};
use crate::content::{Address, Content, Context};
use crate::id::{AccountId, ChannelKind, OutboundId};
use crate::record::inbound::{DeliveryFailure, DeliveryStatus};
use crate::sealed::Secret;
use crate::time::Timestamp;

/// A message on its way to the channel's API.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboundMessage {
    /// Its id; comes back in every status.
    pub id: OutboundId,
    /// To whom.
    pub to: Address,
    /// What it says.
    pub content: Content,
}

/// What is needed to call the API for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The account.
    pub account: AccountId,
    /// The API's base address, without a slash at the end.
    pub api_base: String,
    /// The bearer token.
    pub access_token: Secret,
}

/// What a failed send means for the account and for the message.
///
/// The classes of WhatsApp's codes: <https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The account sends too fast: slow down, then again.
    RateLimited,
    /// This pair of number and user is too fast: wait 4^X s for this pair only.
    PairLimited,
    /// Passing trouble of the channel: again with backoff. The message was not taken.
    Temporary,
    /// It may have been taken, and nobody knows: connection lost after the request was sent, no
    /// answer in time.
    Unknown,
    /// This message will never be taken.
    Final,
    /// As [`FailureClass::Final`], and the user wants no more of this kind.
    OptedOut,
    /// The token is invalid or expired: stop the account until it has a new one.
    Unauthorized,
    /// The account is locked or unpaid: stop it until an operator has acted.
    Blocked,
}

/// What a failed send concerns. Today the sender acts on messages, pairs, persons and numbers; the others are carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This message alone.
    Message,
    /// The pair of the number and the person.
    Pair,
    /// The person, whoever of the business writes.
    Person,
    /// The number, or the account that it stands for.
    #[default]
    Number,
    /// Every message of the same template.
    Template,
    /// Every number of the business account (WhatsApp: WABA).
    Waba,
    /// Every business account of the portfolio.
    Portfolio,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class:?}{}: {detail}", code.map(|code| format!(" (code {code})")).unwrap_or_default())]
pub struct SendError {
    /// What it means.
    pub class: FailureClass,
    /// What it concerns.
    pub scope: Scope,
    /// The channel's code.
    pub code: Option<i64>,
    /// What the channel said; no address, text or token.
    pub detail: String,
    /// When to try again, where the channel said so.
    pub retry_after: Option<Duration>,
}

/// A message that the channel's API has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The channel's id of it.
    pub message_id: String,
    /// The channel holds it back until it has judged its quality: a status says whether it was sent.
    pub held: bool,
}

/// One thing that a webhook says.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelEvent {
    /// A customer's message.
    Message(ReceivedMessage),
    /// How far a message of ours has come.
    Status(ReceivedStatus),
    /// A person said what the business may send, in a setting of the channel.
    Preference(ReceivedPreference),
    /// Anything else the channel tells the business, such as `account_update`.
    Notice {
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

/// Why a webhook's body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The signature is missing or wrong.
    #[error("the signature is missing or wrong")]
    Signature,
    /// The body is no JSON, or not of the channel's shape.
    #[error("the body cannot be read: {0}")]
    Body(String),
}

/// A channel.
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// Which one.
    fn kind(&self) -> ChannelKind;

    /// Checks that the raw body comes from the channel, in constant time.
    ///
    /// # Errors
    /// [`WebhookError::Signature`].
    fn verify(&self, app_secret: &Secret, signature: Option<&str>, body: &[u8]) -> Result<(), WebhookError>;

    /// Reads a webhook's body. What it does not know becomes [`Content::Unknown`] or
    /// [`ChannelEvent::Notice`], never an error.
    ///
    /// # Errors
    /// [`WebhookError::Body`].
    fn parse(&self, body: &[u8]) -> Result<Vec<ChannelEvent>, WebhookError>;

    /// Whether a failure with this code says that the person wants no more marketing.
    fn is_opt_out(&self, code: i64) -> bool;

    /// Sends a message, once: retrying is the account's decision.
    ///
    /// # Errors
    /// [`SendError`].
    async fn send(&self, access: &Access, message: &OutboundMessage) -> Result<Accepted, SendError>;
}
