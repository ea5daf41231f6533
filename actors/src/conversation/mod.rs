//! The conversation actor: applies what a conversation receives, in order, and decides its turns.
//!
//! One record, one batch: the history row, the marker of the message, the head, the agenda row, the
//! outputs and the consumed offset are committed together. A turn that needs nothing outside and has
//! no settle delay is decided in that same batch. Any other is armed in the agenda, acknowledged, and
//! runs from there ([`turn`]) while the conversation goes on recording; its decision is a second batch.
//!
//! The actor changes a copy of its head and takes the copy over when the batch is durable, so what it
//! remembers is always what is stored. A record that makes it panic is tried again from stored state,
//! then dead-lettered: it never takes the conversation down with it.

pub(crate) mod correct;
mod draft;
pub mod export;
mod forget;
pub mod head;
mod leave;
mod seen;
mod split;
pub mod thread;
pub mod tools;
pub mod turn;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use heddle_schemas::content::{Address, Asks, Content};
use heddle_schemas::id::{ConversationId, MessageKey, OutboundId, TurnId};
use heddle_schemas::ports::keys::{Cipher, KeysError, Missing, aad};
use heddle_schemas::ports::log::Record;
use heddle_schemas::ports::responder::Usage;
use heddle_schemas::ports::state::{Batch, State, StoreError, Write};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::event::Outcome;
use heddle_schemas::record::inbound::{
    ActKind, Correct, CustomerAct, DeliveryFailure, DeliveryReport, DeliveryStatus, Handling, InboundEvent,
    InboundRecord, Restrict, SealedAct, SealedCorrection,
};
use heddle_schemas::record::{RecordError, decode_to, encode, log_aad, version};
use heddle_schemas::retention::Kind;
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::{Day, Seldom, Timestamp};
use heddle_schemas::topic::{Offset, Topic};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorRuntime, SpawnErr};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::draft::{Draft, Owed};
use self::head::{Corrected, Head, Open, Wake};
use self::seen::Seen;
use self::thread::{EntrySaid, Thread, ThreadError};
use self::turn::{Asked, Ended, Turn};
use crate::context::Context;
use crate::partition::agenda::Entry;
use crate::partition::commit::{commit, read};
use crate::partition::publish::{self, Routes};
use crate::partition::ttl_update::TtlUpdate;
use crate::partition::{Home, PartitionMessage, Receipt, Resident};
use crate::tenant::quota::amounts::Amounts;

/// How often a record that makes the conversation panic is tried.
const TRIES: u32 = 3;
/// How many history rows an outside responder is shown.
const HISTORY_ROWS: usize = 16;
/// How long a conversation whose tenant is not known waits before it looks again.
const UNKNOWN_TENANT_PAUSE: std::time::Duration = std::time::Duration::from_secs(60);

/// How far a message of ours has come, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// How far.
    pub status: DeliveryStatus,
    /// Since when.
    pub at: Timestamp,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<DeliveryFailure>,
    /// When this was written: its time to live counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Timestamp>,
}

/// Conversations, as residents of inbound's partitions.
#[derive(Clone)]
pub struct Conversations {
    /// What they need of the node; one for all, since a turn takes it along.
    pub context: Arc<Context>,
}

/// What a conversation is sent.
pub enum ConversationMessage {
    /// A record, with its receipt.
    Deliver(Box<InboundRecord>, Receipt),
    /// Its agenda row is due.
    Wake(Entry<ConversationId>),
    /// A turn has run: which, of those since the actor started.
    Ended(u64, Result<Ended, StoreError>),
    /// Rows are to end earlier; told for how many that was done.
    Shorten(Vec<TtlUpdate>, oneshot::Sender<usize>),
}

impl Resident for Conversations {
    type Key = ConversationId;
    type Item = Box<InboundRecord>;
    type Message = ConversationMessage;

    const TOPIC: Topic = Topic::Inbound;

    // A turn that is due answers what came before.
    const RESTS_WHILE_HELD: bool = false;

    fn decode(record: &Record, newest: u16) -> Result<(ConversationId, Box<InboundRecord>), RecordError> {
        let record: Box<InboundRecord> = Box::new(decode_to(&record.value, newest)?);
        Ok((record.conversation.clone(), record))
    }

    fn is_departure(item: &Box<InboundRecord>) -> bool {
        item.event == InboundEvent::Leave
    }

    fn committing_to(self, state: Arc<dyn State>) -> Self {
        let mut context = (*self.context).clone();
        context.ports.state = state;
        Self { context: Arc::new(context) }
    }

    fn deliver(item: Box<InboundRecord>, receipt: Receipt) -> ConversationMessage {
        ConversationMessage::Deliver(item, receipt)
    }

