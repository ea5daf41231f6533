//! Topic events: what happened, for analytics, signed webhooks and billing. Never content.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::V;
use super::inbound::Withheld;
use crate::consent::{Category, How};
use crate::id::{AccountId, ChannelKind, ContactId, ConversationId, OutboundId, TenantId, TurnId};
use crate::money::Money;
use crate::sealed::Sealed;
use crate::tenant::Resource;
use crate::time::Timestamp;
use crate::zone::Month;

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
    /// Nothing was said: the tenant's quota is spent, or somebody of the tenant took over meanwhile.
    Silent,
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
        /// What they cost.
        #[serde(default)]
        money: Money,
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
    /// A message was not sent: the engine itself withheld it.
    SendWithheld {
        /// In which conversation.
        conversation: ConversationId,
        /// Which message.
        outbound: OutboundId,
        /// Why.
        because: Withheld,
    },
    /// A contact wants no more of something. Nothing of it is sent from then on.
    OptedOut {
        /// Who.
        contact: ContactId,
        /// What of.
        category: Category,
        /// How it was said.
        how: How,
        /// When, by the channel's clock, microseconds since 1970. What was said later holds.
        said_at: Timestamp,
    },
    /// A contact consents to something.
    Consented {
        /// Who.
        contact: ContactId,
        /// To what.
        category: Category,
        /// How it was said.
        how: How,
        /// When, by the channel's clock, microseconds since 1970. What was said later holds.
        said_at: Timestamp,
    },
    /// A tenant comes near what it may use in a month.
    QuotaWarning {
        /// Of which month, as its time zone has it.
        month: Month,
        /// What.
        resource: Resource,
        /// How much of it is spent, or set aside for turns to come; of money, millionths.
        taken: u64,
        /// How much it may use.
        limit: u64,
    },
    /// A tenant has used what it may use in a month; turns are dealt with as its `quota.when_spent` says.
    QuotaSpent {
        /// Of which month.
        month: Month,
        /// What.
        resource: Resource,
        /// How much it may use; of money, millionths.
        limit: u64,
    },
    /// A conversation is a human's: the agent says nothing in it until it is given back.
    HandedOver {
        /// Which conversation.
        conversation: ConversationId,
        /// Why.
        because: HandOver,
    },
    /// The agent answers in a conversation again.
    GivenBack {
        /// Which conversation.
        conversation: ConversationId,
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

/// Why a conversation was handed over to a human.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandOver {
    /// The agent thought it better, or the customer asked for it.
    Agent,
    /// The tenant's quota is spent.
    Quota,
    /// Somebody of the tenant took it over.
    Human,
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
