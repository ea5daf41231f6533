//! Sends whose outcome nobody knows: settled by a status, or by policy when none has come.
//!
//! A status of one may be in the log already when the wait is over, so the decision is taken only when
//! everything that is in the log by then has been handled.

use bytes::Bytes;
use heddle_schemas::id::{AccountKey, ContactId, ConversationId, OutboundId};
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, StoreError, Write};
use heddle_schemas::record::event::{Event, Resolution};
use heddle_schemas::record::inbound::{DeliveryReport, DeliveryStatus, InboundEvent, InboundRecord};
use heddle_schemas::record::outbound::{OutboundCommand, Purpose, SendCommand};
use heddle_schemas::record::{V, encode};
use heddle_schemas::table::Key;
use ractor::ActorProcessingErr;

use super::send::{Item, Journal, Origin};
use super::state::{AccountState, Unknown};
use super::{Account, UNKNOWN_LOOK};
use crate::partition::agenda::Entry;
use crate::partition::commit::read;
use crate::partition::publish;
use crate::partition::{PartitionMessage, Receipt};

impl Account {
    /// A report of the channel: settles the send it is about, if that waits for it.
    pub(super) async fn report(
        &self,
        state: &mut AccountState,
        conversation: &ConversationId,
        report: &DeliveryReport,
        receipt: &Receipt,
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let mut batch = Batch { consumed: vec![receipt.consumed()], ..Batch::default() };
        let unknown = state.unknown.contains_key(&report.outbound);
        let may_wait = unknown || state.active.contains_key(&report.outbound) || !state.backlog.is_empty();
        if may_wait {
            // Also for what is still under way: should its owner die now, the next one finds this.
            let key = Key::send(&self.key, &report.outbound);
            let found = read(&ports.metrics, || ports.state.get(&key)).await?;
            let found = found.and_then(|found| serde_json::from_slice::<Journal>(&found).ok());
            if matches!(found, Some(Journal::Attempting { .. } | Journal::Refused { .. })) {
                let journal = match (report.status, &report.failure) {
                    (DeliveryStatus::Failed, failure) => {
                        Journal::Failed { code: failure.as_ref().map_or(0, |failure| failure.code) }
                    }
                    _ => Journal::Sent,
                };
                let expires = ports.clock.now().after(self.context.options.marker_ttl);
                batch.writes.push(Write::put_until(key, encode(&journal), expires));
            }
        }
        if unknown {
            batch.after.push(Write::delete(Key::unknown(&self.key, &report.outbound)));
            batch.outputs.push(self.resolved(conversation, report.outbound, Resolution::Status));
        }
        self.commit(batch).await?;
        if unknown {
            state.unknown.remove(&report.outbound);
            state.queue.free(conversation.contact, report.outbound, None);
        }
        Ok(())
    }

    /// An agenda row is due: looks after the unknown, and keeps one row as long as something waits.
    pub(super) async fn wake(
        &self,
        state: &mut AccountState,
        entry: Entry<AccountKey>,
    ) -> Result<(), ActorProcessingErr> {
        // A partition wakes nobody before it has delivered what it found.
        state.caught_up = true;
        self.look_after_unknown(state).await?;
        let again = if state.waits() && state.row.is_none_or(|row| row == entry.due) {
            state.row = Some(entry.due);
            Some(self.context.ports.clock.now().after(UNKNOWN_LOOK))
        } else {
            self.commit(Batch { writes: vec![Write::delete(self.agenda(entry.due))], ..Batch::default() })
                .await?;
            state.row = state.row.filter(|row| *row != entry.due);
            None
        };
        self.home.tell(PartitionMessage::Woken { entry, again });
        Ok(())
    }

