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

pub mod head;
pub mod thread;
pub mod turn;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use heddle_schemas::content::{Address, Asks, Content};
use heddle_schemas::id::{ConversationId, MessageKey, OutboundId, TurnId};
use heddle_schemas::ports::keys::{KeysError, Missing, aad};
use heddle_schemas::ports::log::{NewRecord, Record};
use heddle_schemas::ports::state::{Batch, StoreError, Write};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::event::{Event, EventRecord, Outcome};
use heddle_schemas::record::inbound::{
    ActKind, CustomerAct, DeliveryFailure, DeliveryReport, DeliveryStatus, InboundEvent, InboundRecord,
    SealedAct,
};
use heddle_schemas::record::outbound::{
    OutboundCommand, OutboundRecord, Purpose, SealedMessage, SendCommand,
};
use heddle_schemas::record::{RecordError, V, decode, encode, log_aad};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::{Day, Timestamp};
use heddle_schemas::topic::{Offset, Topic};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorRuntime, SpawnErr};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use self::head::{Head, Open, Wake};
use self::thread::{EntrySaid, Row, Tally, Thread, ThreadError};
use self::turn::{Asked, Ended, Turn};
use crate::agenda::Entry;
use crate::commit::{commit, read};
use crate::partition::{Home, PartitionMessage, Receipt, Resident};
use crate::ports::Context;
use crate::publish;

/// How often a record that makes the conversation panic is tried.
const TRIES: u32 = 3;
/// How many history rows an outside responder is shown.
const HISTORY_ROWS: usize = 16;
/// Characters that one message of a channel takes at most (WhatsApp: 4,096 in a text body,
/// <https://developers.facebook.com/docs/whatsapp/cloud-api/messages/text-messages>).
const MESSAGE_CHARACTERS: usize = 4096;
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
}

/// Conversations, as residents of inbound's partitions.
#[derive(Clone)]
pub struct Conversations {
    /// What they need of the node.
    pub context: Context,
}

/// What a conversation is sent.
pub enum ConversationMessage {
    /// A record, with its receipt.
    Deliver(Box<InboundRecord>, Receipt),
    /// Its agenda row is due.
    Wake(Entry<ConversationId>),
    /// Its turn has run.
    Ended(Result<Ended, StoreError>),
}

impl Resident for Conversations {
    type Key = ConversationId;
    type Item = Box<InboundRecord>;
    type Message = ConversationMessage;

    const TOPIC: Topic = Topic::Inbound;

    fn decode(record: &Record) -> Result<(ConversationId, Box<InboundRecord>), RecordError> {
        let record: Box<InboundRecord> = decode(&record.value)?;
        Ok((record.conversation.clone(), record))
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
    context: Context,
}

/// What it holds in memory.
#[derive(Default)]
struct ConversationState {
    loaded: Option<Loaded>,
    /// The texts of open messages, where they were said since the actor started.
    texts: HashMap<MessageKey, String>,
    running: Option<Running>,
    tasks: JoinSet<()>,
    /// Messages of the partition that have been handled.
    handled: u64,
}

struct Loaded {
    head: Head,
    /// Whether the conversation was there before; a new one has seen nothing.
    stored: bool,
    thread: Thread,
    address: Address,
}

/// The turn under way.
struct Running {
    entry: Entry<ConversationId>,
    /// How many of the open messages it covers at most: those that were open when it began.
    covers: usize,
}

/// Why a record could not be applied now or ever.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{detail}")]
    Dead { reason: DeadReason, detail: String },
}

impl From<KeysError> for Fault {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Store(error) => Self::Store(error),
            other => Self::Dead { reason: DeadReason::Unreadable, detail: other.to_string() },
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
                self.deliver(state, &record, &receipt).await?;
            }
            ConversationMessage::Wake(entry) => {
                state.handled += 1;
                self.wake(&myself, state, entry).await?;
            }
            ConversationMessage::Ended(ended) => self.ended(state, ended?).await?,
        }
        if state.running.is_none() {
            self.home.idle.finished(state.handled);
        }
        Ok(())
    }
}

