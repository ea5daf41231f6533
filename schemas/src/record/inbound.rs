//! Topic inbound: what conversations receive, in order.
//!
//! Version 2 has requests of the tenant to send a message. All else is the same in both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::version::{Step, after};
use super::{V, Versioned};
use crate::consent::Category;
use crate::content::{Address, Content, Context};
use crate::id::{ContactId, ConversationId, MessageKey, OutboundId};
use crate::outgoing::OutgoingContent;
use crate::sealed::Sealed;
use crate::time::Timestamp;

/// Steps from each version of these records to the next.
const STEPS: &[Step] = &[Step { up: |_| {}, down: is_of_first_version }];
/// The version that this build writes.
pub const VERSION: u16 = after(STEPS);

/// Returns whether version 1 can say it: it is no request to send a message.
fn is_of_first_version(record: &mut Map<String, Value>) -> bool {
    record.get("event").is_none_or(|event| event.get("send").is_none())
}

/// A record of topic inbound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InboundRecord {
    /// Version.
    pub v: V<{ VERSION }>,
    /// The conversation that receives it.
    pub conversation: ConversationId,
    /// Time at which the engine accepted it, microseconds since 1970; for a connector's record that came too late to be
    /// answered, the time at which it was sent.
    pub at: Timestamp,
    /// The event.
    pub event: InboundEvent,
}

impl Versioned for InboundRecord {
    const STEPS: &'static [Step] = STEPS;
}

/// Event that a conversation receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InboundEvent {
    /// The customer acts in the thread.
    Customer(CustomerAct),
    /// The channel or the account reports on a message of the business.
    Delivery(DeliveryReport),
    /// A human of the tenant takes the conversation over, or gives it back to the agent.
    Handling(Handling),
    /// The contact is to be erased.
    Forget(Forget),
    /// The contact's data is stored and not used from now on, or the restriction is lifted.
    Restrict(Restrict),
    /// A fact that is kept of the contact is wrong, and is corrected.
    Correct(Correct),
    /// The tenant sends the contact a message, outside of the agent's turns.
    Send(Request),
    /// The tenant is being deleted: all data of the conversation is deleted. Valid only where that is so.
    Leave,
}

/// Request of the tenant to send a message to the contact of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// Keyed hash of the request's idempotency key: two records with the same one are one message.
    pub key: MessageKey,
    /// The purpose for which the contact's consent is needed.
    pub category: Category,
    /// A [`SealedRequest`], bound to topic inbound and `key`.
    pub sealed: Sealed,
}

/// Plaintext of the ciphertext of a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedRequest {
    /// The recipient's ids as the request named them; empty where it named the contact's own id.
    #[serde(default)]
    pub to: Address,
    /// The content.
    pub content: OutgoingContent,
}

/// Restriction of the use of a contact's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restrict {
    /// Two records with the same one are one.
    pub key: MessageKey,
    /// True where the data is only stored from now on.
    pub restricted: bool,
}

/// Correction of a fact that is kept of a contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Correct {
    /// Two records with the same one are one.
    pub key: MessageKey,
    /// A [`SealedCorrection`], bound to topic inbound and `key`.
    pub sealed: Sealed,
}

/// Plaintext of the ciphertext of a [`Correct`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCorrection {
    /// The right name; none where none is to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Erasure of all that came before, in every conversation of the contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forget {
    /// The erasure.
    pub erasure: MessageKey,
    /// End of the erased time: what the channel stamped no later is erased, and does not come back.
    pub at: Timestamp,
}

/// Change of the party that answers in a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Handling {
    /// Two records with the same one are one.
    pub key: MessageKey,
    /// The party that answers from now on.
    pub by: Handler,
}

/// Party that answers in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Handler {
    /// The agent.
    Agent,
    /// A human of the tenant; the agent says nothing.
    Human,
}

/// An act of the customer: a message, an edit, a deletion, a reaction, a new number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CustomerAct {
    /// Keyed hash of the channel's message id: two records with the same one are one act.
    pub key: MessageKey,
    /// The time, by the channel's clock, microseconds since 1970.
    pub sent_at: Timestamp,
    /// The kind of act.
    pub kind: ActKind,
    /// The message it does it to; none when it adds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<MessageKey>,
    /// A [`SealedAct`], bound to topic inbound and `key`.
    pub sealed: Sealed,
    /// Contacts that turned out to be this one: their conversations are the person's too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<ContactId>,
}

/// Kind of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActKind {
    /// Adds a message.
    Say,
    /// Replaces one.
    Edit,
    /// Takes one back.
    Delete,
    /// Reacts to one, or takes the reaction back.
    React,
    /// The person has a new number or id.
    Rename,
}

/// Plaintext of the ciphertext of a [`CustomerAct`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedAct {
    /// The channel's message id.
    pub id: String,
    /// The sender; after a rename, the new address.
    pub from: Address,
    /// The content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The reaction; none takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emoji: Option<String>,
    /// The messages it refers to.
    #[serde(default, skip_serializing_if = "Context::is_empty")]
    pub context: Context,
}

/// Report on the delivery of a message of the business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryReport {
    /// The message.
    pub outbound: OutboundId,
    /// The delivery status.
    pub status: DeliveryStatus,
    /// The time, microseconds since 1970.
    pub at: Timestamp,
    /// The reason of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<DeliveryFailure>,
    /// Keyed hash of the channel's id of the message, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageKey>,
    /// The channel's charge for the message, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pricing: Option<Pricing>,
}

