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

/// Characters of a name at most.
pub const NAME_CHARACTERS: usize = 256;

operations! {
    /// Consents and opt-outs of a contact, with the evidence.
    ShowConsents: GET "/v1/tenants/{tenant}/contacts/consent" (OfTenant, OfContact, Nothing) -> 200 Consents;
        Tenant, Member, Never;

    /// The conversations that a contact has had, by the ids that events and the handling of a conversation name, and who
    /// answers in each.
    ListConversations: GET "/v1/tenants/{tenant}/contacts/conversations"
        (OfTenant, OfContact, Nothing) -> 200 List<ConversationState>;
        Tenant, Member, Never;

    /// Enters a consent or an opt-out. What was said last holds.
    EnterConsent: POST "/v1/tenants/{tenant}/contacts/consent" (OfTenant, OfContact, ConsentEntry) -> 200 Consents;
        Tenant, Member, Around |input, contact| Some(What::ContactConsent {
            contact: contact?,
            given: input.body.says == Says::Give,
        });

    /// Puts right the name that is kept of a contact. It holds until the channel shows another name than it showed
    /// then.
    CorrectContact: PUT "/v1/tenants/{tenant}/contacts/correction" (OfTenant, OfContact, Correction) -> 202 Nothing;
        Tenant, Member, Around |input, contact| Some(What::ContactCorrect { contact: contact? });

    /// All that is kept of a contact, opened: its conversations, what was said in them, how far messages have come,
    /// which tools were called, its consents and erasures, and who did what with it. It is sent as it is read; cut
    /// off, it broke off.
    ExportContact: GET "/v1/tenants/{tenant}/contacts/export" (OfTenant, OfContact, Nothing) -> 200 Document;
        Tenant, Admin, Opened |input, contact| Some(What::ContactExport { contact: contact? }),
        within std::time::Duration::from_secs(24 * 3_600);

    /// Has a contact forgotten: its key is destroyed, its rows are removed. Asking twice does no harm.
    ForgetContact: POST "/v1/tenants/{tenant}/contacts/forget" (OfTenant, OfContact, Nothing) -> 202 Erasure;
        Tenant, Admin, Around |input, contact| Some(What::ContactErase { contact: contact? });

    /// Has what is kept of a contact stored and not used, or used again. Asking twice does no harm.
    RestrictContact: PUT "/v1/tenants/{tenant}/contacts/restriction" (OfTenant, OfContact, Restriction) -> 202 Consents;
        Tenant, Member, Around |input, contact| Some(What::ContactRestrict {
            contact: contact?,
            restricted: input.body.restricted,
        });

    /// Every erasure of the tenant's contacts, the newest last.
    ListErasures: GET "/v1/tenants/{tenant}/erasures" (OfTenant, NoParameters, Nothing) -> 200 List<Erasure>;
        Tenant, Member, Never;

    /// Progress of an erasure; complete, it is the receipt.
    ShowErasure: GET "/v1/tenants/{tenant}/erasures/{erasure}" (OfErasure, NoParameters, Nothing) -> 200 Erasure;
        Tenant, Member, Never;

    /// Says who answers in a conversation from now on: the agent, or a human.
    HandleConversation: PUT "/v1/tenants/{tenant}/conversations/{channel}/{account}/{contact}/handling"
        (OfConversation, NoParameters, Handling) -> 202 Nothing;
        Tenant, Member, Around |input, contact| Some(match input.body.by {
            Handler::Human => What::ContactHandOver { conversation: input.path.id() },
            Handler::Agent => What::ContactGiveBack { conversation: input.path.id() },
        });
}

/// A contact, named in the query: an id of a channel may hold any character.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfContact {
    /// A phone number as `+4915112345678`, a channel's id as `whatsapp:ID`, or the contact's own id.
    pub contact: ContactName,
}

impl Parameters for OfContact {}

/// An erasure, named in the path.
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

/// A conversation, named in the path.
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

/// A conversation, and who answers in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConversationState {
    /// The conversation's id: tenant/channel/account/contact.
    pub conversation: ConversationId,
    /// The agent, or a human.
    pub by: Handler,
    /// True while what the contact says is only recorded.
    pub restricted: bool,
}

/// Handling of a conversation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handling {
    /// The agent, or a human.
    pub by: Handler,
}

/// A correction of what is kept of a contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// The right name, 1 to 256 characters of one line; null where none is to be kept.
    #[schemars(length(min = 1, max = NAME_CHARACTERS), regex(pattern = NAME))]
    pub name: Option<String>,
}

/// A line that is not blank: no control characters, and one that is not among Unicode's white space.
const NAME: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*\
    [^\\u0000-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]\
    [^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// Restriction of what is kept of a contact.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restriction {
    /// True to have it stored only.
    pub restricted: bool,
}
