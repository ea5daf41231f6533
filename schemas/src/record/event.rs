//! Topic events: what happened, for analytics, signed webhooks and billing. Never content.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::V;
use crate::id::{AccountId, ChannelKind, ConversationId, OutboundId, TenantId, TurnId};
use crate::sealed::Sealed;
use crate::time::Timestamp;

/// A record of topic events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventRecord {
    /// Version.
    pub v: V,
    /// Whose.
    pub tenant: TenantId,
    /// When, microseconds since 1970.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered by the responder.
    Answered,
    /// The fallback was said: nothing known, no text, or the responder failed.
    Fallback,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A turn has been decided.
    Turn {
        /// In which conversation.
        conversation: ConversationId,
        /// Which turn.
        turn: TurnId,
        /// How many customer messages it answers.
        messages: u32,
        /// How it ended.
        outcome: Outcome,
        /// Calls to the outside that were made for it.
        attempts: u32,
        /// Tokens sent to a provider.
        input_tokens: u64,
        /// Tokens received.
        output_tokens: u64,
    },
    /// A send was interrupted, and nobody knows whether the channel took it.
    SendUnknown {
        /// In which conversation.
        conversation: ConversationId,
        /// Which message.
        outbound: OutboundId,
    },
    /// The unknown send was settled.
    SendResolved {
        /// In which conversation.
        conversation: ConversationId,
        /// Which message.
        outbound: OutboundId,
        /// How.
        by: Resolution,
    },
    /// An account does not send until an operator has acted.
    AccountStopped {
        /// Which channel.
        channel: ChannelKind,
        /// Which account.
        account: AccountId,
        /// The channel's code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i64>,
    },
    /// An account sends again.
    AccountResumed {
        /// Which channel.
        channel: ChannelKind,
        /// Which account.
        account: AccountId,
    },
    /// The channel told the business something else than a message or status.
    ChannelNotice {
        /// Which channel.
        channel: ChannelKind,
        /// Which account, where the notice names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<AccountId>,
        /// The webhook's field.
        field: String,
        /// What it says, sealed, since some notices name people.
        sealed: Sealed,
    },
}

/// How an unknown send was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// A status of the channel carried its id: it had been taken.
    Status,
    /// None came: it was sent again, by policy.
    SentAgain,
    /// None came: it was given up, by policy.
    GivenUp,
}