    fn wake(entry: Entry<ConversationId>) -> ConversationMessage {
        ConversationMessage::Wake(entry)
    }

    fn passed(_: Offset) -> Option<ConversationMessage> {
        None
    }

    fn shorten(rows: Vec<TtlUpdate>, done: oneshot::Sender<usize>) -> Option<ConversationMessage> {
        Some(ConversationMessage::Shorten(rows, done))
    }

    fn reconfigured() -> Option<ConversationMessage> {
        // Each turn reads the tenant anew.
        None
    }

    fn spawn(
        &self,
        key: ConversationId,
        home: Home<ConversationId>,
        supervisor: ActorCell,
    ) -> Result<ActorRef<ConversationMessage>, SpawnErr> {
        let actor = Conversation { id: key, home, context: self.context.clone() };
        ActorRuntime::spawn_linked_instant(None, actor, (), supervisor).map(|(actor, _)| actor)
    }
}

/// The actor of one conversation.
struct Conversation {
    id: ConversationId,
    home: Home<ConversationId>,
    context: Arc<Context>,
}

/// What it holds in memory.
#[derive(Default)]
struct ConversationState {
    loaded: Option<Loaded>,
    /// The texts of open messages, where they were said since the actor started.
    texts: HashMap<MessageKey, String>,
    running: Option<Running>,
    /// Turns that have begun.
    turns: u64,
    tasks: JoinSet<()>,
    /// Messages of the partition that have been handled.
    handled: u64,
}

struct Loaded {
    head: Head,
    seen: Seen,
    thread: Thread,
    address: Address,
    /// Where its name is a correction.
    corrected: Option<Corrected>,
    routes: Routes,
    /// When the contact was forgotten last.
    erased_at: Option<Timestamp>,
    /// Whether the replies of the turn decided last are known to be published. A crash may have come between
    /// its decision and its publication, so who has only read the head does not know.
    published: bool,
}

/// What an act of the customer changes.
struct Drafted {
    draft: Box<Draft>,
    /// The turn it belongs to, where it asks for an answer.
    turn: Option<TurnId>,
    /// What it asks, where it has a text.
    text: Option<String>,
}

/// The turn under way.
struct Running {
    entry: Entry<ConversationId>,
    /// How many of the open messages it covers at most: those that were open when it began.
    covers: usize,
    /// Which it is, of those since the actor started.
    number: u64,
}

/// Why a record could not be applied now or ever.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contact's key has been destroyed meanwhile, by another of its conversations: all is to be read again.
    #[error("{0}")]
    Forgotten(String),
    #[error("{detail}")]
    Dead { reason: DeadReason, detail: String },
    /// A later build wrote what it needs: it waits for a node of such a build.
    #[error("{0}")]
    Newer(String),
}

impl From<KeysError> for Fault {
    fn from(error: KeysError) -> Self {
        match error.passing() {
            Ok(error) => Self::Store(error),
            Err(KeysError::Gone { detail }) => Self::Forgotten(detail),
            Err(other) => Self::Dead { reason: DeadReason::Unreadable, detail: other.to_string() },
        }
    }
}

impl From<ThreadError> for Fault {
    fn from(error: ThreadError) -> Self {
        match error {
            ThreadError::Store(error) => Self::Store(error),
            ThreadError::Keys(error) => error.into(),
            row @ ThreadError::Row { .. } => {
                Self::Dead { reason: DeadReason::Unreadable, detail: row.to_string() }
            }
        }
    }
}

impl Actor for Conversation {
    type Msg = ConversationMessage;
    type State = ConversationState;
    type Arguments = ();

    async fn pre_start(
        &self,
        _: ActorRef<ConversationMessage>,
        (): (),
    ) -> Result<ConversationState, ActorProcessingErr> {
        Ok(ConversationState::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<ConversationMessage>,
        message: ConversationMessage,
        state: &mut ConversationState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ConversationMessage::Deliver(record, receipt) => {
                state.handled += 1;
                if let Some(detail) = self.deliver(state, &record, &receipt).await? {
                    self.home.tell(PartitionMessage::Newer { receipt, detail });
                }
            }
            ConversationMessage::Wake(entry) => {
                state.handled += 1;
                Box::pin(self.wake(&myself, state, entry)).await?;
            }
            ConversationMessage::Shorten(rows, done) => {
                state.handled += 1;
                // Who asked may have gone.
                let _ = done.send(Box::pin(self.shorten(rows)).await?);
            }
            ConversationMessage::Ended(number, ended) => Box::pin(self.ended(state, number, ended?)).await?,
        }
        if state.running.is_none() {
            self.home.idle.finished(state.handled);
        }
        Ok(())
    }
}

