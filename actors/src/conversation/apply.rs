//! Application of records: acts of customers, and the tenant's commands about the handler.

use std::sync::Arc;

use heddle_schemas::content::{Asks, Content};
use heddle_schemas::id::{MessageKey, TurnId};
use heddle_schemas::ports::channel::ChannelProfile;
use heddle_schemas::ports::keys::Cipher;
use heddle_schemas::ports::state::{Batch, StoreError};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::inbound::{
    Correct, CustomerAct, Handling, InboundEvent, InboundRecord, Restrict, SealedAct, SealedCorrection,
};
use heddle_schemas::record::log_aad;
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::{Day, Timestamp};
use heddle_schemas::topic::Topic;

use super::correct;
use super::draft::Draft;
use super::entity::{Conversation, ConversationState};
use super::fault::{Fault, Remedy, unparsed};
use super::joined::Joined;
use super::loop_guard::Fingerprint;
use super::machine::{Act, Change};
use super::thread::EntrySaid;
use super::turn::{Asked, Ended, Wrote};
use crate::partition::commit::commit;
use crate::partition::{PartitionMessage, Receipt};

/// Changes that an act of the customer makes.
struct Drafted {
    draft: Box<Draft>,
    /// The turn it belongs to, where it asks for an answer.
    turn: Option<TurnId>,
    /// Its text, where it has one.
    text: Option<Wrote>,
}

/// Turn that is decided together with the message that asks for it.
struct AtOnce {
    ended: Ended,
    said: Fingerprint,
}

impl Conversation {
    pub(super) async fn apply(
        &self,
        state: &mut ConversationState,
        record: &InboundRecord,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        let tenant = match &record.event {
            InboundEvent::Leave => None,
            _ => self.context.tenants.find(&self.id.tenant).await?,
        };
        let Some(tenant) = tenant else { return Box::pin(self.part(state, record, receipt)).await };
        match &record.event {
            InboundEvent::Leave => Ok(()),
            InboundEvent::Delivery(report) => Box::pin(self.report(&tenant, report, receipt)).await,
            InboundEvent::Handling(Handling { key, by }) => {
                let change = |draft: &mut Draft| draft.handle(*by);
                Box::pin(self.by_tenant(state, &tenant, *key, change, receipt)).await
            }
            InboundEvent::Restrict(Restrict { key, restricted }) => {
                let change = |draft: &mut Draft| draft.restrict(*restricted);
                Box::pin(self.by_tenant(state, &tenant, *key, change, receipt)).await
            }
            InboundEvent::Correct(correct) => Box::pin(self.correct(state, &tenant, correct, receipt)).await,
            InboundEvent::Send(request) => {
                Box::pin(self.request(state, &tenant, record.at, request, receipt)).await
            }
            InboundEvent::Forget(forget) => Box::pin(self.forget(state, forget, receipt)).await,
            InboundEvent::Customer(act) => {
                if state.loaded.is_none() {
                    Box::pin(self.load(state)).await?;
                }
                let erased_at = state.loaded.as_ref().and_then(|loaded| loaded.erased_at);
                if erased_at.is_some_and(|erased_at| act.sent_at <= erased_at) {
                    // Said before the contact was erased, and delivered late or once more.
                    self.context.ports.metrics.resurrection();
                    return Box::pin(self.acknowledge(receipt)).await;
                }
                match self.seen(state, act.key).await? {
                    Some(turn) => Box::pin(self.duplicate(state, &tenant, turn, receipt)).await,
                    None if self.is_seen_elsewhere(act).await? => {
                        self.context.ports.metrics.duplicate();
                        Box::pin(self.acknowledge(receipt)).await
                    }
                    None => self.customer(state, &tenant, record.at, act, receipt).await,
                }
            }
        }
    }

    /// Settles a record that changes nothing.
    pub(super) async fn acknowledge(&self, receipt: &Receipt) -> Result<(), Fault> {
        Ok(self.commit(Batch { consumed: vec![receipt.consumed()], ..Batch::default() }).await?)
    }

    /// Returns true when a message has been seen, with the turn that it belongs to where it asked for one.
    pub(super) async fn seen(
        &self,
        state: &ConversationState,
        message: MessageKey,
    ) -> Result<Option<Option<TurnId>>, StoreError> {
        if state.loaded.as_ref().is_some_and(|loaded| loaded.seen.lacks(message)) {
            return Ok(None);
        }
        let marker = self.context.ports.state.get(&Key::marker(&self.id, message)).await?;
        Ok(marker.map(|turn| {
            <[u8; 16]>::try_from(&turn[..]).ok().map(|turn| TurnId(MessageKey::from_bytes(turn)))
        }))
    }