/// A channel's charge for a message, by which it bills: its category and the country of the recipient.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Pricing {
    /// True where the message is charged for.
    pub billable: bool,
    /// The channel's category, such as `marketing`, `utility`, `authentication` or `service`.
    pub category: String,
    /// The channel's kind of charge, such as `regular`, `free_customer_service` or `free_entry_point`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Country calling code of the recipient's number, without it: `49`. `None` where the number is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
}

/// Delivery status of a message of the business. Reports arrive late, twice and out of order: see
/// [`DeliveryStatus::merge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// Decided, not yet accepted by the channel.
    Queued,
    /// Accepted by the channel, which holds it back until it has judged its quality.
    Held,
    /// Accepted by the channel.
    Sent,
    /// On the person's device.
    Delivered,
    /// Seen.
    Read,
    /// A voice message, heard.
    Played,
    /// Not accepted or not delivered. Final.
    Failed,
}

impl DeliveryStatus {
    /// Returns the status after a report of `new`: a status only rises, and failed is final. A delivered message has
    /// not failed, whatever a late report says.
    #[must_use]
    pub fn merge(self, new: Self) -> Self {
        match (self, new) {
            (Self::Failed, _) => Self::Failed,
            (Self::Delivered | Self::Read | Self::Played, Self::Failed) => self,
            _ => self.max(new),
        }
    }
}

impl DeliveryReport {
    /// Returns the status of a message after this report; before it, the message was `status`, with that failure. A
    /// message that the engine abandoned has failed without a named failure; it has not failed where the channel
    /// reports a later status.
    #[must_use]
    pub fn merge_into(&self, status: DeliveryStatus, failure: Option<&DeliveryFailure>) -> DeliveryStatus {
        match (status, failure) {
            (DeliveryStatus::Failed, None) if self.status > DeliveryStatus::Queued => self.status,
            _ => status.merge(self.status),
        }
    }
}

/// Reason for which a message failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryFailure {
    /// The channel's code, 0 where it gave none. Below zero it is the engine's own: it did not call the channel.
    pub code: i64,
    /// The channel's title of the code; no address and no text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
}

/// Reason for which the engine itself does not send a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Withheld {
    /// The contact has opted out of what it is for.
    OptedOut,
    /// The customer's last message is more than 24 hours old.
    WindowOver,
    /// The contact's data is stored and not used.
    Restricted,
    /// The account it was to leave by is disconnected.
    Disconnected,
    /// The tenant requires consent for what it is for, and the contact has given none.
    NoConsent,
}

impl Withheld {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OptedOut, Self::WindowOver, Self::Restricted, Self::Disconnected];

    /// The code that stands for it in a [`DeliveryFailure`].
    #[must_use]
    pub fn code(self) -> i64 {
        match self {
            Self::OptedOut => -1,
            Self::WindowOver => -2,
            Self::Restricted => -3,
            Self::Disconnected => -4,
            Self::NoConsent => -5,
        }
    }

    /// Its name, as it stands in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OptedOut => "opted_out",
            Self::WindowOver => "window_over",
            Self::Restricted => "restricted",
            Self::Disconnected => "disconnected",
            Self::NoConsent => "no_consent",
        }
    }
}

impl DeliveryFailure {
    /// The code of a message that was not sent since the tenant's quota is spent.
    pub const QUOTA_SPENT: i64 = -5;

    /// A failure with this code; of the engine's own codes with their title.
    #[must_use]
    pub fn of(code: i64) -> Self {
        if code == Self::QUOTA_SPENT {
            return Self { code, title: "the tenant's quota is spent".into() };
        }
        let own = [
            (Withheld::OptedOut, "the contact has opted out"),
            (Withheld::WindowOver, "the customer-service window is over"),
            (Withheld::Restricted, "the use of the contact's data is restricted"),
            (Withheld::Disconnected, "the account is disconnected"),
            (Withheld::NoConsent, "the contact has given no consent, which the tenant requires"),
        ];
        let title = own.into_iter().find(|(why, _)| why.code() == code).map_or("", |(_, title)| title);
        Self { code, title: title.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::DeliveryStatus::{self, Delivered, Failed, Held, Played, Queued, Read, Sent};
    use proptest::prelude::*;

    fn any_status() -> impl Strategy<Value = DeliveryStatus> {
        proptest::sample::select(vec![Queued, Held, Sent, Delivered, Read, Played, Failed])
    }

    proptest! {
        #[test]
        fn a_status_never_falls_and_failed_stays(reports in proptest::collection::vec(any_status(), 0..20)) {
            let mut status = Queued;
            for report in reports {
                let next = status.merge(report);
                prop_assert!(next >= status);
                prop_assert!(status != Failed || next == Failed);
                prop_assert_eq!(next.merge(report), next, "the same report twice changes nothing more");
                status = next;
            }
        }
    }

    #[test]
    fn a_message_that_was_given_up_is_lifted_by_a_late_status_and_one_that_failed_is_not() {
        let outbound = "00000000000000000000000000000001.00000000000000000000000000000002.0".parse().unwrap();
        let at = crate::time::Timestamp::from_secs(1);
        let report = |status| super::DeliveryReport {
            outbound,
            status,
            at,
            failure: None,
            message: None,
            pricing: None,
        };
        assert_eq!(report(Delivered).merge_into(Failed, None), Delivered);
        assert_eq!(report(Failed).merge_into(Failed, None), Failed);
        let named = super::DeliveryFailure::of(131_026);
        assert_eq!(report(Delivered).merge_into(Failed, Some(&named)), Failed);
        assert_eq!(report(Read).merge_into(Sent, None), Read);
    }

    #[test]
    fn what_was_delivered_has_not_failed() {
        assert_eq!(Delivered.merge(Failed), Delivered);
        assert_eq!(Sent.merge(Failed), Failed);
        assert_eq!(Read.merge(Delivered), Read);
    }
}