impl Conversation {
    /// Applies a record, whatever it does to this code.
    async fn deliver(
        &self,
        state: &mut ConversationState,
        record: &InboundRecord,
        receipt: &Receipt,
    ) -> Result<(), StoreError> {
        for attempt in 1.. {
            let applied = AssertUnwindSafe(self.apply(state, record, receipt)).catch_unwind().await;
            let (reason, detail) = match applied {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(Fault::Store(error))) if error.is_transient() => {
                    self.context.ports.metrics.store_retried(&error);
                    state.loaded = None;
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
                Ok(Err(Fault::Store(error))) => return Err(error),
                Ok(Err(Fault::Dead { reason, detail })) => (reason, detail),
                Err(_) if attempt < TRIES => {
                    state.loaded = None;
                    continue;
                }
                Err(_) => (DeadReason::Poison, "handling it panics".to_owned()),
            };
            return self.bury(receipt, reason, detail, attempt).await;
        }
        Ok(())
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
        let Some(tenant) = self.context.tenants.get(&self.id.tenant) else {
            let detail = format!("tenant {} is not known", self.id.tenant);
            return Err(Fault::Dead { reason: DeadReason::UnknownTenant, detail });
        };
        match &record.event {
            InboundEvent::Delivery(report) => self.report(&tenant, report, receipt).await,
            InboundEvent::Customer(act) => {
                self.load(state).await?;
                match self.seen(state, act.key).await? {
                    Some(turn) => self.duplicate(state, turn, receipt).await,
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
        let cipher = ports.keys.contact(&self.id.tenant, self.id.contact, Missing::Create).await?;
        let unreadable = |detail: String| Fault::Dead { reason: DeadReason::Unreadable, detail };
        let head: Head = match &stored {
            Some(stored) => serde_json::from_slice(stored)
                .map_err(|error| unreadable(format!("the head of a conversation: {error}")))?,
            None => Head::new(),
        };
        let address = match &head.address {
            Some(sealed) => serde_json::from_slice(&cipher.open(&aad(&key, "address"), sealed)?)
                .map_err(|error| unreadable(format!("the address of a contact: {error}")))?,
            None => Address::default(),
        };
        let thread = Thread::new(self.id.clone(), cipher);
        state.loaded = Some(Loaded { head, stored: stored.is_some(), thread, address });
        Ok(())
    }

    /// Whether a message has been seen; if so, the turn it belongs to, where it asked for one.
    async fn seen(
        &self,
        state: &ConversationState,
        message: MessageKey,
    ) -> Result<Option<Option<TurnId>>, StoreError> {
        if state.loaded.as_ref().is_some_and(|loaded| !loaded.stored) {
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
        turn: Option<TurnId>,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        self.context.ports.metrics.duplicate();
        let outputs = self.unpublished(state, turn).await?;
        self.commit(Batch { outputs, consumed: vec![receipt.consumed()], ..Batch::default() }).await?;
        Ok(())
    }

    /// The replies of the turn decided last, if it is this one (or any, for `None`) and no report says
    /// that they have left: to be published again, marked as such.
    async fn unpublished(
        &self,
        state: &ConversationState,
        turn: Option<TurnId>,
    ) -> Result<Vec<NewRecord>, Fault> {
        let Some(loaded) = &state.loaded else { return Ok(Vec::new()) };
        let Some(last) = loaded.head.last.as_ref().filter(|last| Some(last.turn) == turn) else {
            return Ok(Vec::new());
        };
        let first = OutboundId { contact: self.id.contact, turn: last.turn, index: 0 };
        let ports = &self.context.ports;
        if ports.state.get(&Key::delivery(&self.id, &first)).await?.is_some() {
            return Ok(Vec::new());
        }
        let row = loaded.thread.read(&*ports.state, last.row).await?;
        let Some((texts, tally)) = row.as_ref().and_then(|row| row.replies_of(last.turn)) else {
            return Ok(Vec::new());
        };
        ports.metrics.republished();
        let mut outputs = self.messages(last.turn, texts, &loaded.address, true).await?;
        outputs.push(self.told(last.turn, tally));
        Ok(outputs)
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
        let now = ports.clock.now();
        let said = self.open(act).await?;
        let covers = state.running.as_ref().map_or(0, |running| running.covers);
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        let mut head = loaded.head.clone();
        let mut address = loaded.address.clone();
        let number = head.take_row();
        head.customer_at = head.customer_at.max(act.sent_at);
        address.update(&said.from);
        if address != loaded.address {
            let sealed =
                loaded.thread.cipher().seal(&aad(&Key::head(&self.id), "address"), &encode(&address));
            head.address = Some(sealed);
        }

        let asks = said.content.as_ref().map_or(Asks::Nothing, Content::asks);
        let text = match asks {
            Asks::Answer(text) => Some(text.to_owned()),
            _ => None,
        };
        let mut turn = None;
        match (act.kind, act.target, asks) {
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

        let mut row = Row {
            entries: vec![EntrySaid::Customer {
                key: act.key,
                at: act.sent_at,
                kind: act.kind,
                target: act.target,
                act: Box::new(said),
            }],
        };
        let mut batch = Batch { consumed: vec![receipt.consumed()], ..Batch::default() };
        let mut decided = None;
        let responder = (ports.responders)(tenant);
        let at_once = turn.is_some()
            && tenant.agent.settle.is_zero()
            && state.running.is_none()
            && head.open.len() == 1
            && head.agenda.is_none()
            && !responder.calls_outside();
        if at_once {
            let asked = vec![Asked { key: act.key, text: text.clone() }];
            let ended = self.turn(tenant, responder, asked, Vec::new()).decide(0).await;
            decided = Some(self.decide(&mut head, &mut row, tenant, number, &ended, now));
        } else if let Some(due) = head.arm() {
            batch.writes.push(Write::put(self.agenda(due), Bytes::new()));
        }
        let marker = turn.map_or_else(Bytes::new, |turn| Bytes::copy_from_slice(&turn.0.to_bytes()));
        let remember = now.after(self.context.options.marker_ttl);
        batch.writes.push(Write::put_until(Key::marker(&self.id, act.key), marker, remember));
        self.settle(loaded, tenant, now, number, &row, &head, &mut batch);
        if let Some((texts, tally)) = &decided {
            self.publish(batch, TurnId(act.key), texts, &address, *tally).await?;
        } else {
            self.commit(batch).await?;
        }

        let armed = head.agenda.filter(|_| loaded.head.agenda.is_none());
        if let Some((_, tally)) = &decided {
            ports.metrics.turn(tally.outcome, ports.clock.now().since(taken_in).as_secs_f64());
        } else if let Some(text) = text.filter(|_| turn.is_some()) {
            state.texts.insert(act.key, text);
        }
        if let Some(loaded) = &mut state.loaded {
            (loaded.head, loaded.address, loaded.stored) = (head, address, true);
        }
        if let Some(due) = armed {
            self.home.tell(PartitionMessage::Armed { due, key: self.id.clone() });
        }
        Ok(())
    }

    /// Opens what the channel brought.
    async fn open(&self, act: &CustomerAct) -> Result<SealedAct, Fault> {
        let day = act.sealed.key_number().unwrap_or_default();
        let cipher = self.context.ports.keys.log(&self.id.tenant, Day(day)).await?;
        let plain = cipher.open(&log_aad(Topic::Inbound, &act.key), &act.sealed)?;
        serde_json::from_slice(&plain).map_err(|error| Fault::Dead {
            reason: DeadReason::Unreadable,
            detail: format!("what is sealed is no act: {error}"),
        })
    }

    fn agenda(&self, due: Timestamp) -> Key {
        Key::agenda(self.home.fence.partition, due, self.id.to_string().as_bytes())
    }

    fn turn(
        &self,
        tenant: &Arc<Tenant>,
        responder: Arc<dyn heddle_schemas::ports::responder::Responder>,
        asked: Vec<Asked>,
        history: Vec<heddle_schemas::ports::responder::Said>,
    ) -> Turn {
        Turn {
            context: self.context.clone(),
            conversation: self.id.clone(),
            tenant: tenant.clone(),
            responder,
            epoch: self.home.fence.epoch,
            asked,
            history,
        }
    }

    /// Takes a turn's outcome into the head and the row. Returns what to send and what to tell.
    fn decide(
        &self,
        head: &mut Head,
        row: &mut Row,
        tenant: &Tenant,
        number: u64,
        ended: &Ended,
        now: Timestamp,
    ) -> (Vec<String>, Tally) {
        let turn = TurnId(ended.covered[0]);
        head.decide(turn, &ended.covered, number);
        let answer = ended.answer.as_ref();
        let text = answer.and_then(|answer| answer.text.as_deref()).unwrap_or(&tenant.agent.fallback);
        let texts = split(text, MESSAGE_CHARACTERS);
        let usage = answer.map(|answer| answer.usage).unwrap_or_default();
        let tally = Tally {
            messages: u32::try_from(ended.covered.len()).unwrap_or(u32::MAX),
            outcome: if answer.is_some() { Outcome::Answered } else { Outcome::Fallback },
            attempts: ended.attempts,
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
        };
        row.entries.push(EntrySaid::Agent {
            turn,
            at: now,
            texts: texts.clone(),
            sources: answer.map(|answer| answer.sources.clone()).unwrap_or_default(),
            tally,
        });
        (texts, tally)
    }

    /// The event that tells of a turn.
    fn told(&self, turn: TurnId, tally: Tally) -> NewRecord {
        let ports = &self.context.ports;
        let Tally { messages, outcome, attempts, input_tokens, output_tokens } = tally;
        let conversation = self.id.clone();
        let event =
            Event::Turn { conversation, turn, messages, outcome, attempts, input_tokens, output_tokens };
        let tenant = self.id.tenant.clone();
        publish::event(ports, &EventRecord { v: V, tenant, at: ports.clock.now(), event })
    }

    /// Adds the row and the head to a batch.
    #[expect(clippy::too_many_arguments, reason = "they are one batch's parts")]
    fn settle(
        &self,
        loaded: &Loaded,
        tenant: &Tenant,
        now: Timestamp,
        number: u64,
        row: &Row,
        head: &Head,
        batch: &mut Batch,
    ) {
        let expires = now.after(tenant.retention.messages);
        batch.writes.push(loaded.thread.write(number, row, expires));
        batch.writes.push(Write::put(Key::head(&self.id), encode(head)));
    }

    /// Commits a batch together with the replies of a turn and the event that tells of it.
    async fn publish(
        &self,
        batch: Batch,
        turn: TurnId,
        texts: &[String],
        address: &Address,
        tally: Tally,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let messages = self.messages(turn, texts, address, false).await?;
        let told = self.told(turn, tally);
        let mut batch = Batch { fence: Some(self.home.fence), ..batch };
        batch.outputs.extend(messages);
        batch.outputs.push(told.clone());
        match ports.state.commit(batch.clone()).await {
            Err(error) if error.is_transient() => {
                ports.metrics.store_retried(&error);
                batch.outputs = self.messages(turn, texts, address, true).await?;
                batch.outputs.push(told);
                commit(&*ports.state, &ports.metrics, |_| batch.clone()).await?;
            }
            done => done?,
        }
        Ok(())
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let batch = Batch { fence: Some(self.home.fence), ..batch };
        commit(&*ports.state, &ports.metrics, |_| batch.clone()).await
    }

    /// The records that ask the account to send the replies of a turn.
    async fn messages(
        &self,
        turn: TurnId,
        texts: &[String],
        address: &Address,
        again: bool,
    ) -> Result<Vec<NewRecord>, Fault> {
        let ports = &self.context.ports;
        let now = ports.clock.now();
        let cipher = ports.keys.log(&self.id.tenant, now.day()).await?;
        let record = |(index, text): (u16, &String)| {
            let id = OutboundId { contact: self.id.contact, turn, index };
            let content = Content::Text { body: text.clone() };
            let message = SealedMessage { to: address.clone(), content };
            let sealed = cipher.seal(&log_aad(Topic::Outbound, &id), &encode(&message));
            let command = SendCommand { id, purpose: Purpose::Reply, again, sealed };
            let command = OutboundCommand::Send(command);
            publish::outbound(
                ports,
                &OutboundRecord { v: V, conversation: self.id.clone(), at: now, command },
            )
        };
        Ok((0_u16..).zip(texts).map(record).collect())
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
            self.home.tell(later(now.after(UNKNOWN_TENANT_PAUSE)));
            return Ok(());
        };
        if let Err(fault) = self.load(state).await {
            return self.postpone(fault, later(now.after(std::time::Duration::from_secs(1))));
        }
        let Some(loaded) = &state.loaded else { return Ok(()) };
        match loaded.head.wake(entry.due, now) {
            Wake::NotBefore(at) => self.home.tell(later(at)),
            Wake::Nothing => match self.clear(state, &entry).await {
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
    async fn clear(&self, state: &mut ConversationState, entry: &Entry<ConversationId>) -> Result<(), Fault> {
        let last = state.loaded.as_ref().and_then(|loaded| loaded.head.last.as_ref()).map(|last| last.turn);
        let outputs = self.unpublished(state, last).await?;
        let mut writes = Vec::new();
        if let Some(loaded) = &mut state.loaded
            && loaded.head.agenda == Some(entry.due)
        {
            let head = Head { agenda: None, ..loaded.head.clone() };
            writes.push(Write::put(Key::head(&self.id), encode(&head)));
            loaded.head = head;
        }
        let after = vec![Write::delete(self.agenda(entry.due))];
        self.commit(Batch { writes, outputs, after, ..Batch::default() }).await?;
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
        let covered: Vec<_> = asked.iter().map(|asked| asked.key).collect();
        let turn = self.turn(tenant, responder, asked, history);
        state.running = Some(Running { entry, covers: covered.len() });
        let myself = myself.clone();
        state.tasks.spawn(async move {
            // A panic in a responder or an index is this turn's, not the conversation's.
            let ended = AssertUnwindSafe(turn.run()).catch_unwind().await;
            let ended = ended.unwrap_or(Ok(Ended { covered, answer: None, attempts: 0 }));
            drop(myself.send_message(ConversationMessage::Ended(ended)));
        });
        Ok(())
    }

    /// Commits what a turn has decided.
    async fn ended(&self, state: &mut ConversationState, ended: Ended) -> Result<(), ActorProcessingErr> {
        while state.tasks.try_join_next().is_some() {}
        let Some(Running { entry, .. }) = state.running.take() else { return Ok(()) };
        let ports = &self.context.ports;
        let now = ports.clock.now();
        let tenant = self.context.tenants.get(&self.id.tenant);
        let (Some(tenant), Some(loaded)) = (tenant, &state.loaded) else {
            let again = Some(now.after(UNKNOWN_TENANT_PAUSE));
            self.home.tell(PartitionMessage::Woken { entry, again });
            return Ok(());
        };
        let mut head = loaded.head.clone();
        let number = head.take_row();
        let mut row = Row::default();
        let began = head.open.first().map_or(now, |first| first.at);
        let (texts, tally) = self.decide(&mut head, &mut row, &tenant, number, &ended, now);
        let next = head.rearm(entry.due);
        let mut batch = Batch {
            writes: next.map(|due| Write::put(self.agenda(due), Bytes::new())).into_iter().collect(),
            after: vec![Write::delete(self.agenda(entry.due))],
            ..Batch::default()
        };
        self.settle(loaded, &tenant, now, number, &row, &head, &mut batch);
        let turn = TurnId(ended.covered[0]);
        if let Err(fault) = self.publish(batch, turn, &texts, &loaded.address, tally).await {
            let again = Some(now.after(std::time::Duration::from_secs(1)));
            return self.postpone(fault, PartitionMessage::Woken { entry, again });
        }
        ports.metrics.turn(tally.outcome, ports.clock.now().since(began).as_secs_f64());
        for message in &ended.covered {
            state.texts.remove(message);
        }
        if let Some(loaded) = &mut state.loaded {
            loaded.head = head;
        }
        self.home.tell(PartitionMessage::Woken { entry, again: None });
        if let Some(due) = next {
            self.home.tell(PartitionMessage::Armed { due, key: self.id.clone() });
        }
        Ok(())
    }

    /// Takes in how far a message of ours has come: it only rises.
    async fn report(&self, tenant: &Tenant, report: &DeliveryReport, receipt: &Receipt) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let key = Key::delivery(&self.id, &report.outbound);
        let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
        let stored = stored.and_then(|stored| serde_json::from_slice::<Delivery>(&stored).ok());
        let before = stored.as_ref().map_or(DeliveryStatus::Queued, |delivery| delivery.status);
        let status = before.merge(report.status);
        let mut batch = Batch { consumed: vec![receipt.consumed()], ..Batch::default() };
        if stored.is_none() || status != before {
            let delivery = Delivery { status, at: report.at, failure: report.failure.clone() };
            let expires = ports.clock.now().after(tenant.retention.messages);
            batch.writes.push(Write::put_until(key, encode(&delivery), expires));
        }
        self.commit(batch).await?;
        Ok(())
    }
}

/// Cuts a text into pieces of at most `limit` characters, at white space where there is some.
fn split(text: &str, limit: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text.trim();
    while let Some((over, _)) = rest.char_indices().nth(limit) {
        let cut = rest[..over].rfind(char::is_whitespace).filter(|&cut| cut > over / 2).unwrap_or(over);
        pieces.push(rest[..cut].trim_end().to_owned());
        rest = rest[cut..].trim_start();
    }
    if !rest.is_empty() {
        pieces.push(rest.to_owned());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_fit_and_lose_only_white_space(text in "[a-zé ]{0,400}", limit in 1_usize..50) {
            let pieces = split(&text, limit);
            prop_assert!(pieces.iter().all(|piece| piece.chars().count() <= limit && !piece.is_empty()));
            let dense = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(dense(&pieces.join(" ")), dense(&text));
        }
    }
}
