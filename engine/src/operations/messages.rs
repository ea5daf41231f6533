//! Handlers of the operations on messages of the business.
//!
//! A request is checked, then remembered under its idempotency key, then published to its conversation, which sends it
//! in its own order. What is remembered is a keyed hash of the whole request under a keyed hash of the key: the same
//! request under the same key is published again, which the conversation recognises; another one is refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_actors::conversation::export::Reading;
use heddle_actors::conversation::request::outbound;
use heddle_actors::intake::consent;
use heddle_actors::partition::publish;
use heddle_actors::tenant::quota;
use heddle_api::Input;
use heddle_api::messages::{AcceptedMessage, KEY_CHARACTERS, NewMessage, SendMessage};
use heddle_api::problem::ErrorKind;
use heddle_schemas::consent::Standing;
use heddle_schemas::content::Address;
use heddle_schemas::id::{ChannelKind, ContactId, ConversationId, MessageKey, TenantId};
use heddle_schemas::ports::channel::ChannelAccount;
use heddle_schemas::ports::keys::TenantCipher;
use heddle_schemas::ports::state::{StoreError, Swap};
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord, Request, SealedRequest};
use heddle_schemas::record::{V, encode_for, log_aad};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::Topic;

use super::{Call, Handler, Named, OperationError, Operations, Subject, identity_error};

/// Time for which a request is remembered under its key. The conversation remembers it for longer
/// ([`heddle_actors::options::Options::marker_ttl`]), so that what is published again is recognised.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);

/// A request that may be sent as far as is known now.
pub struct Sendable {
    tenant: Arc<Tenant>,
    conversation: ConversationId,
    to: Address,
}

impl Subject<SendMessage> for Sendable {
    async fn find(operations: &Operations, input: &mut Input<SendMessage>) -> Result<Self, OperationError> {
        let tenant = operations.tenant(&input.path.tenant)?;
        let message = &input.body;
        let length = message.idempotency_key.chars().count();
        if length == 0 || length > KEY_CHARACTERS {
            let why = format!("idempotency_key: has {length} characters, 1 to {KEY_CHARACTERS} are allowed");
            return Err(OperationError::invalid("invalid_message", why));
        }
        let (contact, to, kind) = operations.recipient(&tenant.id, message).await?;
        let account = account(&tenant, message, kind, &to)?;
        operations.check_content(account, message)?;
        let conversation = ConversationId {
            tenant: tenant.id.clone(),
            channel: account.kind,
            account: account.account.clone(),
            contact,
        };
        Ok(Self { tenant, conversation, to })
    }

    fn contact(&self) -> Option<ContactId> {
        Some(self.conversation.contact)
    }
}

impl Handler for SendMessage {
    type Subject = Sendable;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        subject: Sendable,
    ) -> Result<AcceptedMessage, OperationError> {
        let Sendable { tenant, conversation, to } = subject;
        let ports = &operations.ports;
        let cipher = ports.keys.tenant(&tenant.id).await?;
        let key = cipher.hash("request", input.body.idempotency_key.as_bytes());
        let accepted = AcceptedMessage { outbound: outbound(conversation.contact, key), conversation };
        let NewMessage { content, purpose, .. } = &input.body;
        let known = operations.remembered(&tenant.id, key).await?;
        if known.is_none() {
            operations.check_state(&tenant, &accepted.conversation, &to, &input.body).await?;
        }
        operations.remember(&tenant.id, key, digest(&*cipher, &accepted, &input.body)).await?;
        let at = ports.clock.now();
        let log = ports.keys.log(&tenant.id, at.day()).await?;
        let request = SealedRequest { to, content: content.clone() };
        let place = log_aad(Topic::Inbound, &key);
        let sealed = encode_for(&request, |plain| log.seal(&place, plain));
        let event = InboundEvent::Send(Request { key, category: *purpose, sealed });
        let record = InboundRecord { v: V, conversation: accepted.conversation.clone(), at, event };
        ports.log.append(vec![publish::inbound(ports, &record)]).await?;
        Ok(accepted)
    }
}

/// Keyed hash of all that decides what is sent, and to whom.
fn digest(cipher: &dyn TenantCipher, accepted: &AcceptedMessage, message: &NewMessage) -> MessageKey {
    let request = (&accepted.conversation, &message.content, message.purpose);
    encode_for(&request, |plain| cipher.hash("request-content", plain))
}

fn conflict(code: &'static str, why: impl Into<String>) -> OperationError {
    OperationError::new(ErrorKind::Conflict, code, why.into())
}

