//! Effects of the machine, performed.

use std::time::Duration;

use heddle_schemas::ports::state::{Batch, StoreError, Write};
use heddle_schemas::record::V;
use heddle_schemas::record::event::Event as PublishedEvent;
use heddle_schemas::record::inbound::{
    DeliveryFailure, DeliveryReport, DeliveryStatus, InboundEvent, InboundRecord,
};
use heddle_schemas::table::Key;
use ractor::{ActorProcessingErr, ActorRef};

use super::machine::{Access, Effect, Event, Status};
use super::schedule::lanes::Message;
use super::send::{Ended, Journal, Send};
use super::sources::{Item, Origin, Rows, Source};
use super::state::AccountState;
use super::{Account, AccountMessage};
use crate::partition::{PartitionMessage, publish};

/// The shortest time that the account sleeps: the resolution of timers.
const SHORTEST: Duration = Duration::from_millis(1);

impl Account {
    /// Moves messages from their sources into the machine, starts those that may leave now, and sets the next wake-up.
    pub(super) async fn pump(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
    ) -> Result<(), ActorProcessingErr> {
        let ports = &self.context.ports;
        let mut rows = Rows { ports, account: &self.key, cursor: &mut state.cursor };
        let sources: [&mut dyn Source; 3] = [&mut state.unknowns, &mut state.backlog, &mut state.delivered];
        for source in sources {
            source.next(&mut rows, &mut state.machine).await?;
        }
        self.spill(myself, state);
        self.acknowledge(myself, state);
        let now = ports.clock.elapsed();
        if !state.machine.lanes.is_empty() {
            if state.machine.asks_access(now) {
                let access = self.access(state).await;
                if let Access::Ready { limit, .. } = access {
                    state.gate.set_limit(limit);
                }
                let effects = state.machine.on(Event::Access(access), now);
                self.perform(myself, state, effects).await?;
            }
            let (room, room_at) = state.gate.room();
            let effects = state.machine.on(Event::Tick { room, room_at }, now);
            self.perform(myself, state, effects).await?;
        } else {
            let idle_at = state.machine.idle_at();
            if idle_at > now && state.machine.is_empty() {
                self.wake_at(myself, state, idle_at);
            }
        }
        if state.backlog.has_more {
            self.wake_at(myself, state, now);
        }
        Ok(())
    }

    /// Returns how the account may be used. Whether it is disconnected is asked only where it is not configured.
    async fn access(&self, state: &AccountState) -> Access {
        if self.context.tenants.foreign(&self.key.tenant).is_some() {
            return Access::Disconnected;
        }
        if let Some(config) = self.tenant().as_deref().and_then(|tenant| self.config(tenant))
            && let Some(profile) = self.context.ports.profile(self.key.channel)
        {
            return Access::Ready { credentials: config.credentials.clone(), limit: config.pace(profile) };
        }
        let is_known = *state.machine.status() == Status::Disconnected;
        match is_known || self.context.tenants.is_disconnected(&self.key).await.unwrap_or(false) {
            true => Access::Disconnected,
            false => Access::Missing,
        }
    }

    /// Performs effects in their order.
    pub(super) async fn perform(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
        effects: Vec<Effect<Item>>,
    ) -> Result<(), ActorProcessingErr> {
        for effect in effects {
            match effect {
                Effect::Prepare(item) => self.send(myself, state, item, true),
                Effect::Withhold(item) => self.send(myself, state, item, false),
                Effect::Park => self.park(state, Vec::new()).await?,
                Effect::Recall => state.gate.recall(),
                Effect::Probe(probing) => state.gate.with(|release, _| release.set_probing(probing)),
                Effect::Suspended { is_new, code } => self.suspended(is_new, code).await?,
                Effect::Unsuspended => self.context.ports.metrics.stopped(-1),
                Effect::Resumed => self.resumed().await?,
                Effect::WakeAt(at) => self.wake_at(myself, state, at),
                Effect::Release(id) => state.seen.extend(state.kept.remove(&id).into_iter().flatten()),
                Effect::SettleBy(item, report) => {
                    let came = state.kept.remove(&report.outbound).unwrap_or_default();
                    self.settle_by(state, Some(item), &report, came).await?;
                }
                Effect::Resolve(report) => {
                    let came = state.kept.remove(&report.outbound).unwrap_or_default();
                    self.settle_by(state, None, &report, came).await?;
                }
                Effect::Fail(item, code) => self.fail(state, item, code).await?,
                Effect::Drop(id, item) => self.drop_erased(state, id, item).await?,
                // Answers to a status or to the end of a wait, performed where that came.
                Effect::Acknowledge(_) | Effect::Keep(_) | Effect::Lift(_) => {}
                Effect::Repeat(_) | Effect::GiveUp(_) => {}
            }
        }
        Ok(())
    }

