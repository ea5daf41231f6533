//! Topic outbound: commands to accounts to send, and the reports that settle sends.
//!
//! Version 2 has contents other than text, and notices. What concerns texts and statuses alone is the same in both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::inbound::DeliveryReport;
use super::version::{Step, after};
use super::{V, Versioned};
use crate::consent::Category;
use crate::content::Address;
use crate::id::{ConversationId, OutboundId};
use crate::outgoing::{Kind, OutgoingContent};
use crate::ports::state::Fence;
use crate::sealed::Sealed;
use crate::time::Timestamp;

/// Steps from each version of these records to the next.
const STEPS: &[Step] = &[Step { up: |_| {}, down: is_of_first_version }];
/// The version that this build writes.
pub const VERSION: u16 = after(STEPS);

/// Returns whether version 1 can say it: it has neither another content than text nor the purpose of a notice.
fn is_of_first_version(record: &mut Map<String, Value>) -> bool {
    let send = record.get("command").and_then(|command| command.get("send"));
    send.is_none_or(|send| {
        let is_notice = send.get("purpose").is_some_and(|purpose| purpose == "notice");
        send.get("kind").is_none() && !is_notice
    })
}

/// A record of topic outbound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutboundRecord {
    /// Version.
    pub v: V<{ VERSION }>,
    /// The conversation it belongs to; its account does the work.
    pub conversation: ConversationId,
    /// Time of the decision, microseconds since 1970.
    pub at: Timestamp,
    /// The command.
    pub command: OutboundCommand,
}

impl Versioned for OutboundRecord {
    const STEPS: &'static [Step] = STEPS;
}

/// Command to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutboundCommand {
    /// Send a message.
    Send(SendCommand),
    /// Settle a send by what the channel reported.
    Settle(DeliveryReport),
    /// Send nothing more of what was requested for this conversation before: its contact is being erased.
    Forget,
    /// The account's tenant is being deleted: nothing waits any more, and these entries of the journal are deleted.
    /// Valid only where that is so; the contact of the record's conversation has no meaning.
    Leave(Leave),
}

/// Data of an account that is deleted.
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
    /// The purpose for which it is sent.
    pub purpose: Purpose,
    /// True where it may have been published before, so that the journal must be checked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The ownership under which it was published. A log has no fence: a record that an owner handed to its client
    /// before it lost the partition may come after the next owner has published the same again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// End of the time in which the channel accepts it, where there is one: anything but a template may be sent only
    /// within 24 hours of the customer's last message. The account checks it at the send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_until: Option<Timestamp>,
    /// The kind of its content; a text where it is not set.
    #[serde(default, skip_serializing_if = "Kind::is_text")]
    pub kind: Kind,
    /// Purpose for which a campaign or a notice needs the contact's consent; marketing where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// A [`SealedMessage`], bound to topic outbound and `id`.
    pub sealed: Sealed,
}

/// Purpose for which a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It answers a customer.
    Reply,
    /// It belongs to a campaign.
    Campaign,
    /// The business sends it to one contact, outside of the agent's turns: as urgent as a reply, and sent only with the
    /// consent that a campaign needs. Where its outcome is unknown it is not sent again.
    Notice,
}

/// Plaintext of the ciphertext of a [`SendCommand`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedMessage {
    /// The recipient.
    pub to: Address,
    /// The content.
    pub content: OutgoingContent,
}
