//! What leaves when: the pump, and what each end of a call means for the account.

use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::ports::channel::{Channel, FailureClass, SendError};
use heddle_schemas::ports::state::{Batch, StoreError};
use heddle_schemas::record::decode;
use heddle_schemas::record::event::Event;
use heddle_schemas::record::outbound::OutboundRecord;
use ractor::{ActorProcessingErr, ActorRef};

use super::send::{Ended, Item, Origin, Send};
use super::state::{AccountState, Stopped, Unknown};
use super::{Account, AccountMessage};
use crate::partition::PartitionMessage;

/// How long a message may keep its record in work before it is moved to the backlog.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause after the first passing failure of a message, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

impl Account {
    /// Starts what may leave now, and sets when to look again.
    pub(super) async fn pump(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.context.ports.clock.elapsed();
        self.read_backlog(state).await?;
        if state.queue.iter_mut().any(|item| item.is_overdue(now, PATIENCE)) {
            self.keep(state, Vec::new()).await?;
        }
        if state.queue.is_empty() {
            return Ok(());
        }
        self.look_at(myself, state, now, now + PATIENCE);
        if self.is_cut_off(state, now).await {
            self.resume(state);
            state.proving = false;
            let channels = &self.context.ports.channels;
            while state.queue.busy() < self.context.options.account_calls.get()
                && let Some(channel) = channels.get(&self.key.channel)
                && let Some((_, item)) = state.queue.next(now, |_| Duration::ZERO)
            {
                self.send(myself, state, channel, item);
            }
            return Ok(());
        }
        if let Some(stopped) = &state.stopped {
            if stopped.probe_at > now {
                return Ok(());
            }
            self.resume(state);
        }
        let tenant = self.tenant();
        let access = tenant.as_deref().and_then(|tenant| self.config(tenant));
        let channel = self.context.ports.channels.get(&self.key.channel);
        let (Some(config), Some(channel)) = (access, channel) else {
            let error = SendError::new(FailureClass::Blocked, "the account is not configured");
            self.stop(state, &error, now).await?;
            return Ok(());
        };
        state.pace.set(config.pace(channel.profile()));
        let received = self.context.intake_gate.take_received(&self.key);
        if received > 0 && channel.profile().counts_inbound {
            state.pace.received(received, now);
        }
        let one_by_one = state.proving || state.breaker.is_probing();
        let calls = if one_by_one { 1 } else { self.context.options.account_calls.get() };
        while state.queue.busy() < calls && !state.queue.is_empty() {
            let wait = state.breaker.wait(now).max(state.pace.wait(now));
            if let Some(wait) = wait {
                self.look_at(myself, state, now, now + wait);
                break;
            }
            let pairs = &state.pairs;
            let Some((contact, item)) = state.queue.next(now, |contact| pairs.free_at(contact)) else {
                if let Some(at) = state.queue.next_at(|contact| pairs.free_at(contact)) {
                    self.look_at(myself, state, now, at);
                }
                break;
            };
            state.pace.sent(now);
            state.pairs.sent(contact, now);
            self.send(myself, state, channel, item);
        }
        Ok(())
    }

    /// Whether the account is disconnected, or its tenant's data stays in another region: nothing that waits is sent
    /// then. Asked once, until the configuration
    /// changes.
    async fn is_cut_off(&self, state: &mut AccountState, now: Duration) -> bool {
        if self.context.tenants.foreign(&self.key.tenant).is_some() {
            state.cut_off = true;
        } else if self.tenant().as_deref().and_then(|tenant| self.config(tenant)).is_some() {
            state.cut_off = false;
        } else if !state.cut_off && state.stopped.as_ref().is_none_or(|stopped| stopped.probe_at <= now) {
            // Where that is not known, it is a stopped account for now, and asked again.
            state.cut_off = self.context.tenants.is_disconnected(&self.key).await.unwrap_or(false);
        }
        state.cut_off
    }

    pub(super) fn send(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
        channel: &Arc<dyn Channel>,
        item: Item,
    ) {
        let send = Send {
            context: self.context.clone(),
            account: self.key.clone(),
            fence: self.home.fence,
            channel: channel.clone(),
        };
        let myself = myself.clone();
        state.sends.spawn(async move {
            let ended = Box::new(send.run(item).await);
            drop(myself.send_message(AccountMessage::Ended(ended)));
        });
    }

    pub(super) fn look_at(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
        now: Duration,
        at: Duration,
    ) {
        if state.look.as_ref().is_some_and(|(set, _)| *set <= at && *set > now) {
            return;
        }
        if let Some((_, later)) = state.look.take() {
            later.abort();
        }
        let wait = at.saturating_sub(now).max(Duration::from_millis(1));
        state.look = Some((at, myself.send_after(wait, || AccountMessage::Look)));
    }