    fn send(&self, myself: &ActorRef<AccountMessage>, state: &mut AccountState, item: Item, is_paced: bool) {
        let Some(channel) = self.context.ports.channels.get(&self.key.channel) else {
            // Without its channel it is not configured, which is found before anything is prepared.
            return;
        };
        let send = Send {
            context: self.context.clone(),
            account: self.key.clone(),
            fence: self.home.fence,
            channel: channel.clone(),
        };
        state.under_way.insert(item.id(), item.erased.clone());
        let slot = is_paced.then(|| state.gate.prepare());
        let myself = myself.clone();
        state.tasks.spawn(async move {
            let ended = Box::new(send.run(item, slot).await);
            drop(myself.send_message(AccountMessage::Ended(ended)));
        });
    }

    /// Applies the end of a send.
    pub(super) async fn ended(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
        ended: Ended,
    ) -> Result<(), ActorProcessingErr> {
        use super::machine::End;
        let Ended { item, end, left_at, due } = ended;
        state.under_way.remove(&item.id());
        let leaves = matches!(end, End::Settled { .. } | End::Unknown { .. });
        if leaves && matches!(item.origin, Origin::Backlog { .. }) {
            self.rows_changed(state, -1);
        }
        if let Some(due) = due {
            self.home.tell(PartitionMessage::Armed { due, key: self.key.clone() });
        }
        if let End::Refused { error, .. } = &end {
            tracing::debug!(account = %self.key, %error, "send failed, retrying");
        }
        let now = self.context.ports.clock.elapsed();
        let effects = state.machine.on(Event::Ended(item, end, left_at), now);
        self.perform(myself, state, effects).await
    }

    pub(super) fn wake_at(&self, myself: &ActorRef<AccountMessage>, state: &mut AccountState, at: Duration) {
        let now = self.context.ports.clock.elapsed();
        if state.wake.as_ref().is_some_and(|(set, _)| *set <= at && *set > now) {
            return;
        }
        if let Some((_, later)) = state.wake.take() {
            later.abort();
        }
        let wait = at.saturating_sub(now).max(SHORTEST);
        state.wake = Some((now + wait, myself.send_after(wait, || AccountMessage::Tick)));
    }

    async fn suspended(&self, is_new: bool, code: Option<i64>) -> Result<(), StoreError> {
        self.context.ports.metrics.stopped(1);
        if !is_new {
            return Ok(());
        }
        tracing::error!(
            account = %self.key, ?code,
            "the account is suspended; apply its tenant with valid credentials, or settle it with the provider"
        );
        let (channel, account) = (self.key.channel, self.key.account.clone());
        let event = self.event(PublishedEvent::AccountStopped { channel, account, code });
        self.commit(Batch { outputs: vec![event], ..Batch::default() }).await
    }

    async fn resumed(&self) -> Result<(), StoreError> {
        tracing::info!(account = %self.key, "account resumed, sending again");
        let (channel, account) = (self.key.channel, self.key.account.clone());
        let event = self.event(PublishedEvent::AccountResumed { channel, account });
        self.commit(Batch { outputs: vec![event], ..Batch::default() }).await
    }

    /// Fails a message that was refused too often.
    async fn fail(&self, state: &mut AccountState, item: Item, code: i64) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let (id, at) = (item.id(), ports.clock.now());
        let failure = Some(DeliveryFailure::of(code));
        let report = DeliveryReport {
            outbound: id,
            status: DeliveryStatus::Failed,
            at,
            failure,
            message: None,
            pricing: None,
        };
        let event = InboundEvent::Delivery(report);
        let notice = InboundRecord { v: V, conversation: item.conversation.clone(), at, event };
        let mut batch = Batch {
            writes: vec![self.journal(id, &Journal::Failed { code })],
            outputs: vec![publish::inbound(ports, &notice)],
            ..Batch::default()
        };
        item.settle(&self.key, &mut batch);
        self.commit(batch).await?;
        self.gone(state, &item);
        Ok(())
    }

    /// Drops a message whose contact was erased while it was under way: the journal keeps it from being sent, and no
    /// other data about the person is written.
    async fn drop_erased(
        &self,
        state: &mut AccountState,
        id: heddle_schemas::id::OutboundId,
        item: Option<Item>,
    ) -> Result<(), StoreError> {
        let mut batch = Batch { writes: vec![self.journal(id, &Journal::GivenUp)], ..Batch::default() };
        match &item {
            Some(item) => item.settle(&self.key, &mut batch),
            None => batch.after.push(Write::delete(Key::unknown(&self.key, &id))),
        }
        self.commit(batch).await?;
        if let Some(item) = &item {
            self.gone(state, item);
        }
        Ok(())
    }

    /// Removes a message that has left its source.
    fn gone(&self, state: &mut AccountState, item: &Item) {
        if matches!(item.origin, Origin::Backlog { .. }) {
            self.rows_changed(state, -1);
        }
    }
}
