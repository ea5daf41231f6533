//! Ends of a send, each in one batch: the journal, the removal of the message from its source, and the notice to its
//! conversation.
//!
//! Of a message whose contact is being erased the journal alone is written: it keeps the message from being sent, and a
//! notice would become a row about the person.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use heddle_schemas::consent::{Category, How, Says};
use heddle_schemas::id::{AccountKey, OutboundId};
use heddle_schemas::ports::channel::Accepted;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::state::{Batch, StoreError, Write};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::inbound::{
    DeliveryFailure, DeliveryReport, DeliveryStatus, InboundEvent, InboundRecord, Withheld,
};
use heddle_schemas::record::{V, encode};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

use super::{Journal, Send, Step};
use crate::account::machine::Sendable;
use crate::account::sources::{Item, Origin};
use crate::intake::consent::{self, Statement};
use crate::partition::commit::{self, commit};
use crate::partition::publish;

impl Send {
    /// Settles a message as not sent.
    pub(super) async fn withhold(&self, item: &Item, why: Withheld) -> Result<Step, StoreError> {
        self.context.ports.metrics.withheld(why);
        let (conversation, outbound) = (item.conversation.clone(), item.command.id);
        let event = Event::SendWithheld { conversation, outbound, because: why };
        self.settle(item, &Journal::Failed { code: why.code() }, None, Some(event)).await?;
        Ok(Step::Settled { proves: false })
    }

    /// Records that the contact wants no more marketing, as the channel says: it holds from now on, for every sender.
    pub(super) async fn opted_out(&self, item: &Item, code: i64) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let tenant = &self.account.tenant;
        let at = ports.clock.now();
        let mut pause = commit::PAUSES.0;
        let events = loop {
            let recorded = async {
                let cipher = ports.keys.tenant(tenant).await?;
                let id = format!("{}/{}", self.account, item.command.id);
                let statement = Statement {
                    says: Says::Stop,
                    categories: vec![Category::Marketing],
                    at,
                    how: How::ChannelError,
                    key: cipher.hash("message", id.as_bytes()),
                    text: Some(code.to_string()),
                };
                Ok(consent::record(ports, tenant, &*cipher, item.contact(), &statement).await?)
            };
            match recorded.await {
                Ok(events) => break events,
                Err(KeysError::Store(error)) if error.is_transient() => {
                    ports.metrics.store_retried(&error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(commit::PAUSES.1);
                }
                Err(KeysError::Store(StoreError::Corrupt { detail })) => {
                    // It counts as an opt-out as it is.
                    tracing::error!(%tenant, detail, "an opt-out cannot be recorded");
                    break Vec::new();
                }
                Err(KeysError::Store(error)) => return Err(error),
                // The tenant's key is gone, and with it everything that could be sent.
                Err(_) => break Vec::new(),
            }
        };
        self.commit(Batch { outputs: events, ..Batch::default() }).await
    }

    /// Learns the ids that the channel's answer shows of the recipient. Where that fails, nothing waits for it: the
    /// statuses of the message show them again.
    pub(super) async fn learn(&self, accepted: &Accepted) {
        let AccountKey { tenant, channel, .. } = &self.account;
        let at = self.context.ports.clock.now();
        if let Err(error) = self.context.identity.learn(tenant, *channel, &accepted.shows, at).await {
            tracing::warn!(%error, account = %self.account, "ids of a recipient were not learnt");
        }
    }

    /// Writes the journal.
    pub(super) async fn journal(&self, item: &Item, journal: &Journal) -> Result<(), StoreError> {
        let write = self.journal_write(&item.command.id, journal);
        self.commit(Batch { writes: vec![write], ..Batch::default() }).await
    }

    fn journal_write(&self, outbound: &OutboundId, journal: &Journal) -> Write {
        let expires = self.context.ports.clock.now().after(self.context.options.marker_ttl);
        Write::put_until(Key::send(&self.account, outbound), encode(journal), expires)
    }

