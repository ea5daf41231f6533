//! Statuses of the channel, and the settlement of sends of unknown outcome.

use heddle_schemas::id::{AccountKey, ConversationId, OutboundId};
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, StoreError, Write};
use heddle_schemas::record::event::{Event as PublishedEvent, Resolution};
use heddle_schemas::record::inbound::{DeliveryReport, DeliveryStatus, InboundEvent, InboundRecord};
use heddle_schemas::record::outbound::Purpose;
use heddle_schemas::record::{V, encode};
use heddle_schemas::table::Key;
use ractor::{ActorProcessingErr, ActorRef};

use super::machine::{Effect, Event};
use super::send::Journal;
use super::sources::{Item, Origin, Rows};
use super::state::AccountState;
use super::{Account, AccountMessage, UNKNOWN_CHECK};
use crate::partition::agenda::Entry;
use crate::partition::commit::read;
use crate::partition::publish;
use crate::partition::{PartitionMessage, Receipt};

/// The journal of a send that a status is about.
fn journal_of(report: &DeliveryReport) -> Journal {
    match report.status {
        DeliveryStatus::Failed => {
            Journal::Failed { code: report.failure.as_ref().map_or(0, |failure| failure.code) }
        }
        _ => Journal::Sent,
    }
}

impl Account {
    /// Takes a status: settles the send it is about, if that waits for it.
    pub(super) async fn report(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
        report: DeliveryReport,
        receipt: Receipt,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.context.ports.clock.elapsed();
        let mut receipt = Some(receipt);
        for effect in state.machine.on(Event::Reported(report), now) {
            let came = receipt.take().into_iter().collect::<Vec<_>>();
            match effect {
                Effect::Acknowledge(report) => self.seen(state, &report, came).await?,
                Effect::Keep(report) => state.kept.entry(report.outbound).or_default().extend(came),
                Effect::SettleBy(item, report) => self.settle_by(state, Some(item), &report, came).await?,
                Effect::Resolve(report) => self.settle_by(state, None, &report, came).await?,
                Effect::Lift(report) => self.lift(&report, came).await?,
                other => self.perform(myself, state, vec![other]).await?,
            }
        }
        Ok(())
    }

    /// Handles a status that nothing in memory waits for. Where rows wait that were called before, it may be about one.
    async fn seen(
        &self,
        state: &mut AccountState,
        report: &DeliveryReport,
        came: Vec<Receipt>,
    ) -> Result<(), StoreError> {
        if !state.cursor.is_empty() {
            let ports = &self.context.ports;
            let key = Key::send(&self.key, &report.outbound);
            let found = read(&ports.metrics, || ports.state.get(&key)).await?;
            let found = found.and_then(|found| serde_json::from_slice::<Journal>(&found).ok());
            if matches!(found, Some(Journal::Attempting { .. } | Journal::Refused { .. })) {
                let batch = Batch {
                    writes: vec![self.journal(report.outbound, &journal_of(report))],
                    ..consumed(&came)
                };
                return self.commit(batch).await;
            }
        }
        state.seen.extend(came);
        Ok(())
    }

    /// Settles a message that waits to be tried again, or a send of unknown outcome, by its status.
    pub(super) async fn settle_by(
        &self,
        state: &mut AccountState,
        item: Option<Item>,
        report: &DeliveryReport,
        came: Vec<Receipt>,
    ) -> Result<(), StoreError> {
        let id = report.outbound;
        let mut batch = Batch { writes: vec![self.journal(id, &journal_of(report))], ..consumed(&came) };
        match &item {
            Some(item) => item.settle(&self.key, &mut batch),
            None => {
                batch.after.push(Write::delete(Key::unknown(&self.key, &id)));
                batch.outputs.push(self.resolved(self.key.conversation(id.contact), id, Resolution::Status));
            }
        }
        self.commit(batch).await?;
        if item.is_some_and(|item| matches!(item.origin, Origin::Backlog { .. })) {
            self.rows_changed(state, -1);
        }
        Ok(())
    }

    /// Lifts an abandoned send: the channel had accepted the message after all.
    async fn lift(&self, report: &DeliveryReport, came: Vec<Receipt>) -> Result<(), StoreError> {
        let id = report.outbound;
        let event = self.resolved(self.key.conversation(id.contact), id, Resolution::Status);
        let writes = vec![self.journal(id, &journal_of(report))];
        self.commit(Batch { writes, outputs: vec![event], ..consumed(&came) }).await
    }

    /// Handles a due agenda row: checks the sends of unknown outcome, and keeps one row as long as something waits.
    pub(super) async fn wake(
        &self,
        state: &mut AccountState,
        entry: Entry<AccountKey>,
    ) -> Result<(), ActorProcessingErr> {
        // A partition wakes no entity before it has delivered the records it found.
        state.cursor.is_caught_up = true;
        self.check_unknown(state).await?;
        let again = if state.waits() && state.row.is_none_or(|row| row == entry.due) {
            state.row = Some(entry.due);
            Some(self.context.ports.clock.now().after(UNKNOWN_CHECK))
        } else {
            self.commit(Batch { writes: vec![Write::delete(self.agenda(entry.due))], ..Batch::default() })
                .await?;
            state.row = state.row.filter(|row| *row != entry.due);
            None
        };
        self.home.tell(PartitionMessage::Woken { entry, again });
        Ok(())
    }

