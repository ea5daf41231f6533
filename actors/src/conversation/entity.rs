//! Actor of a conversation: its messages, and the handling of records that cannot be applied.
//!
//! The actor changes a copy of its state and takes the copy over when the batch is durable, so memory always equals the
//! stored state. A record that makes it panic is retried from stored state, then dead-lettered. So is a record that
//! meets a row that cannot be read: only a store that is closed or has another owner ends the actor, and with it its
//! partition.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use heddle_schemas::id::{ConversationId, MessageKey};
use heddle_schemas::ports::log::Record;
use heddle_schemas::ports::state::{Batch, State, StoreError};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord};
use heddle_schemas::record::{RecordError, decode_to};
use heddle_schemas::table::Key;
use heddle_schemas::time::{LogThrottle, Timestamp};
use heddle_schemas::topic::{Offset, Topic};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorRuntime, SpawnErr};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::fault::{Fault, Remedy, is_over};
use super::loaded::Loaded;
use super::machine::Running;
use super::publication::Publication;
use super::turn::{Ended, Wrote};
use super::turns::UnderWay;
use crate::context::Context;
use crate::partition::agenda::Entry;
use crate::partition::commit::{commit, read};
use crate::partition::dead_letter::dead_letter;
use crate::partition::ttl_update::TtlUpdate;
use crate::partition::{Discards, EntityHandle, EntityKind, PartitionMessage, Receipt};

/// How often a record that makes the conversation panic is tried.
const TRIES: u32 = 3;
/// The pause before a record is applied again that cannot be applied now.
const AGAIN: Duration = Duration::from_millis(100);

/// Conversations, as entities of inbound's partitions.
#[derive(Clone)]
pub struct Conversations {
    /// Dependencies on the node; one for all, since a turn takes it along.
    pub context: Arc<Context>,
}

/// Message to a conversation.
pub enum ConversationMessage {
    /// A record, with its receipt.
    Deliver(Box<InboundRecord>, Receipt),
    /// Its agenda row is due.
    Wake(Entry<ConversationId>),
    /// The turn of this number has run.
    Ended(u64, Result<Ended, StoreError>),
    /// Rows are to end earlier; answered with the number for which that was done.
    Shorten(Vec<TtlUpdate>, oneshot::Sender<usize>),
}

impl EntityKind for Conversations {
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

    fn discards(item: &Box<InboundRecord>) -> Option<Discards> {
        match &item.event {
            InboundEvent::Leave => Some(Discards::OfTenant),
            InboundEvent::Forget(forget) => {
                Some(Discards::OfConversation(Box::new(item.conversation.clone()), forget.erasure))
            }
            _ => None,
        }
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

    fn reconfigured(_: &ConversationId, _: &crate::partition::Changed) -> Option<ConversationMessage> {
        // Each turn looks its tenant up.
        None
    }

    fn spawn(
        &self,
        key: ConversationId,
        home: EntityHandle<ConversationId>,
        supervisor: ActorCell,
    ) -> Result<ActorRef<ConversationMessage>, SpawnErr> {
        let actor = Conversation { id: key, home, context: self.context.clone() };
        ActorRuntime::spawn_linked_instant(None, actor, (), supervisor).map(|(actor, _)| actor)
    }
}

/// The actor of one conversation.
pub(super) struct Conversation {
    pub(super) id: ConversationId,
    pub(super) home: EntityHandle<ConversationId>,
    pub(super) context: Arc<Context>,
}

/// State of a conversation in memory.
#[derive(Default)]
pub(super) struct ConversationState {
    pub(super) loaded: Option<Loaded>,
    /// The texts of open messages, where they were said since the actor started.
    pub(super) texts: HashMap<MessageKey, Wrote>,
    /// The turn under way, as the machine knows it; there is one exactly while there is an `under_way`.
    pub(super) running: Option<Running>,
    /// The same turn, as the actor performs it.
    pub(super) under_way: Option<UnderWay>,
    /// Turns that have begun.
    pub(super) turns: u64,
    /// The task of the turn under way, and those of turns that were dropped, until they are reaped.
    pub(super) tasks: JoinSet<()>,
    /// Messages of the partition that have been handled.
    handled: u64,
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
                // The caller may have gone.
                let _ = done.send(Box::pin(self.shorten(rows)).await?);
            }
            ConversationMessage::Ended(number, ended) => Box::pin(self.ended(state, number, ended)).await?,
        }
        if state.under_way.is_none() {
            self.home.idle.finished(state.handled);
        }
        Ok(())
    }
}

