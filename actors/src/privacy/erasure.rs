//! Erasures of contacts: asked for here, done by the contact's conversations, each in its order with messages.
//!
//! Contract: when [`ask`] returns, the erasure is durable and on its way to every conversation that the contact could
//! have. A durable erasure survives every crash: a row keeps it open until it is complete and published, and
//! [`OpenErasures`] sends open erasures on their way again. That is harmless, and so is asking again.

use std::collections::HashMap;
use std::time::Duration;

use heddle_schemas::erasure::{Done, Erasure};
use heddle_schemas::id::{AccountId, ChannelKind, ContactId, ConversationId, MessageKey, TenantId};
use heddle_schemas::ports::state::{Scan, StoreError, Swap};
use heddle_schemas::ports::update::Change;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::inbound::{Forget, InboundEvent, InboundRecord};
use heddle_schemas::record::{V, encode};
use heddle_schemas::retry::RetryPolicy;
use heddle_schemas::table::{Key, Partition};

use crate::audience;
use crate::intake::consent;
use crate::intake::identity::{Person, person};
use crate::partition::commit::read;
use crate::partition::pages::{Page, Pages};
use crate::partition::publish;
use crate::partition::update::update;
use crate::ports::Ports;
use crate::privacy::tenant_deletion;

/// Erasures that are read at once.
const PAGE: usize = 256;
/// Time for which an erasure is left to its requester.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses until it is sent again: a conversation that is stalled for days does not receive hundreds of the same record.
const AGAIN: RetryPolicy = RetryPolicy::endless(PATIENCE, Duration::from_secs(3_600));

/// Asks for the erasure of a person: of a contact and of those that turned out to be the same person, in their
/// conversations with these accounts.
///
/// # Errors
/// [`StoreError`]; the erasure may then be under way or not, and is to be requested again.
pub async fn ask(
    ports: &Ports,
    tenant: &TenantId,
    accounts: impl IntoIterator<Item = (ChannelKind, AccountId)>,
    contact: ContactId,
) -> Result<Erasure, StoreError> {
    let Person { contact, also } = person(&*ports.state, tenant, contact).await?;
    let key = Key::open_erasure(tenant, contact);
    let id = MessageKey::from_bytes((ports.random)());
    let mut new = Erasure::new(id, contact, ports.clock.now(), accounts);
    new.extend(&also);
    let mut stored = ports.state.get(&key).await?;
    let asked = loop {
        let Some(open) = &stored else {
            match ports.state.compare_and_set(&key, None, Some(encode(&new)), None).await? {
                Swap::Done => break new,
                Swap::Found(found) => stored = found,
            }
            continue;
        };
        let open = readable(&key, open)?;
        match find(ports, tenant, open.id).await? {
            Some(complete) if complete.is_complete() => {
                close(ports, tenant, &complete).await?;
                stored = None;
            }
            _ => break open,
        }
    };
    let erasure = Key::erasure(tenant, asked.id);
    ports.state.compare_and_set(&erasure, None, Some(encode(&asked)), None).await?;
    // One that is under way may be from before it was known that both are one person.
    update(ports, &erasure, |found| {
        let mut erasure = found.map_or_else(|| Ok(asked.clone()), |found| readable(&erasure, found))?;
        Ok::<_, StoreError>(match !erasure.is_complete() && erasure.extend(&also) {
            true => Change::put(encode(&erasure), ()),
            false => Change::Keep(()),
        })
    })
    .await?;
    go_on(ports, tenant, &asked).await
}

/// Sends the open parts of an erasure on their way; `asked` is its first state.
async fn go_on(ports: &Ports, tenant: &TenantId, asked: &Erasure) -> Result<Erasure, StoreError> {
    let key = Key::erasure(tenant, asked.id);
    let erasure = match ports.state.compare_and_set(&key, None, Some(encode(asked)), None).await? {
        Swap::Done | Swap::Found(None) => asked.clone(),
        Swap::Found(Some(found)) => readable(&key, &found)?,
    };
    audience::forget(ports, tenant, erasure.contact).await?;
    // Messages that were only stored are not stored any more; new ones are answered.
    consent::lift_restriction(ports, tenant, erasure.contact, erasure.requested_at).await?;
    let event = InboundEvent::Forget(Forget { erasure: erasure.id, at: erasure.at });
    let open = erasure.parts.iter().filter(|part| part.done.is_none());
    let records = open.map(|part| {
        let conversation = erasure.conversation(tenant, part);
        let record = InboundRecord { v: V, conversation, at: ports.clock.now(), event: event.clone() };
        publish::inbound(ports, &record)
    });
    ports.log.append(records.collect()).await?;
    Ok(erasure)
}

/// Returns an erasure.
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
    let stored = all(ports, Partition::erasures(tenant)).await?;
    stored.into_iter().map(|(_, erasure)| Ok(erasure)).collect()
}

/// Returns a page of the erasures of a tenant's contacts, behind a row, by id.
///
/// # Errors
/// [`StoreError`].
pub async fn page(
    ports: &Ports,
    tenant: &TenantId,
    after: Option<&Key>,
) -> Result<Page<Erasure>, StoreError> {
    let scan = Scan::first(Partition::erasures(tenant), PAGE);
    Page::read(ports, scan, after, |key, stored| readable(key, stored).map(Some)).await
}