    /// Records an act of the customer, and decides its turn where that needs no call outside.
    async fn customer(
        &self,
        state: &mut ConversationState,
        tenant: &Arc<Tenant>,
        accepted_at: Timestamp,
        act: &CustomerAct,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let day = act.sealed.key_number().unwrap_or_default();
        let log = ports.keys.log(&self.id.tenant, Day(day)).await?;
        let joined = match act.also.is_empty() {
            true => None,
            false => Box::pin(self.joined(state, act)).await?,
        };
        let Drafted { mut draft, turn, mut text } =
            self.draft(state, tenant, accepted_at, (act, joined), &*log)?;
        drop(log);

        let mut log = None;
        let mut at_once = None;
        if turn.is_some() && draft.machine.may_decide_at_once(tenant.agent.settle) {
            at_once = Box::pin(self.at_once(state, tenant, &mut draft, act.key, &mut text)).await?;
        }
        match at_once {
            Some(AtOnce { ended, said }) => {
                draft.decide(ended, said, &tenant.agent.loop_guard);
                log = Some(ports.keys.log(&self.id.tenant, draft.now.day()).await?);
            }
            None => draft.due = draft.machine.head.arm(),
        }
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        let publication = self.publication(loaded);
        commit(&*ports.state, &ports.metrics, |again| {
            publication.batch(tenant, &draft, log.as_deref(), Some(receipt.consumed()), again)
        })
        .await?;

        if draft.decided.is_none()
            && let Some(text) = text.filter(|_| turn.is_some())
        {
            state.texts.insert(act.key, text);
        }
        self.committed(state, *draft, accepted_at);
        if let Some(loaded) = &mut state.loaded {
            loaded.seen.add(act.key);
        }
        Ok(())
    }

    /// Decides the turn over one message at once, where that needs no call outside. Where a stored value cannot be
    /// read, the message is still recorded, and its turn goes through the agenda.
    async fn at_once(
        &self,
        state: &mut ConversationState,
        tenant: &Arc<Tenant>,
        draft: &mut Draft,
        key: MessageKey,
        text: &mut Option<Wrote>,
    ) -> Result<Option<AtOnce>, Fault> {
        let responder = (self.context.ports.responders)(tenant);
        // A turn that has to wait for a quota waits in the agenda, where it delays no other records.
        if responder.calls_outside() || !self.context.quotas.tells_at_once(tenant).await {
            return Ok(None);
        }
        let guard = &tenant.agent.loop_guard;
        let said = Fingerprint::of([text.as_ref().map(|wrote| &*wrote.text)].into_iter());
        let decided = async {
            self.publish_last(state, tenant).await?;
            let ended = match draft.stopped(vec![key], said, guard) {
                Some(ended) => ended,
                None => {
                    let wrote = text.take();
                    let is_stop = wrote.as_ref().is_some_and(|wrote| wrote.is_stop);
                    let asked = vec![Asked { key, text: wrote.map(|wrote| wrote.text.into()), is_stop }];
                    self.turn(state, tenant, responder, asked).decide().await?
                }
            };
            Ok(AtOnce { ended, said })
        };
        match decided.await.map_err(Fault::remedy) {
            Ok(at_once) => Ok(Some(at_once)),
            Err(Remedy::SetAside(..)) => Ok(None),
            Err(Remedy::Stop(error) | Remedy::Retry(error)) => Err(error.into()),
            Err(Remedy::Reload(detail)) => Err(Fault::Forgotten(detail)),
            Err(Remedy::Park(detail)) => Err(Fault::Newer(detail)),
        }
    }

    /// Applies the tenant's command about how the conversation goes on.
    async fn by_tenant(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        key: MessageKey,
        change: impl FnOnce(&mut Draft) + Send,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        self.load(state).await?;
        if self.seen(state, key).await?.is_some() {
            return self.acknowledge(receipt).await;
        }
        let ports = &self.context.ports;
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        let now = ports.clock.now();
        let mut draft = Draft::new(&loaded.head, state.running, now);
        change(&mut draft);
        draft.seen = Some((key, None));
        let publication = self.publication(loaded);
        commit(&*ports.state, &ports.metrics, |again| {
            publication.batch(tenant, &draft, None, Some(receipt.consumed()), again)
        })
        .await?;
        self.committed(state, draft, now);
        if let Some(loaded) = &mut state.loaded {
            loaded.seen.add(key);
        }
        Ok(())
    }