    /// Finds what has been waited for long enough. A status of it may be in the log already, so the
    /// decision is taken when all that is there now has been handled.
    pub(super) async fn look_after_unknown(&self, state: &mut AccountState) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        if !state.overdue.is_empty() {
            return Ok(());
        }
        let wait = self.context.options.unknown_wait;
        let over = |unknown: &Unknown| self.context.intake_gate.waited(unknown.since) >= wait;
        state.overdue =
            state.unknown.iter().filter(|(_, unknown)| over(unknown)).map(|(id, _)| *id).collect();
        if !state.overdue.is_empty() {
            let below = read(&ports.metrics, || ports.log.end(self.home.fence.partition)).await?;
            self.home.tell(PartitionMessage::Barrier { below, key: self.key.clone() });
        }
        Ok(())
    }

    /// Sends again, or gives up, what no status has come for.
    pub(super) async fn give_up_waiting(&self, state: &mut AccountState) -> Result<(), StoreError> {
        for id in std::mem::take(&mut state.overdue) {
            let Some(unknown) = state.unknown.remove(&id) else { continue };
            let OutboundCommand::Send(command) = unknown.item.command else { continue };
            let conversation = unknown.item.conversation;
            let again = self.policy(state, &conversation, &command, unknown.stored).await?;
            state.queue.free(conversation.contact, id, again);
        }
        Ok(())
    }

    pub(super) async fn policy(
        &self,
        state: &mut AccountState,
        conversation: &ConversationId,
        command: &SendCommand,
        stored: Bytes,
    ) -> Result<Option<Item>, StoreError> {
        match command.purpose {
            Purpose::Reply => {
                let event = self.resolved(conversation, command.id, Resolution::SentAgain);
                self.commit(Batch { outputs: vec![event], ..Batch::default() }).await?;
                *state.active.entry(command.id).or_default() += 1;
                Ok(Some(Item {
                    offset: 0,
                    conversation: conversation.clone(),
                    command: command.clone(),
                    stored,
                    origin: Origin::Unknown,
                    look_up: true,
                    refused: 0,
                }))
            }
            Purpose::Campaign => {
                let ports = &self.context.ports;
                let at = ports.clock.now();
                let expires = at.after(self.context.options.marker_ttl);
                let journal = encode(&Journal::GivenUp);
                let report = DeliveryReport {
                    outbound: command.id,
                    status: DeliveryStatus::Failed,
                    at,
                    failure: None,
                    message: None,
                };
                let event = InboundEvent::Delivery(report);
                let notice = InboundRecord { v: V, conversation: conversation.clone(), at, event };
                self.commit(Batch {
                    writes: vec![Write::put_until(Key::send(&self.key, &command.id), journal, expires)],
                    outputs: vec![
                        publish::inbound(ports, &notice),
                        self.resolved(conversation, command.id, Resolution::GivenUp),
                    ],
                    after: vec![Write::delete(Key::unknown(&self.key, &command.id))],
                    ..Batch::default()
                })
                .await?;
                Ok(None)
            }
        }
    }

    /// A status may have come while the call was still under way; then nobody has to wait for it.
    pub(super) async fn settled_meanwhile(
        &self,
        state: &mut AccountState,
        id: OutboundId,
        contact: ContactId,
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let key = Key::send(&self.key, &id);
        let found = read(&ports.metrics, || ports.state.get(&key)).await?;
        let found = found.and_then(|found| serde_json::from_slice::<Journal>(&found).ok());
        if matches!(found, Some(Journal::Taken(_) | Journal::Sent | Journal::Failed { .. })) {
            let Some(unknown) = state.unknown.remove(&id) else { return Ok(()) };
            let event = self.resolved(&unknown.item.conversation, id, Resolution::Status);
            let after = vec![Write::delete(Key::unknown(&self.key, &id))];
            self.commit(Batch { outputs: vec![event], after, ..Batch::default() }).await?;
            state.queue.free(contact, id, None);
        }
        Ok(())
    }

    pub(super) fn resolved(
        &self,
        conversation: &ConversationId,
        outbound: OutboundId,
        by: Resolution,
    ) -> NewRecord {
        self.context.ports.metrics.resolved(by);
        self.event(Event::SendResolved { conversation: conversation.clone(), outbound, by })
    }
}