// The future of handling a message is as large as its largest wait, is moved when the actor takes the message up, and
// is part of every conversation in memory. So rare waits are in a box of their own.
impl Conversation {
    /// Applies a record, whatever it does to this code. Returns what is newer than this build, where that keeps it from
    /// being applied.
    async fn deliver(
        &self,
        state: &mut ConversationState,
        record: &InboundRecord,
        receipt: &Receipt,
    ) -> Result<Option<String>, StoreError> {
        for attempt in 1.. {
            let applied = AssertUnwindSafe(self.apply(state, record, receipt)).catch_unwind().await;
            let remedy = match applied {
                Ok(Ok(())) => return Ok(None),
                Ok(Err(fault)) => fault.remedy(),
                Err(_) => Remedy::SetAside(DeadReason::Poison, "handling it panics".to_owned()),
            };
            state.loaded = None;
            let (reason, detail) = match remedy {
                Remedy::Stop(error) => return Err(error),
                Remedy::Park(detail) => return Ok(Some(detail)),
                Remedy::Retry(error) => {
                    self.retried(&error);
                    Box::pin(tokio::time::sleep(AGAIN)).await;
                    continue;
                }
                Remedy::Reload(_) | Remedy::SetAside(DeadReason::Poison, _) if attempt < TRIES => continue,
                Remedy::Reload(detail) => match Box::pin(self.refused_as_deleted(receipt)).await? {
                    true => return Ok(None),
                    false => (DeadReason::Unreadable, detail),
                },
                Remedy::SetAside(reason, detail) => (reason, detail),
            };
            return Box::pin(self.dead_letter(receipt, reason, detail, attempt)).await;
        }
        Ok(None)
    }

    async fn dead_letter(
        &self,
        receipt: &Receipt,
        reason: DeadReason,
        detail: String,
        attempts: u32,
    ) -> Result<Option<String>, StoreError> {
        let (ports, fence, record) = (&self.context.ports, self.home.fence, &receipt.record);
        dead_letter(ports, fence, record, reason, detail, attempts).await?;
        Ok(None)
    }

    /// Notes that something is tried again.
    pub(super) fn retried(&self, error: &StoreError) {
        self.context.ports.metrics.store_retried(error);
        static LOGGED: LogThrottle = LogThrottle::new();
        if LOGGED.lets_through() {
            tracing::warn!(%error, "the store does not answer, retrying");
        }
    }

    /// Settles a record whose tenant is deleted, though the node has not read that yet. Returns whether it is.
    async fn refused_as_deleted(&self, receipt: &Receipt) -> Result<bool, StoreError> {
        let refused = async {
            match self.is_of_deleted().await? {
                true => self.refuse(receipt).await.map(|()| true),
                false => Ok(false),
            }
        };
        match refused.await {
            Ok(refused) => Ok(refused),
            Err(Fault::Store(error)) if is_over(&error) => Err(error),
            Err(_) => Ok(false),
        }
    }

    pub(super) fn agenda(&self, due: Timestamp) -> Key {
        Key::agenda(self.home.fence.partition, due, self.id.to_string().as_bytes())
    }

    pub(super) fn publication<'a>(&'a self, loaded: &'a Loaded) -> Publication<'a> {
        Publication { context: &self.context, id: &self.id, fence: self.home.fence, loaded }
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let batch = Batch { fence: Some(self.home.fence), ..batch };
        commit(&*ports.state, &ports.metrics, |_| batch.clone()).await
    }

    /// Has rows end earlier that are still as they were found. This actor alone writes them, so none changes between
    /// the reading and the writing. A row that cannot be read stays as it is.
    async fn shorten(&self, rows: Vec<TtlUpdate>) -> Result<usize, StoreError> {
        let ports = &self.context.ports;
        let mut writes = Vec::with_capacity(rows.len());
        for row in rows {
            match read(&ports.metrics, || ports.state.get(&row.key)).await {
                // A row that was written since has its end by the current policy.
                Ok(stored) if stored.as_ref() == Some(&row.value) => {
                    writes.push(row.write(ports.clock.now()))
                }
                Ok(_) => {}
                Err(error) if is_over(&error) => return Err(error),
                Err(error) => {
                    tracing::error!(tenant = %self.id.tenant, %error, "the end of a row cannot be moved");
                }
            }
        }
        let shortened = writes.len();
        if shortened > 0 {
            self.commit(Batch { writes, ..Batch::default() }).await?;
        }
        Ok(shortened)
    }
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
        assert!(size <= 1312, "{size} bytes");
    }
}
