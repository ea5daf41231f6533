//! Entities of a partition: their kind, their messages, and their place in memory.

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heddle_schemas::id::{ContactId, ConversationId, MessageKey};
use heddle_schemas::ports::log::Record;
use heddle_schemas::ports::state::{Fence, State};
use heddle_schemas::record::RecordError;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic};
use ractor::{ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::oneshot;

use super::{LET_GO_AT_ONCE, Partition, PartitionMessage, PartitionState, RETIRED_AT_ONCE, Receipt};
use crate::invariants::{Invariant, are_entities_bounded};
use crate::partition::agenda::{Entry, Laned};
use crate::partition::ttl_update::TtlUpdate;
use crate::tenant::configuration::Changed;

/// Kind of entity: conversations of inbound, accounts of outbound.
pub trait EntityKind: Clone + Send + Sync + 'static {
    /// Its name, also in the agenda's rows.
    type Key: Laned<Lane: fmt::Debug + Send + Sync> + FromStr + fmt::Debug + Hash + Send + Sync + 'static;
    /// A record, read.
    type Item: Send + 'static;
    /// Message to its actor.
    type Message: ractor::Message;

    /// The topic it lives on.
    const TOPIC: Topic;

    /// True where its agenda entries rest while it is held, since what is parked may settle what they are about.
    const RESTS_WHILE_HELD: bool;

    /// Reads a record of a version up to `newest`.
    ///
    /// # Errors
    /// When it is no record of the topic, or a later build wrote it.
    fn decode(record: &Record, newest: u16) -> Result<(Self::Key, Self::Item), RecordError>;

    /// Parked records of its entity that a record discards.
    fn discards(item: &Self::Item) -> Option<Discards>;

    /// The same entities, which commit to this store.
    #[must_use]
    fn committing_to(self, state: Arc<dyn State>) -> Self;

    /// Returns the ownership of another partition under which a record was published, where that decides if it may
    /// have come before.
    fn published_under(_item: &Self::Item) -> Option<Fence> {
        None
    }

    /// The message that brings a record.
    fn deliver(item: Self::Item, receipt: Receipt) -> Self::Message;

    /// The message that wakes it for an agenda entry; answered by [`PartitionMessage::Woken`].
    fn wake(entry: Entry<Self::Key>) -> Self::Message;

    /// Returns the message that answers [`PartitionMessage::Barrier`], after everything below it; `None` where such
    /// entities never ask.
    fn passed(below: Offset) -> Option<Self::Message>;

    /// Returns the message that applies a TTL update to its rows; `None` where such entities have none.
    fn shorten(rows: Vec<TtlUpdate>, done: oneshot::Sender<usize>) -> Option<Self::Message>;

    /// Returns the message about changed configuration, where it concerns these tenants.
    fn reconfigured(key: &Self::Key, changed: &Changed) -> Option<Self::Message>;

    /// Starts its actor.
    ///
    /// # Errors
    /// When it cannot be started.
    fn spawn(
        &self,
        key: Self::Key,
        home: EntityHandle<Self::Key>,
        supervisor: ActorCell,
    ) -> Result<ActorRef<Self::Message>, SpawnErr>;
}

/// Parked records of an entity that a record discards; the record itself is then delivered.
#[derive(Debug)]
pub enum Discards {
    /// All, if the tenant is deleted.
    OfTenant,
    /// Those of the conversation before the record, if this erasure of its contact is not complete.
    OfConversation(Box<ConversationId>, MessageKey),
    /// Those about the contact before the record.
    OfContact(ContactId),
}

/// Number of messages that an entity has finished. It is idle when that equals the number delivered to it.
#[derive(Debug, Default)]
pub struct Idle(AtomicU64);

impl Idle {
    /// Records that the entity has finished `given` messages and has nothing under way.
    pub fn finished(&self, given: u64) {
        self.0.store(given, Ordering::Release);
    }
}

