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
use crate::lenient::Lenient;
use crate::money::Money;
use crate::sealed::Sealed;
use crate::tenant::Resource;
use crate::time::Timestamp;
use crate::zone::Month;

/// Steps from each version of these records to the next.
const STEPS: &[Step] = &[];
/// The version that this build writes.
pub const VERSION: u16 = after(STEPS);

/// A record of topic events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventRecord {
    /// Version.
    pub v: V<{ VERSION }>,
    /// The tenant.
    pub tenant: TenantId,
    /// The time, microseconds since 1970.
    pub at: Timestamp,
    /// The event.
    pub event: Event,
}

impl Versioned for EventRecord {
    const STEPS: &'static [Step] = STEPS;
}

/// Outcome of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered by the responder.
    Answered,
    /// The fallback was said: nothing known, no text, or the responder failed.
    Fallback,
    /// Nothing was said: the tenant's quota is spent, or a human of the tenant took over meanwhile.
    Silent,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A turn has been decided.
    Turn {
        /// The conversation.
        conversation: ConversationId,
        /// The turn.
        turn: TurnId,
        /// The number of customer messages it answers.
        messages: u32,
        /// The outcome.
        outcome: Lenient<Outcome>,
        /// Calls to the outside that were made for it.
        attempts: u32,
        /// Tokens sent to a provider.
        input_tokens: u64,
        /// Tokens received.
        output_tokens: u64,
        /// The cost of the tokens.
        #[serde(default)]
        money: Money,
    },
    /// A send was interrupted, and its outcome is unknown.
    SendUnknown {
        /// The conversation.
        conversation: ConversationId,
        /// The message.
        outbound: OutboundId,
    },
    /// The unknown send was settled.
    SendResolved {
        /// The conversation.
        conversation: ConversationId,
        /// The message.
        outbound: OutboundId,
        /// The way it was settled.
        by: Resolution,
    },
    /// A message was not sent: the engine itself withheld it.
    SendWithheld {
        /// The conversation.
        conversation: ConversationId,
        /// The message.
        outbound: OutboundId,
        /// The reason.
        because: Withheld,
    },
    /// A contact wants no more of something. Nothing of it is sent from then on.
    OptedOut {
        /// The contact.
        contact: ContactId,
        /// The purpose.
        category: Lenient<Category>,
        /// The way by which it was said.
        how: Lenient<How>,
        /// The time, by the channel's clock, microseconds since 1970. The later statement holds.
        said_at: Timestamp,
    },
    /// A contact consents to something.
    Consented {
        /// The contact.
        contact: ContactId,
        /// The purpose.
        category: Lenient<Category>,
        /// The way by which it was said.
        how: Lenient<How>,
        /// The time, by the channel's clock, microseconds since 1970. The later statement holds.
        said_at: Timestamp,
    },
    /// A tenant's usage comes near its monthly quota.
    QuotaWarning {
        /// The month, as the tenant's time zone has it.
        month: Month,
        /// The resource.
        resource: Resource,
        /// The spent amount, without reservations of turns under way; of money, millionths.
        taken: u64,
        /// The quota.
        limit: u64,
    },
    /// A tenant's monthly quota is spent; turns are dealt with as its `quota.when_spent` says.
    QuotaSpent {
        /// The month.
        month: Month,
        /// The resource.
        resource: Resource,
        /// The quota; of money, millionths.
        limit: u64,
    },
    /// A conversation is a human's: the agent says nothing in it until it is given back.
    HandedOver {
        /// The conversation.
        conversation: ConversationId,
        /// The reason.
        because: Lenient<HandOver>,
    },
    /// The agent answers in a conversation again.
    GivenBack {
        /// The conversation.
        conversation: ConversationId,
    },
    /// The agent does not answer in a conversation that goes round in circles, until the customer says something else
    /// or a while has passed. One event for each such loop.
    LoopStopped {
        /// The conversation.
        conversation: ConversationId,
        /// The number of identical rounds that were answered.
        rounds: u32,
    },
    /// A contact has been erased: its key is destroyed, its rows are deleted.
    Forgotten {
        /// The erasure, whose receipt the tenant can ask for.
        erasure: MessageKey,
        /// The contact, by its internal id.
        contact: ContactId,
        /// Time of the request, microseconds since 1970.
        requested_at: Timestamp,
        /// The number of rows that were deleted.
        rows: u64,
    },
    /// All data of the tenant is deleted but its audit log, and the receipt that an operator can ask for. No other
    /// event of this tenant follows.
    TenantDeleted {
        /// Time of the request, microseconds since 1970.
        requested_at: Timestamp,
        /// The number of rows there were.
        rows: u64,
    },
    /// An account is suspended: it does not send until an operator has acted.
    AccountStopped {
        /// The channel.
        channel: ChannelKind,
        /// The account.
        account: AccountId,
        /// The channel's code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i64>,
    },
    /// An account sends again.
    AccountResumed {
        /// The channel.
        channel: ChannelKind,
        /// The account.
        account: AccountId,
    },
    /// Signs of an attack, or of a breach of personal data. One event for each kind and tenant in a window of each
    /// node, and a further one while it goes on.
    Security(Incident),
    /// The audit log has a new entry. A reader who keeps these events outside the state store can detect whether the
    /// log's end was cut, or all of it written anew, whatever was done to the store: `heddle audit log --verify
    /// --noted`.
    Audited {
        /// Its number.
        number: u64,
        /// Its hash, which stands for all entries up to it.
        hash: Digest,
    },
    /// The channel notified the business of something else than a message or status.
    ChannelNotice {
        /// The channel.
        channel: ChannelKind,
        /// The account, where the notice names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<AccountId>,
        /// The webhook's field.
        field: String,
        /// The notice, sealed, since some notices name people.
        sealed: Sealed,
    },
}