    /// Corrects the stored data of the contact, where there is any.
    async fn correct(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        Correct { key, sealed }: &Correct,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let day = Day(sealed.key_number().unwrap_or_default());
        let log = ports.keys.log(&self.id.tenant, day).await?;
        let plain = log.open(&log_aad(Topic::Inbound, key), sealed)?;
        let correction: SealedCorrection = serde_json::from_slice(&plain).map_err(|error| Fault::Dead {
            reason: DeadReason::Shape,
            detail: format!("what is sealed is not a correction: {}", unparsed(&error)),
        })?;
        if ports.state.get(&Key::head(&self.id)).await?.is_none() {
            // They never met here, or it was erased: there is nothing to be put right.
            return self.acknowledge(receipt).await;
        }
        self.load(state).await?;
        let loaded = state.loaded.as_ref().expect("it was loaded");
        let mut changed = Draft::new(&loaded.head, state.running, ports.clock.now());
        correct::correct(&mut changed, loaded, &self.id, correction);
        let change = move |draft: &mut Draft| *draft = changed;
        self.by_tenant(state, tenant, *key, change, receipt).await
    }

    /// The profile of its channel.
    pub(super) fn profile(&self) -> Option<&'static ChannelProfile> {
        self.context.ports.profile(self.id.channel)
    }

    /// Drafts an act of the customer.
    fn draft(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        accepted_at: Timestamp,
        (act, joined): (&CustomerAct, Option<Joined>),
        log: &dyn Cipher,
    ) -> Result<Drafted, Fault> {
        let said = open(act, log)?;
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        let now = self.context.ports.clock.now();
        let mut draft = Box::new(Draft::new(&loaded.head, state.running, now));
        if let Some(joined) = joined {
            joined.apply(&mut draft, loaded, &self.id);
        }
        correct::meet(&mut draft, loaded, &self.id, &said.from);
        let asks = said.content.as_ref().map_or(Asks::Nothing, Content::asks);
        let text = said.content.as_ref().and_then(|content| Wrote::of(self.profile(), tenant, content));
        let is_notice = matches!(said.content, Some(Content::System { .. }));
        let is_silent_stop =
            tenant.consent.stopped_text.is_empty() && text.as_ref().is_some_and(|text| text.is_stop);
        let acted = draft.machine.act(
            &Act {
                key: act.key,
                row: draft.number,
                kind: act.kind,
                target: act.target,
                asks,
                said_at: (!is_notice).then_some(act.sent_at),
                accepted_at,
                is_silent_stop,
            },
            now,
            tenant.agent.settle,
            self.context.options.answer_within,
        );
        if acted.is_late {
            self.context.ports.metrics.late();
        }
        if let Some(edited) = acted.edited {
            state.texts.remove(&edited);
        }
        draft.row.entries.reserve_exact(2);
        draft.row.entries.push(EntrySaid::Customer {
            key: act.key,
            at: act.sent_at,
            kind: act.kind,
            target: act.target,
            act: Box::new(said),
        });
        draft.seen = Some((act.key, acted.turn));
        Ok(Drafted { draft, turn: acted.turn, text })
    }

    /// Makes a durable draft the actor's state. `began` is when the turn that it decides began to wait.
    pub(super) fn committed(&self, state: &mut ConversationState, mut draft: Draft, began: Timestamp) {
        draft.settle();
        let ports = &self.context.ports;
        if let Some((_, tally)) = &draft.decided {
            ports.metrics.turn(&tally.outcome, ports.clock.now().since(began).as_secs_f64());
        }
        if draft.changes.iter().any(|change| matches!(change, Change::LoopStopped { .. })) {
            ports.metrics.loop_stopped();
        }
        state.running = draft.machine.running;
        if let Some(loaded) = &mut state.loaded {
            loaded.head = draft.machine.head;
            loaded.published |= draft.decided.is_some();
            if let Some(address) = draft.address {
                loaded.address = address;
            }
            if let Some(corrected) = draft.corrected {
                loaded.corrected = corrected;
            }
            if let Some(names) = draft.former_names {
                loaded.former_names = names;
            }
        }
        if let Some(due) = draft.due {
            self.home.tell(PartitionMessage::Armed { due, key: self.id.clone() });
        }
    }
}

/// Opens the channel's content.
fn open(act: &CustomerAct, log: &dyn Cipher) -> Result<SealedAct, Fault> {
    let plain = log.open(&log_aad(Topic::Inbound, &act.key), &act.sealed)?;
    serde_json::from_slice(&plain).map_err(|error| Fault::Dead {
        reason: DeadReason::Unreadable,
        detail: format!("what is sealed is not an act: {}", unparsed(&error)),
    })
}
