//! Erasures of contacts: asked for here, done by the contact's conversations, each in its order with messages.
//!
//! Contract: when [`ask`] returns, the erasure is durable and on its way to every conversation that the contact could
//! have. Asking again for a contact whose erasure is under way sends that one on its way again, which does no harm.

use heddle_schemas::erasure::{Done, Erasure};
use heddle_schemas::id::{ContactId, ConversationId, MessageKey, TenantId};
use heddle_schemas::ports::state::{Scan, StoreError, Swap};
use heddle_schemas::record::inbound::{Forget, InboundEvent, InboundRecord};
use heddle_schemas::record::{V, encode};
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::tenant::Tenant;

use crate::commit::read;
use crate::consent;
use crate::ports::Ports;
use crate::publish;

/// Erasures that are read at once.
const PAGE: usize = 256;

/// Asks for the erasure of a contact.
///
/// # Errors
/// [`StoreError`]; then it may be under way or not, and is to be asked for again.
pub async fn ask(ports: &Ports, tenant: &Tenant, contact: ContactId) -> Result<Erasure, StoreError> {
    let under_way = |erasure: &Erasure| erasure.contact == contact && !erasure.is_complete();
    let erasure = match list(ports, &tenant.id).await?.into_iter().find(under_way) {
        Some(erasure) => erasure,
        None => {
            let accounts =
                tenant.accounts_ever().into_iter().map(|account| (account.channel, account.account));
            let id = MessageKey::from_bytes((ports.random)());
            let erasure = Erasure::new(id, contact, ports.clock.now(), accounts);
            let key = Key::erasure(&tenant.id, id);
            ports.state.compare_and_set(&key, None, Some(encode(&erasure)), None).await?;
            erasure
        }
    };
    // What was stored and not used is not stored any more; who writes anew is answered.
    consent::restrict(ports, &tenant.id, contact, false).await?;
    let event = InboundEvent::Forget(Forget { erasure: erasure.id, at: erasure.at });
    let open = erasure.parts.iter().filter(|part| part.done.is_none());
    let records = open.map(|part| {
        let conversation = ConversationId {
            tenant: tenant.id.clone(),
            channel: part.channel,
            account: part.account.clone(),
            contact,
        };
        let record = InboundRecord { v: V, conversation, at: ports.clock.now(), event: event.clone() };
        publish::inbound(ports, &record)
    });
    ports.log.append(records.collect()).await?;
    Ok(erasure)
}

/// An erasure.
///
/// # Errors
/// [`StoreError`].
pub async fn find(ports: &Ports, tenant: &TenantId, id: MessageKey) -> Result<Option<Erasure>, StoreError> {
    let key = Key::erasure(tenant, id);
    let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
    stored.map(|stored| readable(&key, &stored)).transpose()
}

/// Every erasure of a tenant's contacts, by id.
///
/// # Errors
/// [`StoreError`].
pub async fn list(ports: &Ports, tenant: &TenantId) -> Result<Vec<Erasure>, StoreError> {
    let mut erasures = Vec::new();
    let mut scan = Scan::first(Partition::erasures(tenant), PAGE);
    loop {
        let page = read(&ports.metrics, || ports.state.scan(&scan)).await?;
        for (key, stored) in &page {
            erasures.push(readable(key, stored)?);
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => scan.from = [key.row(), &[0]].concat().into(),
            _ => return Ok(erasures),
        }
    }
}

/// A conversation has done its part. Returns the erasure when that was the last one.
pub(crate) async fn done(
    ports: &Ports,
    conversation: &ConversationId,
    id: MessageKey,
    rows: u64,
) -> Result<Option<Erasure>, StoreError> {
    let key = Key::erasure(&conversation.tenant, id);
    let mut stored = read(&ports.metrics, || ports.state.get(&key)).await?;
    loop {
        // Without a row it was never asked for, or is older than what is kept.
        let Some(found) = &stored else { return Ok(None) };
        let mut erasure = readable(&key, found)?;
        let done = Done { at: ports.clock.now(), rows };
        if !erasure.done(conversation.channel, &conversation.account, done) {
            return Ok(None);
        }
        match ports.state.compare_and_set(&key, stored.clone(), Some(encode(&erasure)), None).await {
            Ok(Swap::Done) => return Ok(erasure.is_complete().then_some(erasure)),
            Ok(Swap::Found(found)) => stored = found,
            Err(error) => return Err(error),
        }
    }
}

fn readable(key: &Key, stored: &[u8]) -> Result<Erasure, StoreError> {
    serde_json::from_slice(stored)
        .map_err(|error| StoreError::Corrupt { detail: format!("{key:?}: no erasure: {error}") })
}
