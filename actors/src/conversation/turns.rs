//! Turns from the agenda: a due row begins one, and its end is committed.
//!
//! Contract: at most one turn runs, and every wake-up is answered to the partition exactly once, when its row is
//! settled. A decided turn is kept until it is durable, for as long as the store is unavailable, and never causes a
//! second call outside. A row that fails for good is set aside with its reason and retried after a growing pause, so
//! that it blocks neither its partition nor other turns.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use heddle_schemas::id::{ConversationId, TurnId};
use heddle_schemas::ports::responder::{Responder, Usage};
use heddle_schemas::ports::state::{Batch, StoreError, Write};
use heddle_schemas::record::event::Outcome;
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use ractor::{ActorProcessingErr, ActorRef};

use super::contact_limits::Limited;
use super::draft::Draft;
use super::entity::{Conversation, ConversationMessage, ConversationState};
use super::fault::Fault;
use super::head::{Head, Wake};
use super::loop_guard::Fingerprint;
use super::machine::{self, Running};
use super::outbox::Outbox;
use super::turn::{Asked, Ended, Turn, Wrote, claim};
use crate::partition::PartitionMessage;
use crate::partition::agenda::Entry;
use crate::partition::commit::{PAUSES, commit};
use crate::tenant::quota::amounts::Amounts;

/// Number of history rows before its messages that an outside responder receives.
const HISTORY_ROWS: u64 = 16;
/// Rows since then that are read for edits and deletions, at most.
const REVISION_ROWS: u64 = 240;
/// Pause before a conversation looks up an unknown tenant again.
const UNKNOWN_TENANT_PAUSE: Duration = Duration::from_secs(60);

/// Turn under way, as the actor performs it.
pub(super) struct UnderWay {
    /// The row that began it.
    entry: Entry<ConversationId>,
    /// True while the partition waits for an answer about the row; false while the row is set aside.
    is_awaited: bool,
    /// Tenant as it was when the turn began.
    tenant: Arc<Tenant>,
    /// Decided turn, until it is durable.
    ended: Option<Box<Ended>>,
    /// True when the loop guard decides it.
    is_stopped: bool,
}

impl UnderWay {
    /// Returns its row, where the partition waits for an answer about it.
    pub(super) fn awaited(self) -> Option<Entry<ConversationId>> {
        self.is_awaited.then_some(self.entry)
    }
}

/// Result of a wake-up.
enum Woken {
    /// A turn runs; the row is answered with its end.
    Runs,
    /// A turn is decided without being run.
    Decided,
    /// The row is deleted.
    Done,
    /// The row is woken again then.
    Again(Timestamp),
}

impl Conversation {
    /// Deals with a due agenda row.
    pub(super) async fn wake(
        &self,
        myself: &ActorRef<ConversationMessage>,
        state: &mut ConversationState,
        entry: Entry<ConversationId>,
    ) -> Result<(), ActorProcessingErr> {
        let again = match self.woken(myself, state, &entry).await {
            Ok(Woken::Runs) => return Ok(()),
            Ok(Woken::Decided) => return self.conclude(state).await,
            Ok(Woken::Done) => None,
            Ok(Woken::Again(at)) => Some(at),
            Err(fault) => Some(self.put_off(state, &entry, fault).await?),
        };
        self.home.tell(PartitionMessage::Woken { entry, again });
        Ok(())
    }