// The future of handling a message is as large as its largest wait, is moved when the actor takes the message
// up, and is part of every conversation in memory. So what is rare waits in a box of its own.
impl Conversation {
    /// Applies a record, whatever it does to this code. Returns what is newer than this build, where that keeps it
    /// from being applied.
    async fn deliver(
        &self,
        state: &mut ConversationState,
        record: &InboundRecord,
        receipt: &Receipt,
    ) -> Result<Option<String>, StoreError> {
        for attempt in 1.. {
            let applied = AssertUnwindSafe(self.apply(state, record, receipt)).catch_unwind().await;
            let (reason, detail) = match applied {
                Ok(Ok(())) => return Ok(None),
                Ok(Err(Fault::Newer(detail))) => return Ok(Some(detail)),
                Ok(Err(Fault::Store(error))) if error.is_transient() => {
                    self.context.ports.metrics.store_retried(&error);
                    static TOLD: Seldom = Seldom::new();
                    if TOLD.lets_through() {
                        tracing::warn!(%error, "a record that cannot be applied now is applied again");
                    }
                    state.loaded = None;
                    Box::pin(tokio::time::sleep(std::time::Duration::from_millis(100))).await;
                    continue;
                }
                Ok(Err(Fault::Store(error))) => return Err(error),
                Ok(Err(Fault::Forgotten(_))) if attempt < TRIES => {
                    state.loaded = None;
                    continue;
                }
                Ok(Err(Fault::Forgotten(detail))) => match Box::pin(self.is_of_deleted()).await {
                    // The node has not read yet that the tenant is deleted, and its key is gone.
                    Ok(true) => match Box::pin(self.refuse(receipt)).await {
                        Err(Fault::Store(error)) => return Err(error),
                        _ => return Ok(None),
                    },
                    _ => (DeadReason::Unreadable, detail),
                },
                Ok(Err(Fault::Dead { reason, detail })) => (reason, detail),
                Err(_) if attempt < TRIES => {
                    state.loaded = None;
                    continue;
                }
                Err(_) => (DeadReason::Poison, "handling it panics".to_owned()),
            };
            return Box::pin(self.bury(receipt, reason, detail, attempt)).await.map(|()| None);
        }
        Ok(None)
    }

    async fn bury(
        &self,
        receipt: &Receipt,
        reason: DeadReason,
        detail: String,
        attempts: u32,
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let letter = publish::dead_letter(ports, &receipt.record, reason, detail, attempts);
        commit(&*ports.state, &ports.metrics, |_| Batch {
            fence: Some(self.home.fence),
            outputs: vec![letter.clone()],
            consumed: vec![receipt.consumed()],
            ..Batch::default()
        })
        .await
    }

