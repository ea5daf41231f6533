//! Operations on contacts: consent, correction, restriction, export, erasure, hand-over.

use heddle_schemas::audit::What;
use heddle_schemas::consent::Says;
use heddle_schemas::contact::ContactName;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{AccountId, ChannelKind, ContactId, ConversationId, MessageKey, TenantId};
use heddle_schemas::record::inbound::Handler;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consents::{ConsentEntry, Consents};
use crate::content::{Document, List, Nothing};
use crate::operation::{NoParameters, Parameters, operations};
use crate::tenants::OfTenant;

/// Maximum length of a name, in characters.
pub const NAME_CHARACTERS: usize = 256;

operations! {
    /// Shows the consents and opt-outs of a contact, with their evidence.
    ShowConsents: GET "/v1/tenants/{tenant}/contacts/consent" (OfTenant, OfContact, Nothing) -> 200 Consents;
        Tenant, Member, Never;

    /// Lists the conversations of a contact and who answers in each. The ids are those in events and in
    /// `HandleConversation`.
    ListConversations: GET "/v1/tenants/{tenant}/contacts/conversations"
        (OfTenant, OfContact, Nothing) -> 200 List<ConversationState>;
        Tenant, Member, Never;

    /// Enters a consent or an opt-out. The latest statement is in force.
    EnterConsent: POST "/v1/tenants/{tenant}/contacts/consent" (OfTenant, OfContact, ConsentEntry) -> 200 Consents;
        Tenant, Member, Around |input, contact| Some(What::ContactConsent {
            contact: contact?,
            given: input.body.says == Says::Give,
        });

    /// Corrects the stored name of a contact. The correction holds until the channel shows a different name than it did
    /// at that time.
    CorrectContact: PUT "/v1/tenants/{tenant}/contacts/correction" (OfTenant, OfContact, Correction) -> 202 Nothing;
        Tenant, Member, Around |input, contact| Some(What::ContactCorrect { contact: contact? });

    /// Exports all data stored for a contact, decrypted: its conversations with their messages, delivery statuses and
    /// tool calls, its consents and erasures, and its audit entries. The document is streamed; a truncated document
    /// means that the export failed.
    ExportContact: GET "/v1/tenants/{tenant}/contacts/export" (OfTenant, OfContact, Nothing) -> 200 Document;
        Tenant, Admin, Opened |input, contact| Some(What::ContactExport { contact: contact? }),
        within std::time::Duration::from_secs(24 * 3_600);

    /// Erases a contact: destroys its key and removes its rows. Idempotent.
    ForgetContact: POST "/v1/tenants/{tenant}/contacts/forget" (OfTenant, OfContact, Nothing) -> 202 Erasure;
        Tenant, Admin, Around |input, contact| Some(What::ContactErase { contact: contact? });

    /// Restricts the processing of a contact's data to storage, or lifts the restriction. Idempotent.
    RestrictContact: PUT "/v1/tenants/{tenant}/contacts/restriction" (OfTenant, OfContact, Restriction) -> 202 Consents;
        Tenant, Member, Around |input, contact| Some(What::ContactRestrict {
            contact: contact?,
            restricted: input.body.restricted,
        });

    /// Lists every erasure of the tenant's contacts, the newest last.
    ListErasures: GET "/v1/tenants/{tenant}/erasures" (OfTenant, NoParameters, Nothing) -> 200 List<Erasure>;
        Tenant, Member, Never;

    /// Shows the progress of an erasure; once complete, it is the receipt.
    ShowErasure: GET "/v1/tenants/{tenant}/erasures/{erasure}" (OfErasure, NoParameters, Nothing) -> 200 Erasure;
        Tenant, Member, Never;

    /// Sets who answers in a conversation from now on: the agent or a human.
    HandleConversation: PUT "/v1/tenants/{tenant}/conversations/{channel}/{account}/{contact}/handling"
        (OfConversation, NoParameters, Handling) -> 202 Nothing;
        Tenant, Member, Around |input, contact| Some(match input.body.by {
            Handler::Human => What::ContactHandOver { conversation: input.path.id() },
            Handler::Agent => What::ContactGiveBack { conversation: input.path.id() },
        });
}

/// Contact named in the query, since an id of a channel may hold any character.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfContact {
    /// Phone number as `+4915112345678`, a channel's id as `whatsapp:ID`, or the contact's own id.
    pub contact: ContactName,
}

impl Parameters for OfContact {}

/// Erasure named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfErasure {
    /// The tenant's id.
    pub tenant: TenantId,
    /// The erasure's id.
    pub erasure: MessageKey,
}

impl Parameters for OfErasure {
    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }
}

/// Conversation named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfConversation {
    /// The tenant's id.
    pub tenant: TenantId,
    /// The kind of channel.
    pub channel: ChannelKind,
    /// The provider's id of the account.
    pub account: AccountId,
    /// The contact's own id.
    pub contact: ContactId,
}

impl Parameters for OfConversation {
    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }
}

impl OfConversation {
    /// The conversation's id.
    #[must_use]
    pub fn id(&self) -> ConversationId {
        let Self { tenant, channel, account, contact } = self.clone();
        ConversationId { tenant, channel, account, contact }
    }
}

impl From<ConversationId> for OfConversation {
    fn from(ConversationId { tenant, channel, account, contact }: ConversationId) -> Self {
        Self { tenant, channel, account, contact }
    }
}

/// Conversation with its current handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConversationState {
    /// The conversation's id: tenant/channel/account/contact.
    pub conversation: ConversationId,
    /// Handler of the conversation: the agent or a human.
    pub by: Handler,
    /// True while the contact's messages are only recorded.
    pub restricted: bool,
}

/// New handler of a conversation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handling {
    /// Handler of the conversation: the agent or a human.
    pub by: Handler,
}

/// Correction of a contact's stored data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// Correct name, 1 to 256 characters on one line; null removes the name.
    #[schemars(length(min = 1, max = NAME_CHARACTERS), regex(pattern = NAME))]
    pub name: Option<String>,
}

/// Pattern of a line that is not blank: no control characters, and at least one that is not Unicode white space.
const NAME: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*\
    [^\\u0000-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]\
    [^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// Restriction of the processing of a contact's data.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restriction {
    /// True to restrict processing to storage.
    pub restricted: bool,
}