    async fn woken(
        &self,
        myself: &ActorRef<ConversationMessage>,
        state: &mut ConversationState,
        entry: &Entry<ConversationId>,
    ) -> Result<Woken, Fault> {
        let now = self.context.ports.clock.now();
        if let Some(under_way) = state.under_way.as_mut().filter(|under_way| under_way.entry.due == entry.due)
        {
            return Ok(match under_way.ended {
                // Its decision could not be committed; now it may be.
                Some(_) if !under_way.is_awaited => {
                    (under_way.entry, under_way.is_awaited) = (entry.clone(), true);
                    Woken::Decided
                }
                _ => Woken::Runs,
            });
        }
        let Some(tenant) = self.context.tenants.get(&self.id.tenant) else {
            return Ok(match self.disarm(entry.due).await? {
                true => Woken::Done,
                false => Woken::Again(now.after(UNKNOWN_TENANT_PAUSE)),
            });
        };
        self.load_stored(state).await?;
        let Some(loaded) = &state.loaded else {
            // The contact was erased after the row was written.
            let writes = vec![Write::delete(self.agenda(entry.due))];
            self.commit(Batch { writes, ..Batch::default() }).await?;
            return Ok(Woken::Done);
        };
        match machine::wake(&loaded.head, state.running.as_ref(), entry.due, now) {
            Wake::Running => Ok(Woken::Runs),
            Wake::NotBefore(at) => Ok(Woken::Again(at)),
            Wake::Nothing => self.clear(state, &tenant, entry).await.map(|()| Woken::Done),
            Wake::Begin => self.begin(myself, state, tenant, entry.clone()).await,
        }
    }

    /// Deletes an agenda row that is stale; a crash may have left it there between a decision and its publication.
    async fn clear(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        entry: &Entry<ConversationId>,
    ) -> Result<(), Fault> {
        let Outbox { outputs, spent, hold } = self.outbox(state, tenant).await?;
        let mut writes = Vec::new();
        let mut head = None;
        if let Some(loaded) = state.loaded.as_ref().filter(|loaded| loaded.head.agenda == Some(entry.due)) {
            let cleared = Head { agenda: None, ..loaded.head.clone() };
            writes.push(cleared.write(
                Key::head(&self.id),
                &tenant.retention,
                self.context.ports.clock.now(),
            ));
            head = Some(cleared);
        }
        let after = spent.into_iter().chain([Write::delete(self.agenda(entry.due))]).collect();
        self.commit(Batch { writes, outputs, after, ..Batch::default() }).await?;
        if let Some(hold) = hold {
            hold.settle(Amounts::NONE);
        }
        if let Some(loaded) = &mut state.loaded {
            loaded.published = true;
            if let Some(head) = head {
                loaded.head = head;
            }
        }
        Ok(())
    }

    /// Begins a turn over the open messages; where an earlier owner has claimed it, over those that the claim covers.
    async fn begin(
        &self,
        myself: &ActorRef<ConversationMessage>,
        state: &mut ConversationState,
        tenant: Arc<Tenant>,
        entry: Entry<ConversationId>,
    ) -> Result<Woken, Fault> {
        let ports = &self.context.ports;
        let loaded = state.loaded.as_ref().expect("a turn begins after loading");
        let responder = (ports.responders)(&tenant);
        let open = &loaded.head.open;
        let claim = match responder.calls_outside() && open.iter().any(|open| open.text) {
            true => claim::find(ports, &self.id, TurnId(open[0].key)).await?,
            false => None,
        };
        let covers = claim.as_ref().map_or(open.len(), |claim| claim.covers(open));
        let asked = self.asked(state, &tenant, covers).await?;
        let guard = &tenant.agent.loop_guard;
        let said = Fingerprint::of(asked.iter().map(|asked| asked.text.as_deref()));
        // Only a copy is changed: the decision is made, and counted, with its commit.
        let mut rounds = loaded.head.rounds;
        let is_stopped = rounds.stops(said, ports.clock.now(), guard).is_some();
        // What an earlier owner has claimed is paid for already.
        let limited = match responder.calls_outside() && claim.is_none() && !is_stopped {
            true => loaded.head.usage().limited(ports.clock.now(), &tenant.agent.per_contact),
            false => None,
        };
        let mut turn = self.turn(state, &tenant, responder.clone(), asked);
        let mut spare = None;
        turn.is_limited = limited.is_some();
        if !is_stopped && limited.is_none() && responder.calls_outside() {
            let since = open.iter().map(|open| open.row).min().unwrap_or_default();
            let rows = HISTORY_ROWS + (loaded.head.next_row.saturating_sub(since)).min(REVISION_ROWS);
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            let recent = self.recent(loaded, rows, open).await?;
            turn.claim = claim;
            turn.other_names.extend(recent.names.iter().cloned());
            turn.history = recent.said();
        }
        if !is_stopped && limited != Some(Limited::Silence) {
            spare = Some(self.turn(state, &tenant, responder, turn.asked.clone()));
        }
        state.turns += 1;
        let number = state.turns;
        if let Some(limited) = limited {
            ports.metrics.contact_limited("turns_or_tokens");
            if limited == Limited::Fallback {
                tracing::warn!(conversation = %self.id, "a contact is over its limit; the fallback is said, then nothing");
            }
        }
        let is_silent = is_stopped || limited == Some(Limited::Silence);
        let ended = is_silent
            .then(|| Box::new(Ended { is_limited: limited.is_some(), ..Ended::silent(turn.covered()) }));
        state.running = Some(Running::new(number, entry.due, covers, said));
        state.under_way = Some(UnderWay { entry, is_awaited: true, tenant, ended, is_stopped });
        let Some(spare) = spare else { return Ok(Woken::Decided) };
        let myself = myself.clone();
        state.tasks.spawn(async move {
            // A panic in a responder or an index is this turn's, not the conversation's.
            let ended = match AssertUnwindSafe(turn.run()).catch_unwind().await {
                Ok(ended) => ended,
                Err(_) => spare.fallback(Usage::default()).await,
            };
            drop(myself.send_message(ConversationMessage::Ended(number, ended)));
        });
        Ok(Woken::Runs)
    }