/// Handle of an entity on its partition.
#[derive(Clone)]
pub struct EntityHandle<K: Send + Sync + 'static> {
    /// Ownership under which it writes.
    pub fence: Fence,
    /// Counter of its finished messages.
    pub idle: Arc<Idle>,
    partition: ActorRef<PartitionMessage<K>>,
}

impl<K: Send + Sync + 'static> EntityHandle<K> {
    /// Sends a message to the partition. One that is gone ignores it.
    pub fn tell(&self, message: PartitionMessage<K>) {
        drop(self.partition.send_message(message));
    }
}

pub(super) struct LiveEntity<M> {
    actor: ActorRef<M>,
    idle: Arc<Idle>,
    given: u64,
    last: Timestamp,
}

impl<M: ractor::Message> LiveEntity<M> {
    pub(super) fn is_idle(&self) -> bool {
        self.idle.0.load(Ordering::Acquire) == self.given
    }
}

impl<R: EntityKind> Partition<R> {
    /// Sends a message to an entity, starting it where it is not in memory.
    pub(super) fn give(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
        key: R::Key,
        message: R::Message,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.context.ports.clock.now();
        let entity = match state.entities.get_mut(&key) {
            Some(entity) => entity,
            None => {
                let idle = Arc::<Idle>::default();
                let home = EntityHandle { fence: self.fence, idle: idle.clone(), partition: myself.clone() };
                let actor = state.kind.spawn(key.clone(), home, myself.get_cell())?;
                self.make_room(state, 1);
                let entities = state.entities.len() + 1;
                state.entities_reported.set(entities);
                self.check_bounds(state, entities);
                state.entities.get_or_insert_mut(key, || LiveEntity { actor, idle, given: 0, last: now })
            }
        };
        entity.given += 1;
        entity.last = now;
        if entity.actor.send_message(message).is_err() {
            return Err("an entity ended without being retired".into());
        }
        Ok(())
    }

    /// I9: entities in memory.
    pub(super) fn check_bounds(&self, state: &PartitionState<R>, entities: usize) {
        let options = &self.context.options;
        let (bound, permits) = (options.residents_per_partition.get(), self.permits(state));
        let is_bounded = are_entities_bounded(entities, bound, permits, state.agenda.in_work());
        self.context.ports.metrics.check(Invariant::Bounds, is_bounded, || {
            format!("{entities} entities of {} are in memory, {bound} may be idle", self.fence.partition)
        });
    }

    /// Retires entities where there are as many as allowed. Those at work stay, so there may be more of them for a
    /// while: then more than one has to go.
    pub(super) fn make_room(&self, state: &mut PartitionState<R>, coming: usize) {
        let most = self.context.options.residents_per_partition.get();
        let over = (state.entities.len() + coming).saturating_sub(most);
        for _ in 0..over.min(LET_GO_AT_ONCE) {
            self.retire_one(state);
        }
    }

    /// Retires the entities that have had no work for a while.
    pub(super) fn retire(&self, state: &mut PartitionState<R>) {
        self.make_room(state, 0);
        let now = self.context.ports.clock.now();
        for _ in 0..RETIRED_AT_ONCE {
            let Some((_, oldest)) = state.entities.peek_lru() else { return };
            if now.since(oldest.last) < self.context.options.passivate_after {
                return;
            }
            self.retire_one(state);
        }
    }

    /// Retires the entity that has been without messages longest; one at work is asked again later.
    pub(super) fn retire_one(&self, state: &mut PartitionState<R>) {
        let Some((key, entity)) = state.entities.pop_lru() else { return };
        if entity.is_idle() {
            entity.actor.stop(None);
            state.entities_reported.set(state.entities.len());
        } else {
            let now = self.context.ports.clock.now();
            state.entities.put(key, LiveEntity { last: now, ..entity });
        }
    }

    pub(super) fn reconfigured(&self, state: &mut PartitionState<R>, changed: &Changed) {
        for (key, entity) in state.entities.iter_mut() {
            let Some(message) = R::reconfigured(key, changed) else { continue };
            entity.given += 1;
            drop(entity.actor.send_message(message));
        }
    }
}