/// An incident, with the part of a notice to a supervisory authority that the engine knows. Such a notice is due within
/// 72 hours (GDPR, Article 33(3), <https://eur-lex.europa.eu/eli/reg/2016/679/oj>): its nature, the categories and
/// approximate numbers of people and records (a), and the measures taken (d). Contact point (b) and likely consequences
/// (c) are for the tenant and the platform to say; what is not known at once is reported in phases (4).
///
/// Numbers are those that this node met until now: the most that may be concerned by what it met, and no evidence that
/// anybody was. It names no person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// The same in every event about it.
    pub id: MessageKey,
    /// The kind.
    pub kind: IncidentKind,
    /// Time of the first signal, microseconds since 1970.
    pub first: Timestamp,
    /// Time of the last signal. A later event about the same incident has a later one.
    pub last: Timestamp,
    /// The number of signals.
    pub count: u64,
    /// The categories of data that may be concerned; none where the attempt was refused before any was reached.
    pub data: BTreeSet<DataCategory>,
    /// The approximate number of people who may be concerned.
    pub people: Approximately,
    /// The approximate number of records that may be concerned.
    pub records: Approximately,
    /// The measure that the engine took.
    pub measure: Measure,
}

/// A number that may be larger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approximately {
    /// The number that was counted.
    pub counted: u64,
    /// True where it may be more: some could not be distinguished, or were not counted.
    pub or_more: bool,
}

/// Kind of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// A ciphertext in the store or from the log does not open: it was changed, moved, or sealed by another key.
    FailedDecryption,
    /// Webhooks came with a wrong signature, more than a change of the secret explains.
    WebhookSignature,
    /// A caller who may act for one tenant named data of this tenant.
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
    /// Messages of customers and agents.
    Messages,
    /// Consents and their withdrawals.
    Consents,
    /// The tenant's documents.
    Documents,
    /// Tokens and secrets of the tenant, or keys.
    Secrets,
    /// Callers and their operations.
    AuditLog,
}

/// Measure of the engine against an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// It refused what was asked, before any data was reached.
    Refused,
    /// It used nothing of what does not open; the record went to dlq, or the operation failed.
    NotUsed,
    /// It did what was asked, which was permitted, and recorded the caller in the audit log.
    Permitted,
    /// It reported the incident, and refuses operations that would have to be written into an audit log that has no end
    /// any more.
    Told,
}

/// Reason for which a conversation was handed over to a human.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandOver {
    /// The agent thought it better, or the customer asked for it.
    Agent,
    /// The tenant's quota is spent.
    Quota,
    /// It goes round in circles, and the tenant's `agent.loop_guard` says so.
    Loop,
    /// A human of the tenant took it over.
    Human,
}

/// Way by which an unknown send was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// A status of the channel carried its id: the channel had accepted it.
    Status,
    /// None came: it was sent again, by policy.
    SentAgain,
    /// None came: it was abandoned, by policy.
    GivenUp,
}