    /// Finds the sends whose wait is over. A status of one may be in the log already, so the decision is taken when
    /// everything that is there now has been handled.
    async fn check_unknown(&self, state: &mut AccountState) -> Result<(), StoreError> {
        if !state.overdue.is_empty() {
            return Ok(());
        }
        let ports = &self.context.ports;
        let (gate, wait) = (&self.context.intake_gate, self.context.options.unknown_wait);
        let unknown = state.machine.unknown.iter();
        let over = unknown.filter(|(_, unknown)| gate.is_over(&self.key, unknown.since, wait));
        state.overdue = over.map(|(id, _)| *id).collect();
        if !state.overdue.is_empty() {
            let below = read(&ports.metrics, || ports.log.end(self.home.fence.partition)).await?;
            self.home.tell(PartitionMessage::Barrier { below, key: self.key.clone() });
        }
        Ok(())
    }

    /// Sends again, or abandons, the messages whose wait for a status is over.
    pub(super) async fn waited(&self, state: &mut AccountState) -> Result<(), StoreError> {
        let now = self.context.ports.clock.elapsed();
        for id in std::mem::take(&mut state.overdue) {
            if !state.machine.unknown.contains_key(&id) {
                continue;
            }
            let rows = Rows { ports: &self.context.ports, account: &self.key, cursor: &mut state.cursor };
            let found = rows.unknown(id).await?;
            // A row that is gone, or cannot be read, cannot be sent.
            let (purpose, repeated) = found
                .as_ref()
                .map_or((Purpose::Campaign, 0), |(item, repeated)| (item.command.purpose, *repeated));
            let mut item = found.map(|(item, _)| item);
            for effect in state.machine.on(Event::Waited { id, purpose, repeated }, now) {
                let Some(item) = item.take() else { break };
                match effect {
                    Effect::Repeat(_) => {
                        self.repeat(&item.conversation, id, repeated + 1).await?;
                        state.unknowns.push(Item { repeated: repeated + 1, ..item });
                    }
                    _ => self.give_up(&item.conversation, id, purpose, repeated).await?,
                }
            }
        }
        Ok(())
    }

    /// Writes down that a reply is sent again, before it is.
    async fn repeat(
        &self,
        conversation: &ConversationId,
        id: OutboundId,
        repeated: u32,
    ) -> Result<(), StoreError> {
        let writes = vec![self.journal(id, &Journal::Attempting { attempt: 1, repeated })];
        let outputs = vec![self.resolved(conversation.clone(), id, Resolution::SentAgain)];
        self.commit(Batch { writes, outputs, ..Batch::default() }).await
    }

    /// Settles a send as unknown for good.
    async fn give_up(
        &self,
        conversation: &ConversationId,
        id: OutboundId,
        purpose: Purpose,
        repeated: u32,
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let reason = match purpose {
            Purpose::Reply => "as many repetitions as engine.unknown_repeats allows brought no status",
            _ => "no status came, and only replies are repeated",
        };
        tracing::warn!(%conversation, outbound = %id, repeated, reason, "a send of unknown outcome is abandoned");
        let at = ports.clock.now();
        let report = DeliveryReport {
            outbound: id,
            status: DeliveryStatus::Failed,
            at,
            failure: None,
            message: None,
            pricing: None,
        };
        let (conversation, event) = (conversation.clone(), InboundEvent::Delivery(report));
        let notice = InboundRecord { v: V, conversation: conversation.clone(), at, event };
        self.commit(Batch {
            writes: vec![self.journal(id, &Journal::GivenUp)],
            outputs: vec![
                publish::inbound(ports, &notice),
                self.resolved(conversation, id, Resolution::GivenUp),
            ],
            after: vec![Write::delete(Key::unknown(&self.key, &id))],
            ..Batch::default()
        })
        .await
    }

    /// The write of a journal.
    pub(super) fn journal(&self, id: OutboundId, journal: &Journal) -> Write {
        let expires = self.context.ports.clock.now().after(self.context.options.marker_ttl);
        Write::put_until(Key::send(&self.key, &id), encode(journal), expires)
    }

    fn resolved(&self, conversation: ConversationId, outbound: OutboundId, by: Resolution) -> NewRecord {
        self.context.ports.metrics.resolved(by);
        self.event(PublishedEvent::SendResolved { conversation, outbound, by })
    }
}

/// The batch that settles these records.
pub(super) fn consumed(came: &[Receipt]) -> Batch {
    Batch { consumed: came.iter().map(Receipt::consumed).collect(), ..Batch::default() }
}