/// The account that sends: the one that is named, that the address belongs to, or the only one of the channel.
fn account<'t>(
    tenant: &'t Tenant,
    message: &NewMessage,
    kind: Option<ChannelKind>,
    to: &Address,
) -> Result<&'t ChannelAccount, OperationError> {
    let own = to.chat.as_ref().map(|chat| &chat.account);
    let (kind, named) = (message.channel.or(kind), message.account.as_ref().or(own));
    let fits = |account: &&ChannelAccount| {
        kind.is_none_or(|kind| account.kind == kind) && named.is_none_or(|named| account.account == *named)
    };
    let found: Vec<_> = tenant.channels.iter().filter(fits).collect();
    match found.as_slice() {
        [account] => Ok(account),
        [] => Err(OperationError::invalid("unknown_account", "account: the tenant has no such account")),
        accounts => {
            let names: Vec<_> =
                accounts.iter().map(|account| format!("{}/{}", account.kind, account.account)).collect();
            let why = format!("account: name the one that sends, of {}", names.join(", "));
            Err(OperationError::invalid("ambiguous_account", why))
        }
    }
}

impl Operations {
    async fn recipient(
        &self,
        tenant: &TenantId,
        message: &NewMessage,
    ) -> Result<(ContactId, Address, Option<ChannelKind>), OperationError> {
        match self.named(&message.contact)? {
            Named::Id(contact) => Ok((contact, Address::default(), None)),
            Named::Met(kind, address) => {
                let resolved = self.identity.resolve(tenant, kind, &address).await;
                Ok((resolved.map_err(|error| identity_error(error, tenant))?, address, Some(kind)))
            }
        }
    }

    fn check_content(&self, account: &ChannelAccount, message: &NewMessage) -> Result<(), OperationError> {
        let Some(profile) = self.ports.profile(account.kind) else {
            return Err(OperationError::invalid("unknown_account", "channel: this node has no such channel"));
        };
        let faults = message.content.faults(&profile.content);
        if faults.is_empty() {
            return Ok(());
        }
        let faults: Vec<_> = faults.iter().map(|fault| format!("content.{fault}")).collect();
        Err(OperationError::invalid("invalid_content", faults.join("; ")))
    }

    /// Refuses now what would be withheld later, as far as it is known.
    async fn check_state(
        &self,
        tenant: &Tenant,
        conversation: &ConversationId,
        to: &Address,
        message: &NewMessage,
    ) -> Result<(), OperationError> {
        let ports = &self.ports;
        match consent::standing(ports, &tenant.id, conversation.contact, message.purpose).await? {
            Standing::Stopped => {
                let why = format!("the contact has opted out of {} messages", message.purpose);
                return Err(conflict("opted_out", why));
            }
            Standing::Restricted => {
                return Err(conflict("restricted", "the use of the contact's data is restricted"));
            }
            Standing::Unknown | Standing::Given => {}
        }
        let kept = Reading::begin(ports, conversation).await?.map(|reading| reading.kept);
        if kept.is_none() && *to == Address::default() {
            let why = "the contact has no conversation with this account; name it by its number or id";
            return Err(conflict("no_conversation", why));
        }
        let now = ports.clock.now();
        let window = ports.profile(conversation.channel).and_then(|profile| profile.reply_window);
        if let Some(window) = window.filter(|_| message.content.kind().is_free_form()) {
            let is_open = kept.is_some_and(|kept| kept.customer_at.after(window) > now);
            if !is_open {
                let why = "the contact has not written within the reply window; only a template can be sent";
                return Err(conflict("window_over", why));
            }
        }
        let usage = quota::usage(ports, tenant, tenant.hours.time_zone.month(now)).await?;
        if usage.spent.messages >= usage.limit.messages {
            return Err(conflict("quota_spent", "the tenant's messages of this month are spent"));
        }
        Ok(())
    }

    async fn remembered(&self, tenant: &TenantId, key: MessageKey) -> Result<Option<Bytes>, StoreError> {
        self.ports.state.get(&Key::request(tenant, key)).await
    }

    /// Remembers a request under its key, unless it is.
    async fn remember(
        &self,
        tenant: &TenantId,
        key: MessageKey,
        digest: MessageKey,
    ) -> Result<(), OperationError> {
        let (row, digest) = (Key::request(tenant, key), Bytes::copy_from_slice(&digest.to_bytes()));
        let expires = self.ports.clock.now().after(REMEMBERED);
        let swap = self.ports.state.compare_and_set(&row, None, Some(digest.clone()), Some(expires)).await?;
        match swap {
            Swap::Done => Ok(()),
            Swap::Found(Some(found)) if found == digest => Ok(()),
            Swap::Found(_) => {
                let why = "another message was requested under this idempotency key";
                Err(conflict("idempotency_key_reused", why))
            }
        }
    }
}