    async fn apply(
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
                Box::pin(self.told_by_tenant(state, &tenant, *key, change, receipt)).await
            }
            InboundEvent::Restrict(Restrict { key, restricted }) => {
                let change = |draft: &mut Draft| draft.restrict(*restricted);
                Box::pin(self.told_by_tenant(state, &tenant, *key, change, receipt)).await
            }
            InboundEvent::Correct(correct) => Box::pin(self.correct(state, &tenant, correct, receipt)).await,
            InboundEvent::Forget(forget) => Box::pin(self.forget(state, forget, receipt)).await,
            InboundEvent::Customer(act) => {
                if state.loaded.is_none() {
                    Box::pin(self.load(state)).await?;
                }
                let erased_at = state.loaded.as_ref().and_then(|loaded| loaded.erased_at);
                if erased_at.is_some_and(|erased_at| act.sent_at <= erased_at) {
                    // Said before the contact was forgotten, and delivered late or once more.
                    self.context.ports.metrics.resurrection();
                    let consumed = vec![receipt.consumed()];
                    return Ok(Box::pin(self.commit(Batch { consumed, ..Batch::default() })).await?);
                }
                match self.seen(state, act.key).await? {
                    Some(turn) => Box::pin(self.duplicate(state, &tenant, turn, receipt)).await,
                    None => self.customer(state, &tenant, record.at, act, receipt).await,
                }
            }
        }
    }

    /// Reads the head and the contact's key, where they are not in memory.
    async fn load(&self, state: &mut ConversationState) -> Result<(), Fault> {
        if state.loaded.is_some() {
            return Ok(());
        }
        let ports = &self.context.ports;
        let key = Key::head(&self.id);
        let stored = ports.state.get(&key).await?;
        let seen = async {
            match stored {
                Some(_) => Ok(Seen::load(&*ports.state, &self.id).await?),
                None => Ok(Seen::none()),
            }
        };
        let cipher = async {
            ports.keys.contact(&self.id.tenant, self.id.contact, Missing::Create).await.map_err(Fault::from)
        };
        let (seen, cipher) = tokio::try_join!(seen, cipher)?;
        let unreadable = |detail: String| Fault::Dead { reason: DeadReason::Unreadable, detail };
        let head: Head = match &stored {
            Some(stored) if version::of(stored).is_some_and(|v| v > u64::from(Head::VERSION)) => {
                return Err(Fault::Newer("a later build wrote the head of the conversation".into()));
            }
            Some(stored) => serde_json::from_slice(stored)
                .map_err(|error| unreadable(format!("the head of a conversation: {error}")))?,
            None => Head::new(),
        };
        let address = match &head.address {
            Some(sealed) => serde_json::from_slice(&cipher.open(&aad(&key, correct::ADDRESS), sealed)?)
                .map_err(|error| unreadable(format!("the address of a contact: {error}")))?,
            None => Address::default(),
        };
        let corrected = match &head.corrected {
            Some(sealed) => serde_json::from_slice(&cipher.open(&aad(&key, correct::CORRECTED), sealed)?)
                .map_err(|error| unreadable(format!("the correction of a contact: {error}")))?,
            None => None,
        };
        let erased_at = cipher.erased_at();
        let thread = Thread::new(self.id.clone(), cipher);
        let routes = Routes::of(ports, &self.id);
        let published = head.last.is_none();
        state.loaded = Some(Loaded { head, seen, thread, address, corrected, routes, erased_at, published });
        Ok(())
    }

    /// Whether a message has been seen; if so, the turn it belongs to, where it asked for one.
    async fn seen(
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

    /// A message that was seen before changes nothing; but a crash may have hidden its replies.
    async fn duplicate(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        turn: Option<TurnId>,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        self.context.ports.metrics.duplicate();
        let Owed { outputs, spent, hold } = self.unpublished(state, tenant, turn).await?;
        let after = spent.into_iter().collect();
        self.commit(Batch { outputs, after, consumed: vec![receipt.consumed()], ..Batch::default() }).await?;
        if let Some(hold) = hold {
            hold.settle(Amounts::NONE);
        }
        Ok(())
    }

    /// What the turn decided last may still owe, if it is this one (or any, for `None`): what it has spent, and,
    /// where no report says that they have left, its replies, to be published again, marked as such.
    async fn unpublished(
        &self,
        state: &ConversationState,
        tenant: &Tenant,
        turn: Option<TurnId>,
    ) -> Result<Owed, Fault> {
        let mut owed = Owed::default();
        let Some(loaded) = &state.loaded else { return Ok(owed) };
        let Some(last) = loaded.head.last.as_ref().filter(|last| Some(last.turn) == turn) else {
            return Ok(owed);
        };
        let first = OutboundId { contact: self.id.contact, turn: last.turn, index: 0 };
        let ports = &self.context.ports;
        let has_left = ports.state.get(&Key::delivery(&self.id, &first)).await?.is_some();
        if has_left && loaded.published {
            return Ok(owed);
        }
        let row = loaded.thread.read(&*ports.state, last.row).await?;
        let Some(decision) = row.as_ref().and_then(|row| row.replies_of(last.turn)) else {
            return Ok(owed);
        };
        if let Some(spent) = decision.tally.spent.filter(|_| !loaded.published) {
            let (by, totals) =
                (self.spent_by(last.turn, spent.number), decision.tally.totals(decision.texts.len()));
            let (quotas, fence) = (&self.context.quotas, self.home.fence);
            let again = quotas.again(tenant, fence, spent.chunk, &by, decision.at, totals).await?;
            if let Some((write, hold)) = again {
                owed.spent = Some(write);
                owed.hold = hold;
            }
        }
        if has_left {
            return Ok(owed);
        }
        ports.metrics.republished();
        let now = ports.clock.now();
        let log = ports.keys.log(&self.id.tenant, now.day()).await?;
        owed.outputs =
            self.replies(loaded, &loaded.head, last.turn, decision.texts, &loaded.address, &*log, now, true);
        owed.outputs.push(self.told(loaded, last.turn, decision.tally, now));
        Ok(owed)
    }

    /// What the turn decided last may still owe, when another is decided on top of it: from then on nobody
    /// would look for it.
    async fn owed(&self, state: &ConversationState, tenant: &Tenant) -> Result<Owed, Fault> {
        match &state.loaded {
            Some(Loaded { published: false, head, .. }) => {
                self.unpublished(state, tenant, head.last.as_ref().map(|last| last.turn)).await
            }
            _ => Ok(Owed::default()),
        }
    }

    /// Records an act of the customer, and decides its turn where that needs nobody else.
    async fn customer(
        &self,
        state: &mut ConversationState,
        tenant: &Arc<Tenant>,
        taken_in: Timestamp,
        act: &CustomerAct,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let day = act.sealed.key_number().unwrap_or_default();
        let log = ports.keys.log(&self.id.tenant, Day(day)).await?;
        let Drafted { mut draft, turn, mut text } = self.draft(state, tenant, taken_in, act, &*log)?;
        drop(log);

        let mut log = None;
        let responder = (ports.responders)(tenant);
        let at_once = turn.is_some()
            && tenant.agent.settle.is_zero()
            && state.running.is_none()
            && draft.head.open.len() == 1
            && draft.head.agenda.is_none()
            && !responder.calls_outside()
            // Who has to wait for a quota waits in the agenda, where it holds up nobody else's records.
            && self.context.quotas.tells_at_once(tenant).await;
        if at_once {
            let asked = vec![Asked { key: act.key, text: text.take() }];
            let owed = Box::pin(self.owed(state, tenant)).await?;
            let turn = self.turn(state, tenant, responder, asked, Vec::new());
            let ended = Box::pin(turn.decide()).await?;
            draft.decide(ended, owed);
            log = Some(ports.keys.log(&self.id.tenant, draft.now.day()).await?);
        } else {
            drop(responder);
            draft.due = draft.head.arm();
        }
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        commit(&*ports.state, &ports.metrics, |again| {
            self.batch(tenant, loaded, &draft, log.as_deref(), Some(receipt.consumed()), again)
        })
        .await?;
        draft.settle();

        if let Some((_, tally)) = draft.decided {
            ports.metrics.turn(tally.outcome, ports.clock.now().since(taken_in).as_secs_f64());
        } else if let Some(text) = text.filter(|_| turn.is_some()) {
            state.texts.insert(act.key, text);
        }
        self.take_over(state, *draft);
        if let Some(loaded) = &mut state.loaded {
            loaded.seen.add(act.key);
        }
        Ok(())
    }

    /// Somebody of the tenant says how the conversation goes on.
    async fn told_by_tenant(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        key: MessageKey,
        change: impl FnOnce(&mut Draft) + Send,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        self.load(state).await?;
        if self.seen(state, key).await?.is_some() {
            let consumed = vec![receipt.consumed()];
            return Ok(self.commit(Batch { consumed, ..Batch::default() }).await?);
        }
        let ports = &self.context.ports;
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        let mut draft = Draft::new(&self.id, &loaded.head, ports.clock.now());
        change(&mut draft);
        draft.seen = Some((key, None));
        commit(&*ports.state, &ports.metrics, |again| {
            self.batch(tenant, loaded, &draft, None, Some(receipt.consumed()), again)
        })
        .await?;
        self.take_over(state, draft);
        if let Some(loaded) = &mut state.loaded {
            loaded.seen.add(key);
        }
        Ok(())
    }

    /// Puts right what is kept of the contact, where anything is.
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
            detail: format!("what is sealed is no correction: {error}"),
        })?;
        if ports.state.get(&Key::head(&self.id)).await?.is_none() {
            // They never met here, or it was forgotten: there is nothing to be put right.
            let consumed = vec![receipt.consumed()];
            return Ok(self.commit(Batch { consumed, ..Batch::default() }).await?);
        }
        self.load(state).await?;
        let loaded = state.loaded.as_ref().expect("it was loaded");
        let mut changed = Draft::new(&self.id, &loaded.head, ports.clock.now());
        correct::correct(&mut changed, loaded, &self.id, correction);
        let change = move |draft: &mut Draft| *draft = changed;
        self.told_by_tenant(state, tenant, *key, change, receipt).await
    }

    /// What an act of the customer changes.
    fn draft(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        taken_in: Timestamp,
        act: &CustomerAct,
        log: &dyn Cipher,
    ) -> Result<Drafted, Fault> {
        let said = open(act, log)?;
        let covers = state.running.as_ref().map_or(0, |running| running.covers);
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        let mut draft = Box::new(Draft::new(&self.id, &loaded.head, self.context.ports.clock.now()));
        let (now, number) = (draft.now, draft.number);
        correct::meet(&mut draft, loaded, &self.id, &said.from);
        let Draft { head, row, .. } = &mut *draft;
        // A reaction, an edit or a notice of the channel opens no window.
        if act.kind == ActKind::Say && !matches!(said.content, Some(Content::System { .. })) {
            head.customer_at = head.customer_at.max(act.sent_at);
        }
        let asks = said.content.as_ref().map_or(Asks::Nothing, Content::asks);
        let text = match asks {
            Asks::Answer(text) => Some(text.to_owned()),
            _ => None,
        };
        let mut turn = None;
        // What comes out of the dead-letter topic, or after a long outage, is recorded; answering it would
        // surprise, and outside the customer-service window a channel refuses it.
        let late = now.since(taken_in) > self.context.options.answer_within;
        match (act.kind, act.target, asks) {
            // A human answers, who reads it in the thread, or nobody may.
            (ActKind::Say, _, _) if !head.is_answered() => {}
            (ActKind::Say, _, Asks::Answer(_) | Asks::Fallback) if late => self.context.ports.metrics.late(),
            // The way in has recorded it; there is nothing to be said to it.
            (ActKind::Say, _, Asks::Answer(text))
                if tenant.consent.stopped_text.is_empty() && tenant.is_stop_word(text) => {}
            (ActKind::Say, _, Asks::Answer(_) | Asks::Fallback) => {
                let open = Open { key: act.key, row: number, text: text.is_some(), at: taken_in };
                turn = Some(head.say(open, now, tenant.agent.settle, covers));
            }
            (ActKind::Edit, Some(target), _) if head.edit(target, number, text.is_some(), covers) => {
                state.texts.remove(&target);
            }
            (ActKind::Delete, Some(target), _) => {
                head.delete(target, covers);
            }
            _ => {}
        }
        row.entries.reserve_exact(2);
        row.entries.push(EntrySaid::Customer {
            key: act.key,
            at: act.sent_at,
            kind: act.kind,
            target: act.target,
            act: Box::new(said),
        });
        draft.seen = Some((act.key, turn));
        Ok(Drafted { draft, turn, text })
    }

    /// What was drafted is durable: it is what is remembered from here on.
    fn take_over(&self, state: &mut ConversationState, draft: Draft) {
        if let Some(loaded) = &mut state.loaded {
            loaded.head = draft.head;
            loaded.published |= draft.decided.is_some();
            if let Some(address) = draft.address {
                loaded.address = address;
            }
            if let Some(corrected) = draft.corrected {
                loaded.corrected = corrected;
            }
        }
        if let Some(due) = draft.due {
            self.home.tell(PartitionMessage::Armed { due, key: self.id.clone() });
        }
    }

    fn agenda(&self, due: Timestamp) -> Key {
        Key::agenda(self.home.fence.partition, due, self.id.to_string().as_bytes())
    }

    fn turn(
        &self,
        state: &ConversationState,
        tenant: &Arc<Tenant>,
        responder: Arc<dyn heddle_schemas::ports::responder::Responder>,
        asked: Vec<Asked>,
        history: Vec<heddle_schemas::ports::responder::Said>,
    ) -> Turn {
        let loaded = state.loaded.as_ref().expect("a turn begins after loading");
        Turn {
            context: self.context.clone(),
            conversation: self.id.clone(),
            tenant: tenant.clone(),
            responder,
            fence: self.home.fence,
            since: loaded
                .head
                .open
                .first()
                .map_or(self.context.started, |open| open.at.max(self.context.started)),
            cipher: loaded.thread.shared_cipher(),
            asked,
            history,
            name: loaded.address.name.clone(),
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let batch = Batch { fence: Some(self.home.fence), ..batch };
        commit(&*ports.state, &ports.metrics, |_| batch.clone()).await
    }

    /// Its agenda row is due: begins the turn, asks for more time, or has nothing to do.
    async fn wake(
        &self,
        myself: &ActorRef<ConversationMessage>,
        state: &mut ConversationState,
        entry: Entry<ConversationId>,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.context.ports.clock.now();
        let later = |again: Timestamp| PartitionMessage::Woken { entry: entry.clone(), again: Some(again) };
        let Some(tenant) = self.context.tenants.get(&self.id.tenant) else {
            match self.disarm(entry.due).await {
                Ok(true) => self.home.tell(PartitionMessage::Woken { entry, again: None }),
                Ok(false) => self.home.tell(later(now.after(UNKNOWN_TENANT_PAUSE))),
                Err(fault) => return self.postpone(fault, later(now.after(UNKNOWN_TENANT_PAUSE))),
            }
            return Ok(());
        };
        if let Err(fault) = self.load(state).await {
            return self.postpone(fault, later(now.after(std::time::Duration::from_secs(1))));
        }
        let Some(loaded) = &state.loaded else { return Ok(()) };
        match loaded.head.wake(entry.due, now) {
            Wake::NotBefore(at) => self.home.tell(later(at)),
            Wake::Nothing => match self.clear(state, &tenant, &entry).await {
                Ok(()) => self.home.tell(PartitionMessage::Woken { entry, again: None }),
                Err(fault) => {
                    return self.postpone(fault, later(now.after(std::time::Duration::from_secs(1))));
                }
            },
            Wake::Begin => match self.begin(myself, state, &tenant, entry.clone()).await {
                Ok(()) => {}
                Err(fault) => {
                    return self.postpone(fault, later(now.after(std::time::Duration::from_secs(1))));
                }
            },
        }
        Ok(())
    }

    /// A row that cannot be dealt with now is left for later, unless the ownership is over.
    fn postpone(
        &self,
        fault: Fault,
        later: PartitionMessage<ConversationId>,
    ) -> Result<(), ActorProcessingErr> {
        match fault {
            Fault::Store(error) if !error.is_transient() => Err(error.into()),
            fault => {
                tracing::warn!(tenant = %self.id.tenant, %fault, "a turn is put off");
                self.home.tell(later);
                Ok(())
            }
        }
    }

    /// Deletes an agenda row that has nothing to do any more; a crash may have left it there between a
    /// decision and its publication.
    async fn clear(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        entry: &Entry<ConversationId>,
    ) -> Result<(), Fault> {
        let last = state.loaded.as_ref().and_then(|loaded| loaded.head.last.as_ref()).map(|last| last.turn);
        let Owed { outputs, spent, hold } = self.unpublished(state, tenant, last).await?;
        let mut writes = Vec::new();
        if let Some(loaded) = &mut state.loaded
            && loaded.head.agenda == Some(entry.due)
        {
            let head = Head { agenda: None, ..loaded.head.clone() };
            writes.push(Write::put(Key::head(&self.id), encode(&head)));
            loaded.head = head;
        }
        let after = spent.into_iter().chain([Write::delete(self.agenda(entry.due))]).collect();
        self.commit(Batch { writes, outputs, after, ..Batch::default() }).await?;
        if let Some(hold) = hold {
            hold.settle(Amounts::NONE);
        }
        Ok(())
    }

    async fn begin(
        &self,
        myself: &ActorRef<ConversationMessage>,
        state: &mut ConversationState,
        tenant: &Arc<Tenant>,
        entry: Entry<ConversationId>,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let Some(loaded) = &state.loaded else { return Ok(()) };
        let responder = (ports.responders)(tenant);
        let mut asked = Vec::with_capacity(loaded.head.open.len());
        for open in &loaded.head.open {
            let text = match state.texts.get(&open.key) {
                _ if !open.text => None,
                Some(text) => Some(text.clone()),
                None => {
                    let row = loaded.thread.read(&*ports.state, open.row).await?;
                    row.and_then(|row| row.text_of(open.key).map(str::to_owned))
                }
            };
            asked.push(Asked { key: open.key, text });
        }
        let history = if responder.calls_outside() {
            loaded.thread.recent(&*ports.state, loaded.head.open[0].row, HISTORY_ROWS).await?
        } else {
            Vec::new()
        };
        let covers = asked.len();
        let spare = self.turn(state, tenant, responder.clone(), asked.clone(), Vec::new());
        let turn = self.turn(state, tenant, responder, asked, history);
        state.turns += 1;
        let number = state.turns;
        state.running = Some(Running { entry, covers, number });
        let myself = myself.clone();
        state.tasks.spawn(async move {
            // A panic in a responder or an index is this turn's, not the conversation's.
            let ended = match AssertUnwindSafe(turn.run()).catch_unwind().await {
                Ok(ended) => ended,
                Err(_) => spare.fallback(Usage::default()).await,
            };
            drop(myself.send_message(ConversationMessage::Ended(number, ended)));
        });
        Ok(())
    }

    /// Commits what a turn has decided.
    async fn ended(
        &self,
        state: &mut ConversationState,
        number: u64,
        ended: Ended,
    ) -> Result<(), ActorProcessingErr> {
        while state.tasks.try_join_next().is_some() {}
        let Some(Running { entry, .. }) = state.running.take_if(|running| running.number == number) else {
            // What it answers has been forgotten meanwhile.
            return Ok(());
        };
        let ports = &self.context.ports;
        let now = ports.clock.now();
        let tenant = self.context.tenants.get(&self.id.tenant);
        let (Some(tenant), Some(loaded)) = (tenant, &state.loaded) else {
            let again = Some(now.after(UNKNOWN_TENANT_PAUSE));
            self.home.tell(PartitionMessage::Woken { entry, again });
            return Ok(());
        };
        let mut draft = Draft::new(&self.id, &loaded.head, now);
        let began = draft.head.open.first().map_or(now, |first| first.at);
        let covered = ended.covered.clone();
        let mut ended = ended;
        if !loaded.head.is_answered() {
            // Somebody took the conversation over meanwhile, and has the word; or nobody may answer.
            ended.texts.clear();
            ended.outcome = Outcome::Silent;
        }
        match self.owed(state, &tenant).await {
            Ok(owed) => draft.decide(ended, owed),
            Err(fault) => {
                let again = Some(now.after(std::time::Duration::from_secs(1)));
                return self.postpone(fault, PartitionMessage::Woken { entry, again });
            }
        }
        draft.due = draft.head.rearm(entry.due);
        draft.done = Some(entry.due);
        let committed = async {
            let log = ports.keys.log(&self.id.tenant, now.day()).await?;
            let build = |again| self.batch(&tenant, loaded, &draft, Some(&*log), None, again);
            commit(&*ports.state, &ports.metrics, build).await.map_err(Fault::from)
        };
        if let Err(fault) = committed.await {
            let again = Some(now.after(std::time::Duration::from_secs(1)));
            return self.postpone(fault, PartitionMessage::Woken { entry, again });
        }
        draft.settle();
        if let Some((_, tally)) = draft.decided {
            ports.metrics.turn(tally.outcome, ports.clock.now().since(began).as_secs_f64());
        }
        for message in &covered {
            state.texts.remove(message);
        }
        self.home.tell(PartitionMessage::Woken { entry, again: None });
        self.take_over(state, draft);
        Ok(())
    }

    /// Takes in how far a message of ours has come: it only rises.
    async fn report(&self, tenant: &Tenant, report: &DeliveryReport, receipt: &Receipt) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let key = Key::delivery(&self.id, &report.outbound);
        let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
        let stored = match stored.as_deref().map(serde_json::from_slice::<Delivery>).transpose() {
            Ok(stored) => stored,
            Err(error) => {
                // A later build may have written it, and knows more of the message than this one.
                tracing::warn!(tenant = %self.id.tenant, %error, "a delivery that cannot be read stays as it is");
                let consumed = vec![receipt.consumed()];
                return Ok(self.commit(Batch { consumed, ..Batch::default() }).await?);
            }
        };
        let before = stored.as_ref().map_or(DeliveryStatus::Queued, |delivery| delivery.status);
        let status = before.merge(report.status);
        let mut write = None;
        if stored.is_none() && self.is_of_forgotten(report).await? {
            ports.metrics.resurrection();
        } else if stored.is_none() || status != before {
            let now = ports.clock.now();
            let failure = report.failure.clone();
            let delivery = Delivery { status, at: report.at, failure, written: Some(now) };
            let expires = now.after(tenant.retention.of(Kind::Receipts));
            write = Some(Write::put_until(key, encode(&delivery), expires));
        }
        self.commit(Batch {
            writes: write.into_iter().collect(),
            consumed: vec![receipt.consumed()],
            ..Batch::default()
        })
        .await?;
        Ok(())
    }
}

