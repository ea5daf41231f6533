//! Requests of the tenant to send the contact a message, outside of the agent's turns.
//!
//! Contract: a request is decided once, in the order of the conversation's records. Its message, the entry of the
//! thread and the marker of its key are one batch. A redelivery publishes the message again, under the same id, unless
//! a report on it is stored already; the account's journal knows whether it has left. It is withheld, with a report,
//! where the contact's data is restricted or the tenant's quota is spent. Consent and window are checked by the
//! account, right before the call.

use std::sync::Arc;

use bytes::Bytes;
use heddle_schemas::consent::Category;
use heddle_schemas::content::Address;
use heddle_schemas::id::{ContactId, MessageKey, OutboundId, TurnId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::inbound::{DeliveryFailure, DeliveryStatus, Request, SealedRequest, Withheld};
use heddle_schemas::record::{V, encode, log_aad};
use heddle_schemas::retention::Kind;
use heddle_schemas::table::{Key, SpentBy};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::{Day, Timestamp};
use heddle_schemas::topic::Topic;

use super::correct;
use super::draft::Draft;
use super::entity::{Conversation, ConversationState};
use super::fault::{Fault, unparsed};
use super::reports::Delivery;
use super::thread::EntrySaid;
use crate::partition::commit::commit;
use crate::partition::{Receipt, publish};
use crate::tenant::quota::amounts::{Amounts, Totals};
use crate::tenant::quota::{ChunkOf, Hold, QuotaError};

/// The number under which its use is journaled: it has one attempt.
const ATTEMPT: u32 = 1;

/// A message that the tenant sends.
pub(super) struct Requested {
    /// Hash of the request's idempotency key.
    pub(super) key: MessageKey,
    /// The purpose that needs the contact's consent.
    pub(super) category: Category,
    /// The content.
    pub(super) content: OutgoingContent,
    /// The quota lease that it uses; none where it is published again.
    pub(super) chunk: Option<ChunkOf>,
    /// True when it may have been published before.
    pub(super) again: bool,
}

impl Requested {
    /// The id of the message of a request to this contact.
    pub(super) fn outbound(&self, contact: ContactId) -> OutboundId {
        outbound(contact, self.key)
    }

    /// The turn that stands for the request in the quota's journal.
    pub(super) fn turn(&self) -> TurnId {
        TurnId(self.key)
    }

    /// Returns its use, as the quota's journal records it.
    pub(super) fn spent(&self) -> Option<(ChunkOf, u32, Totals)> {
        self.chunk.map(|chunk| (chunk, ATTEMPT, Totals::MESSAGE))
    }
}

/// Returns the id of the message of a request, whose key is the hash of its idempotency key.
#[must_use]
pub fn outbound(contact: ContactId, key: MessageKey) -> OutboundId {
    OutboundId::of_turn(contact, TurnId(key), 0)
}

impl Conversation {
    /// Decides a request, or publishes its message again.
    pub(super) async fn request(
        &self,
        state: &mut ConversationState,
        tenant: &Arc<Tenant>,
        requested_at: Timestamp,
        request: &Request,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        self.load(state).await?;
        let ports = &self.context.ports;
        let erased_at = state.loaded.as_ref().and_then(|loaded| loaded.erased_at);
        if erased_at.is_some_and(|erased_at| requested_at <= erased_at) {
            ports.metrics.resurrection();
            return self.acknowledge(receipt).await;
        }
        let SealedRequest { to, content } = self.open_request(request).await?;
        let Request { key, category, .. } = *request;
        let mut requested = Requested { key, category, content, chunk: None, again: false };
        if self.seen(state, key).await?.is_some() {
            requested.again = true;
            return self.publish_again(state, tenant, requested, receipt).await;
        }
        let is_restricted =
            state.loaded.as_ref().is_some_and(|loaded| loaded.head.restricted_since.is_some());
        if is_restricted {
            return self.withhold(state, tenant, requested, Withheld::Restricted.code(), receipt).await;
        }
        let need = Amounts { messages: 1, ..Amounts::NONE };
        let hold = match self.context.quotas.take(tenant, need).await {
            Ok(hold) => hold,
            Err(QuotaError::Spent { .. }) => {
                return self.withhold(state, tenant, requested, DeliveryFailure::QUOTA_SPENT, receipt).await;
            }
            Err(QuotaError::Store(error)) => return Err(error.into()),
        };
        requested.chunk = Some(hold.chunk());
        self.send(state, tenant, requested, &to, hold, receipt).await
    }

    async fn open_request(&self, Request { key, sealed, .. }: &Request) -> Result<SealedRequest, Fault> {
        let day = Day(sealed.key_number().unwrap_or_default());
        let log = self.context.ports.keys.log(&self.id.tenant, day).await?;
        let plain = log.open(&log_aad(Topic::Inbound, key), sealed)?;
        serde_json::from_slice(&plain).map_err(|error| Fault::Dead {
            reason: DeadReason::Shape,
            detail: format!("what is sealed is no request: {}", unparsed(&error)),
        })
    }

    /// Records the message and publishes it, after what a crash may have left unpublished of the turn before.
    async fn send(
        &self,
        state: &mut ConversationState,
        tenant: &Arc<Tenant>,
        requested: Requested,
        to: &Address,
        hold: Hold,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let by = SpentBy::new(self.id.contact, requested.turn(), ATTEMPT);
        let reserved = self.context.quotas.reserved(tenant, &hold, &by);
        self.commit(Batch { writes: vec![reserved], ..Batch::default() }).await?;
        self.publish_last(state, tenant).await?;
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        let now = ports.clock.now();
        let mut draft = Draft::new(&loaded.head, state.running, now);
        correct::meet(&mut draft, loaded, &self.id, to);
        draft.row.entries.push(EntrySaid::Sent {
            key: requested.key,
            at: now,
            category: requested.category,
            content: Box::new(requested.content.clone()),
        });
        draft.seen = Some((requested.key, None));
        let key = requested.key;
        draft.requested = Some(requested);
        let log = ports.keys.log(&self.id.tenant, now.day()).await?;
        let publication = self.publication(loaded);
        commit(&*ports.state, &ports.metrics, |again| {
            publication.batch(tenant, &draft, Some(&*log), Some(receipt.consumed()), again)
        })
        .await?;
        hold.settle(Totals::MESSAGE.amounts());
        self.committed(state, draft, now);
        if let Some(loaded) = &mut state.loaded {
            loaded.seen.add(key);
        }
        Ok(())
    }

    /// Publishes the message of a request that was decided before, unless a report shows that this was done.
    async fn publish_again(
        &self,
        state: &ConversationState,
        tenant: &Tenant,
        requested: Requested,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        ports.metrics.duplicate();
        let delivery = Key::delivery(&self.id, &requested.outbound(self.id.contact));
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        let mut outputs = Vec::new();
        if ports.state.get(&delivery).await?.is_none() {
            ports.metrics.republished();
            let now = ports.clock.now();
            let log = ports.keys.log(&tenant.id, now.day()).await?;
            let publication = self.publication(loaded);
            outputs.push(publication.request(&loaded.head, &requested, &loaded.address, now, &*log));
        }
        self.commit(Batch { outputs, consumed: vec![receipt.consumed()], ..Batch::default() }).await?;
        Ok(())
    }

    /// Settles a request as not sent, with the report that the account would have published.
    async fn withhold(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        requested: Requested,
        code: i64,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let (now, outbound) = (ports.clock.now(), requested.outbound(self.id.contact));
        let failure = Some(DeliveryFailure::of(code));
        let written = Some(now);
        let delivery = Delivery { status: DeliveryStatus::Failed, at: now, failure, pricing: None, written };
        let remember = now.after(self.context.options.marker_ttl);
        let writes = vec![
            Write::put_until(Key::marker(&self.id, requested.key), Bytes::new(), remember),
            Write::put_until(
                Key::delivery(&self.id, &outbound),
                encode(&delivery),
                now.after(tenant.retention.of(Kind::Receipts)),
            ),
        ];
        let mut outputs = Vec::new();
        if code == Withheld::Restricted.code() {
            ports.metrics.withheld(Withheld::Restricted);
            let event = Event::SendWithheld {
                conversation: self.id.clone(),
                outbound,
                because: Withheld::Restricted,
            };
            let record = EventRecord { v: V, tenant: self.id.tenant.clone(), at: now, event };
            outputs.push(publish::event(ports, &record));
        }
        self.commit(Batch { writes, outputs, consumed: vec![receipt.consumed()], ..Batch::default() })
            .await?;
        if let Some(loaded) = &mut state.loaded {
            loaded.seen.add(requested.key);
        }
        Ok(())
    }
}