    /// The first open messages, with their texts.
    async fn asked(
        &self,
        state: &ConversationState,
        tenant: &Tenant,
        covers: usize,
    ) -> Result<Vec<Asked>, Fault> {
        let loaded = state.loaded.as_ref().expect("a turn begins after loading");
        let mut asked = Vec::with_capacity(covers);
        for open in loaded.head.open.iter().take(covers) {
            let wrote = match state.texts.get(&open.key) {
                _ if !open.text => None,
                Some(wrote) => Some(wrote.clone()),
                None => {
                    let row = loaded.thread.read(&*self.context.ports.state, open.row).await?;
                    row.and_then(|row| Wrote::of(self.profile(), tenant, row.content_of(open.key)?))
                }
            };
            let is_stop = wrote.as_ref().is_some_and(|wrote| wrote.is_stop);
            asked.push(Asked { key: open.key, text: wrote.map(|wrote| wrote.text.into()), is_stop });
        }
        Ok(asked)
    }

    pub(super) fn turn(
        &self,
        state: &ConversationState,
        tenant: &Arc<Tenant>,
        responder: Arc<dyn Responder>,
        asked: Vec<Asked>,
    ) -> Turn {
        let loaded = state.loaded.as_ref().expect("a turn begins after loading");
        let started = self.context.started;
        let other_names = match responder.calls_outside() {
            true => loaded.other_names().cloned().collect(),
            false => Vec::new(),
        };
        Turn {
            context: self.context.clone(),
            conversation: self.id.clone(),
            tenant: tenant.clone(),
            responder,
            fence: self.home.fence,
            since: loaded.head.open.first().map_or(started, |open| open.at.max(started)),
            cipher: loaded.thread.shared_cipher(),
            asked,
            history: Vec::new(),
            name: loaded.address.name.clone(),
            other_names,
            claim: None,
            left: loaded.head.usage().left(self.context.ports.clock.now(), &tenant.agent.per_contact),
            is_limited: false,
        }
    }