impl Conversation {
    /// Has rows end earlier that are still as they were found. This actor alone writes them, so none changes between
    /// the look and the write.
    async fn shorten(&self, rows: Vec<TtlUpdate>) -> Result<usize, StoreError> {
        let ports = &self.context.ports;
        let mut writes = Vec::with_capacity(rows.len());
        for row in rows {
            let stored = read(&ports.metrics, || ports.state.get(&row.key)).await?;
            // One that was written since has its end by what holds now.
            if stored.as_ref() == Some(&row.value) {
                writes.push(row.write(ports.clock.now()));
            }
        }
        let shortened = writes.len();
        if shortened > 0 {
            commit(&*ports.state, &ports.metrics, |_| Batch {
                fence: Some(self.home.fence),
                writes: writes.clone(),
                ..Batch::default()
            })
            .await?;
        }
        Ok(shortened)
    }
}

/// Opens what the channel brought.
fn open(act: &CustomerAct, log: &dyn Cipher) -> Result<SealedAct, Fault> {
    let plain = log.open(&log_aad(Topic::Inbound, &act.key), &act.sealed)?;
    serde_json::from_slice(&plain).map_err(|error| Fault::Dead {
        reason: DeadReason::Unreadable,
        detail: format!("what is sealed is no act: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is moved twice for each message, and part of every conversation in memory.
    #[test]
    fn the_future_of_a_delivery_stays_small() {
        fn size<'a, F>(
            _: impl FnOnce(&'a Conversation, &'a mut ConversationState, &'a InboundRecord, &'a Receipt) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let size = size(Conversation::deliver);
        assert!(size <= 1280, "{size} bytes");
    }
}
