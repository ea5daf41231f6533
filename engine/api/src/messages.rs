//! Operations on messages of the business: send one to one contact.

use std::fmt;

use heddle_schemas::audit::What;
use heddle_schemas::consent::Category;
use heddle_schemas::contact::ContactName;
use heddle_schemas::id::{AccountId, ChannelKind, ConversationId, OutboundId};
use heddle_schemas::outgoing::OutgoingContent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operation::{NoParameters, operations};
use crate::tenants::OfTenant;

/// Characters of an idempotency key at most.
pub const KEY_CHARACTERS: usize = 256;

operations! {
    /// Sends a message to one contact, outside of the agent's turns. Consent, restriction, quota and reply window are
    /// checked now and, where they can change, right before the send. The same idempotency key never sends twice.
    SendMessage: POST "/v1/tenants/{tenant}/messages" (OfTenant, NoParameters, NewMessage) -> 202 AcceptedMessage;
        Tenant, Member, Around |input, contact| Some(What::ContactMessage { contact: contact? });
}

/// Message to send.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// The recipient: phone number as `+4915112345678`, a channel's id as `whatsapp:ID`, or the contact's own id.
    pub contact: ContactName,
    /// The content.
    pub content: OutgoingContent,
    /// The purpose, which the contact must not have opted out of.
    pub purpose: Category,
    /// Name of the request, of the caller's choice: a repetition under the same name sends nothing more. Remembered for
    /// a day at least.
    #[schemars(length(min = 1, max = 256))]
    pub idempotency_key: String,
    /// The kind of channel; where the tenant has several accounts that could send it, channel and account are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelKind>,
    /// The provider's id of the account that sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
}

/// Shows neither the content nor the recipient.
impl fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewMessage").field("kind", &self.content.kind()).finish_non_exhaustive()
    }
}

/// Message that will be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptedMessage {
    /// Its id, as it stands in events and in the contact's export.
    pub outbound: OutboundId,
    /// The conversation that it is part of.
    pub conversation: ConversationId,
}