    pub(super) async fn ended(
        &self,
        state: &mut AccountState,
        ended: Result<(Item, Ended), StoreError>,
    ) -> Result<(), ActorProcessingErr> {
        while state.sends.try_join_next().is_some() {}
        let (item, ended) = ended?;
        let now = self.context.ports.clock.elapsed();
        let contact = item.contact();
        if matches!(item.origin, Origin::Backlog) && !matches!(ended, Ended::Refused(_)) {
            self.rows_changed(state, -1);
        }
        match ended {
            Ended::Settled { called } => {
                state.left(item.command.id);
                state.queue.done(contact);
                if called {
                    state.breaker.succeeded();
                    self.proved(state).await?;
                }
            }
            Ended::Unknown(due) => {
                let id = item.command.id;
                state.left(id);
                let record = decode::<OutboundRecord>(&item.stored);
                state.queue.hold(contact, id);
                if let Ok(record) = record {
                    let since = self.context.intake_gate.open_for();
                    state.unknown.insert(id, Unknown { item: record, stored: item.stored, since });
                }
                self.home.tell(PartitionMessage::Armed { due, key: self.key.clone() });
                self.settled_meanwhile(state, id, contact).await?;
            }
            Ended::Refused(error) => self.refused(state, item, error, now).await?,
        }
        Ok(())
    }

    pub(super) async fn refused(
        &self,
        state: &mut AccountState,
        item: Item,
        error: SendError,
        now: Duration,
    ) -> Result<(), StoreError> {
        let contact = item.contact();
        let pause = match error.class {
            FailureClass::PairLimited => {
                let limit =
                    self.context.ports.profile(self.key.channel).and_then(|profile| profile.pair_limit);
                limit.map_or(PAUSES.1, |limit| limit.pause(item.refused))
            }
            FailureClass::RateLimited => {
                state.breaker.limited(now, error.retry_after);
                Duration::ZERO
            }
            FailureClass::Unauthorized | FailureClass::Blocked => {
                state.queue.again(contact, item, now);
                return self.stop(state, &error, now).await;
            }
            _ => {
                state.breaker.failed(now);
                let pause = PAUSES.0 * 2_u32.saturating_pow(item.refused.min(16));
                error.retry_after.unwrap_or(pause.min(PAUSES.1))
            }
        };
        tracing::debug!(account = %self.key, %error, pause_ms = pause.as_millis(), "a send is tried again");
        state.queue.again(contact, item, now + pause);
        Ok(())
    }

    /// Stops the account: all that waits in memory leaves the log.
    pub(super) async fn stop(
        &self,
        state: &mut AccountState,
        error: &SendError,
        now: Duration,
    ) -> Result<(), StoreError> {
        let first_time = state.stopped.is_none();
        if first_time {
            let tenant = self.tenant();
            let config = tenant.as_deref().and_then(|tenant| self.config(tenant));
            let credentials = config.map(|config| config.credentials.clone()).unwrap_or_default();
            let probe_at = now + self.context.options.stopped_probe;
            state.stopped = Some(Stopped { credentials, probe_at });
            self.context.ports.metrics.stopped(1);
        }
        let mut outputs = Vec::new();
        if first_time && !state.proving {
            tracing::error!(
                account = %self.key, %error,
                "the account is stopped; apply its tenant with valid credentials, or settle it with the provider"
            );
            outputs.push(self.event(Event::AccountStopped {
                channel: self.key.channel,
                account: self.key.account.clone(),
                code: error.code,
            }));
        }
        self.keep(state, outputs).await
    }

    pub(super) fn resume(&self, state: &mut AccountState) {
        if state.stopped.take().is_some() {
            self.context.ports.metrics.stopped(-1);
            state.proving = true;
        }
    }

    /// The first call that comes through after a stop ends it for good.
    pub(super) async fn proved(&self, state: &mut AccountState) -> Result<(), StoreError> {
        if !std::mem::take(&mut state.proving) {
            return Ok(());
        }
        tracing::info!(account = %self.key, "the account sends again");
        let resumed = Event::AccountResumed { channel: self.key.channel, account: self.key.account.clone() };
        self.commit(Batch { outputs: vec![self.event(resumed)], ..Batch::default() }).await
    }

    /// A stopped account goes on when its credentials are others.
    pub(super) async fn reconfigured(&self, state: &mut AccountState) -> Result<(), StoreError> {
        state.cut_off = false;
        let tenant = self.tenant();
        let config = tenant.as_deref().and_then(|tenant| self.config(tenant));
        let fresh = match (&mut state.stopped, config) {
            (Some(stopped), Some(config)) => stopped.credentials != config.credentials,
            (Some(stopped), None) => {
                // It may be disconnected now, which is asked when it would be tried.
                stopped.probe_at = self.context.ports.clock.elapsed();
                false
            }
            (None, _) => false,
        };
        if fresh {
            self.resume(state);
        }
        Ok(())
    }
}