    /// Settles a send, reports it to its conversation, and publishes the event.
    pub(super) async fn settle(
        &self,
        item: &Item,
        journal: &Journal,
        accepted: Option<&Accepted>,
        event: Option<Event>,
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let mut batch =
            Batch { writes: vec![self.journal_write(&item.command.id, journal)], ..Batch::default() };
        if !item.erased.load(Ordering::Acquire) {
            let at = ports.clock.now();
            let (status, failure) = match journal {
                Journal::Failed { code } => (DeliveryStatus::Failed, Some(DeliveryFailure::of(*code))),
                Journal::GivenUp => (DeliveryStatus::Failed, None),
                Journal::Taken(taken) if taken.held => (DeliveryStatus::Held, None),
                _ => (DeliveryStatus::Sent, None),
            };
            let message = match accepted {
                Some(accepted) => self.message_key(&accepted.message_id).await?,
                None => None,
            };
            let report =
                DeliveryReport { outbound: item.command.id, status, at, failure, message, pricing: None };
            let (conversation, event_of) = (item.conversation.clone(), InboundEvent::Delivery(report));
            let notice = InboundRecord { v: V, conversation, at, event: event_of };
            batch.outputs.push(publish::inbound(ports, &notice));
            let tenant = self.account.tenant.clone();
            let event = event.map(|event| publish::event(ports, &EventRecord { v: V, tenant, at, event }));
            batch.outputs.extend(event);
        }
        item.settle(&self.account, &mut batch);
        self.commit(batch).await
    }

    /// Keyed hash of the channel's id of a message; `None` once the tenant's key is gone.
    async fn message_key(&self, id: &str) -> Result<Option<heddle_schemas::id::MessageKey>, StoreError> {
        match self.context.ports.keys.tenant(&self.account.tenant).await.map_err(KeysError::passing) {
            Ok(cipher) => Ok(Some(cipher.hash("message", format!("{}/{id}", self.account).as_bytes()))),
            Err(Ok(error)) => Err(error),
            Err(Err(_)) => Ok(None),
        }
    }

    /// Drops a message whose contact is being erased: it is not called again, and nothing is said of it.
    pub(super) async fn drop_erased(&self, item: &Item) -> Result<(), StoreError> {
        self.settle(item, &Journal::GivenUp, None, None).await
    }

    /// Puts a send among those of unknown outcome. Returns when its wait is over.
    pub(super) async fn unknown(&self, item: &Item) -> Result<Timestamp, StoreError> {
        let ports = &self.context.ports;
        ports.metrics.unknown();
        let now = ports.clock.now();
        let due = now.after(self.context.options.unknown_wait);
        let event = EventRecord {
            v: V,
            tenant: self.account.tenant.clone(),
            at: now,
            event: Event::SendUnknown { conversation: item.conversation.clone(), outbound: item.command.id },
        };
        let agenda = Key::agenda(self.fence.partition, due, self.account.to_string().as_bytes());
        let row = Key::unknown(&self.account, &item.command.id);
        let mut batch = Batch {
            writes: vec![Write::put(row, item.origin.stored().clone()), Write::put(agenda, Bytes::new())],
            outputs: vec![publish::event(ports, &event)],
            ..Batch::default()
        };
        if !matches!(item.origin, Origin::Unknown { .. }) {
            item.settle(&self.account, &mut batch);
        }
        self.commit(batch).await?;
        Ok(due)
    }

    /// Dead-letters a message, as it came.
    pub(super) async fn bury(&self, item: &Item, reason: DeadReason, why: String) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let came = item.record(self.fence, &self.account, ports);
        let outputs = vec![publish::dead_letter(ports, &came, reason, why, 1)];
        let mut batch = Batch { outputs, ..Batch::default() };
        item.settle(&self.account, &mut batch);
        self.commit(batch).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let batch = Batch { fence: Some(self.fence), ..batch };
        commit(&*ports.state, &ports.metrics, |_| batch.clone()).await
    }
}