async fn all(ports: &Ports, partition: Partition) -> Result<Vec<(Key, Erasure)>, StoreError> {
    let mut erasures = Vec::new();
    let mut pages = Pages::new(ports, Scan::first(partition, PAGE));
    while let Some(page) = pages.next().await? {
        for (key, stored) in page {
            let erasure = readable(&key, &stored)?;
            erasures.push((key, erasure));
        }
    }
    Ok(erasures)
}

/// Records that a conversation has done its part. Returns the erasure when that was the last one.
pub(crate) async fn done(
    ports: &Ports,
    conversation: &ConversationId,
    id: MessageKey,
    rows: u64,
) -> Result<Option<Erasure>, StoreError> {
    let key = Key::erasure(&conversation.tenant, id);
    let at = ports.clock.now();
    update(ports, &key, |found| {
        // Without a row it was never requested, or is older than the retention.
        let Some(found) = found else { return Ok(Change::Keep(None)) };
        let mut erasure = readable(&key, found)?;
        if !erasure.done(conversation, Done { at, rows }) {
            // An attempt without an answer may have been the last part.
            let ours = erasure.part(conversation);
            let ours = ours.is_some_and(|part| part.done == Some(Done { at, rows }));
            return Ok(Change::Keep((ours && erasure.is_complete()).then_some(erasure)));
        }
        let complete = erasure.is_complete().then(|| erasure.clone());
        Ok(Change::put(encode(&erasure), complete))
    })
    .await
}

/// Publishes that an erasure is complete, at least once, and then closes it.
pub(crate) async fn close(ports: &Ports, tenant: &TenantId, complete: &Erasure) -> Result<(), StoreError> {
    let key = Key::open_erasure(tenant, complete.contact);
    let Some(stored) = ports.state.get(&key).await? else { return Ok(()) };
    if readable(&key, &stored)?.id != complete.id {
        // It was closed, and the contact has been erased once more since.
        return Ok(());
    }
    audience::forget_unreadable(ports, tenant, complete.contact).await?;
    let event = Event::Forgotten {
        erasure: complete.id,
        contact: complete.contact,
        requested_at: complete.requested_at,
        rows: complete.rows(),
    };
    let event = EventRecord { v: V, tenant: tenant.clone(), at: ports.clock.now(), event };
    ports.log.append(vec![publish::event(ports, &event)]).await?;
    // Another node that removes it has published it too.
    if ports.state.compare_and_set(&key, Some(stored), None, None).await? == Swap::Done {
        ports.metrics.forgotten();
    }
    Ok(())
}

/// Erasures that are not complete, continued by the leader.
#[derive(Debug, Default)]
pub(crate) struct OpenErasures {
    /// Time at which each is sent again next, by the clock's elapsed time, and number of times so far. At most the open
    /// ones. It is lost with the node: the next leader sends all of them once.
    next: HashMap<MessageKey, (Duration, u32)>,
}

impl OpenErasures {
    /// Checks once: sends erasures that have been open for a while on their way again, and publishes complete ones.
    pub(crate) async fn check(&mut self, ports: &Ports) -> Result<(), StoreError> {
        let (now, elapsed) = (ports.clock.now(), ports.clock.elapsed());
        let open = all(ports, Partition::open_erasures()).await?;
        let oldest = open.iter().map(|(_, erasure)| now.since(erasure.requested_at)).max();
        ports.metrics.erasures(open.len(), oldest.unwrap_or_default());
        self.next.retain(|id, _| open.iter().any(|(_, erasure)| erasure.id == *id));
        for (key, asked) in open {
            let Some((tenant, _)) = key.of_open_erasure() else { continue };
            let (at, times) = self.next.get(&asked.id).copied().unwrap_or_default();
            // The requester, or the conversation that did the last part, is at work.
            if at > elapsed || now.since(asked.requested_at) < PATIENCE {
                continue;
            }
            let times = times.saturating_add(1);
            self.next.insert(asked.id, (elapsed + AGAIN.pause(times), times));
            // A failing one delays no other.
            if let Err(error) = resume(ports, &tenant, &asked).await {
                tracing::warn!(%error, %tenant, erasure = %asked.id, "erasure failed for now, retrying");
            }
        }
        Ok(())
    }
}

async fn resume(ports: &Ports, tenant: &TenantId, asked: &Erasure) -> Result<(), StoreError> {
    if tenant_deletion::find(ports, tenant).await?.is_some() {
        // The whole tenant is deleted, this row too.
        return Ok(());
    }
    match find(ports, tenant, asked.id).await? {
        Some(complete) if complete.is_complete() => close(ports, tenant, &complete).await,
        _ => {
            tracing::info!(%tenant, erasure = %asked.id, "erasure still open, sending it again");
            go_on(ports, tenant, asked).await.map(drop)
        }
    }
}

fn readable(key: &Key, stored: &[u8]) -> Result<Erasure, StoreError> {
    serde_json::from_slice(stored)
        .map_err(|error| StoreError::Corrupt { detail: format!("{key:?}: no erasure: {error}") })
}
