//! Topic events: what happened, for analytics, signed webhooks and billing. Never content.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inbound::Withheld;
use super::version::{Step, after};
use super::{V, Versioned};
use crate::audit::Digest;
use crate::consent::{Category, How};
use crate::id::{
    AccountId, ChannelKind, ContactId, ConversationId, MessageKey, OutboundId, TenantId, TurnId,
};
use crate::money::Money;
use crate::sealed::Sealed;
use crate::tenant::Resource;
use crate::time::Timestamp;
use crate::zone::Month;

/// How each version of these records became the next.
const STEPS: &[Step] = &[];
/// The version that this build writes.
pub const VERSION: u16 = after(STEPS);

/// A record of topic events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventRecord {
    /// Version.
    pub v: V<{ VERSION }>,
    /// Whose.
    pub tenant: TenantId,
    /// When, microseconds since 1970.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

impl Versioned for EventRecord {
    const STEPS: &'static [Step] = STEPS;
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
        /// How much of it is spent, without what is reserved for turns under way; of money, millionths.
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
    /// The agent does not answer in a conversation that goes round in circles, until the customer says something else or
    /// a while has passed. One event for each such loop.
    LoopStopped {
        /// Which conversation.
        conversation: ConversationId,
        /// How many identical rounds were answered.
        rounds: u32,
    },
    /// A contact has been forgotten: its key is destroyed, its rows are removed.
    Forgotten {
        /// Which erasure, whose receipt the tenant can ask for.
        erasure: MessageKey,
        /// Who: the internal id.
        contact: ContactId,
        /// When it was asked for, microseconds since 1970.
        requested_at: Timestamp,
        /// How many rows were removed.
        rows: u64,
    },
    /// All that was the tenant's is gone but its audit log, and the receipt that an operator can ask for. Nothing else of
    /// this tenant follows.
    TenantDeleted {
        /// When it was asked for, microseconds since 1970.
        requested_at: Timestamp,
        /// How many rows there were.
        rows: u64,
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
    /// What looks like an attack, or like a breach of personal data. One event for each kind and tenant in a window
    /// of each node, and a further one while it goes on.
    Security(Incident),
    /// The audit log has a new entry. Whoever keeps these outside the state store can tell whether the log's end
    /// was cut, or all of it written anew, whatever was done to the store: `heddle audit log --verify --noted`.
    Audited {
        /// Its number.
        number: u64,
        /// Its hash, which stands for all entries up to it.
        hash: Digest,
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

/// What the engine knows of an incident, of what a notice to a supervisory authority has to say within 72 hours
/// (GDPR, Article 33(3), <https://eur-lex.europa.eu/eli/reg/2016/679/oj>): its nature, the categories and
/// approximate numbers of people and records (a), and the measures taken (d). Contact point (b) and likely
/// consequences (c) are for the tenant and the platform to say; what is not known at once is told in phases (4).
///
/// Numbers are those that this node met until now: the most that may be concerned by what it met, and no
/// proof that anybody was. It names nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// The same in every event about it.
    pub id: MessageKey,
    /// What happened.
    pub kind: IncidentKind,
    /// When it was seen first, microseconds since 1970.
    pub first: Timestamp,
    /// When it was seen last. A later event about the same incident has a later one.
    pub last: Timestamp,
    /// How often it was seen.
    pub count: u64,
    /// Which categories of data may be concerned; none where what was tried was refused before any was reached.
    pub data: BTreeSet<DataCategory>,
    /// About how many people may be concerned.
    pub people: Approximately,
    /// About how many records may be concerned.
    pub records: Approximately,
    /// What the engine did about it.
    pub measure: Measure,
}

/// A number that may be larger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approximately {
    /// So many were counted.
    pub counted: u64,
    /// Whether it may be more: some could not be told apart, or were not counted.
    pub or_more: bool,
}

/// What kind of incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// What was stored or came from the log does not open: it was changed, moved, or sealed by another key.
    FailedDecryption,
    /// Webhooks came with a wrong signature, more than a change of the secret explains.
    WebhookSignature,
    /// Somebody who may speak for one tenant named what is this tenant's.
    CrossTenant,
    /// More was exported than usual.
    UnusualExport,
    /// The audit log is not what was written.
    AuditLog,
    /// Data of a tenant of another region is in these stores.
    ForeignRegion,
}

impl IncidentKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::FailedDecryption,
        Self::WebhookSignature,
        Self::CrossTenant,
        Self::UnusualExport,
        Self::AuditLog,
        Self::ForeignRegion,
    ];

    /// The name, as a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailedDecryption => "failed_decryption",
            Self::WebhookSignature => "webhook_signature",
            Self::CrossTenant => "cross_tenant",
            Self::UnusualExport => "unusual_export",
            Self::AuditLog => "audit_log",
            Self::ForeignRegion => "foreign_region",
        }
    }
}

/// A category of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataCategory {
    /// Names, phone numbers and other ids of customers.
    ContactDetails,
    /// What customers and agents said.
    Messages,
    /// Consents and their withdrawals.
    Consents,
    /// The tenant's documents.
    Documents,
    /// Tokens and secrets of the tenant, or keys.
    Secrets,
    /// Who did what.
    AuditLog,
}

/// What the engine did about an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// It refused what was asked, before any data was reached.
    Refused,
    /// It used nothing of what does not open; the record went to dlq, or the operation failed.
    NotUsed,
    /// It did what was asked, which was permitted, and wrote into the audit log who asked.
    Permitted,
    /// It told of it, and refuses what would have to be written into an audit log that has no end any more.
    Told,
}

/// Why a conversation was handed over to a human.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandOver {
    /// The agent thought it better, or the customer asked for it.
    Agent,
    /// The tenant's quota is spent.
    Quota,
    /// It goes round in circles, and the tenant's `agent.loop_guard` says so.
    Loop,
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