    /// The turn of this number has run.
    pub(super) async fn ended(
        &self,
        state: &mut ConversationState,
        number: u64,
        ended: Result<Ended, StoreError>,
    ) -> Result<(), ActorProcessingErr> {
        while state.tasks.try_join_next().is_some() {}
        if state.running.is_none_or(|running| running.number != number) {
            // The messages that it answers have been erased meanwhile.
            return Ok(());
        }
        match ended {
            Ok(ended) => {
                if let Some(under_way) = &mut state.under_way {
                    under_way.ended = Some(Box::new(ended));
                }
                self.conclude(state).await
            }
            Err(error) => {
                let Some(UnderWay { entry, .. }) = self.drop_under_way(state) else { return Ok(()) };
                let again = Some(self.put_off(state, &entry, error.into()).await?);
                self.home.tell(PartitionMessage::Woken { entry, again });
                Ok(())
            }
        }
    }

    pub(super) fn drop_under_way(&self, state: &mut ConversationState) -> Option<UnderWay> {
        state.running = None;
        state.under_way.take()
    }

    /// Commits the decision of the turn under way, as soon as the store accepts it.
    async fn conclude(&self, state: &mut ConversationState) -> Result<(), ActorProcessingErr> {
        let mut pause = PAUSES.0;
        let fault = loop {
            match self.decide(state).await {
                Ok(entry) => {
                    self.home.tell(PartitionMessage::Woken { entry, again: None });
                    return Ok(());
                }
                Err(Fault::Store(error)) if error.is_transient() => {
                    self.retried(&error);
                    state.loaded = None;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                Err(fault) => break fault,
            }
        };
        let Some(under_way) = &mut state.under_way else { return Ok(()) };
        let entry = under_way.entry.clone();
        under_way.is_awaited = false;
        // Rows that the contact's erasure or the commit itself took cannot be committed later.
        if matches!(fault, Fault::Forgotten(_)) || under_way.ended.is_none() {
            self.drop_under_way(state);
        }
        let again = Some(self.put_off(state, &entry, fault).await?);
        self.home.tell(PartitionMessage::Woken { entry, again });
        Ok(())
    }

    /// Commits the decision of the turn under way, once. Returns the row that began it.
    async fn decide(&self, state: &mut ConversationState) -> Result<Entry<ConversationId>, Fault> {
        let ports = &self.context.ports;
        self.load_stored(state).await?;
        let Some(UnderWay { entry, tenant, is_stopped, .. }) = &state.under_way else {
            return Err(StoreError::Closed.into());
        };
        let (entry, is_stopped) = (entry.clone(), *is_stopped);
        let tenant = self.context.tenants.get(&self.id.tenant).unwrap_or_else(|| tenant.clone());
        // Work that may have to be repeated comes before the decision is taken out.
        self.publish_last(state, &tenant).await?;
        let now = ports.clock.now();
        let log = ports.keys.log(&self.id.tenant, now.day()).await?;
        let ended = state.under_way.as_mut().and_then(|under_way| under_way.ended.take());
        let (Some(mut ended), Some(running), Some(loaded)) = (ended, state.running, &state.loaded) else {
            return Err(StoreError::Closed.into());
        };
        let guard = &tenant.agent.loop_guard;
        let mut draft = Box::new(Draft::new(&loaded.head, state.running, now));
        let began = loaded.head.open.first().map_or(now, |first| first.at);
        let is_published = draft.machine.end();
        if is_stopped && is_published {
            // It is silent already; the loop guard's other effects are decided now.
            if let Some(stopped) = draft.stopped(ended.covered.clone(), running.said, guard) {
                *ended = stopped;
            }
        } else if !is_published {
            // A human had the conversation meanwhile or has it now, or the customer may not be answered.
            ended.texts.clear();
            (ended.outcome, ended.hand_over) = (Outcome::Silent, None);
        }
        let covered = ended.covered.clone();
        draft.decide(*ended, running.said, guard);
        draft.due = draft.machine.head.rearm(entry.due);
        draft.done = Some(entry.due);
        let publication = self.publication(loaded);
        let build = |again| publication.batch(&tenant, &draft, Some(&*log), None, again);
        commit(&*ports.state, &ports.metrics, build).await?;
        for message in &covered {
            state.texts.remove(message);
        }
        self.committed(state, *draft, began);
        self.drop_under_way(state);
        Ok(entry)
    }
}
