//! One owned partition of inbound or outbound: fetches its records, delivers them in order, wakes what is due.
//!
//! Contract: records of one entity (a conversation or an account) reach it in the order of their
//! offsets, and only one actor of an entity exists at a time. At most `permits_per_partition` records
//! are in work; the rest waits in the log (I9). A record that is none is dead-lettered with its coordinates; one of a
//! later build is parked, with all that follows it for the same entity ([`parking`]). Entities without work leave memory
//! after a while; their state comes back from the store.
//!
//! An entity counts its finished messages in [`Idle`]; when that equals the number delivered to it, its mailbox is
//! empty and nothing is under way, so it can be stopped and started anew without a gap.

pub mod agenda;
pub mod commit;
pub(crate) mod dead_letter;
mod fetch;
pub(crate) mod lag;
pub mod pages;
pub(crate) mod parking;
pub mod publish;
pub(crate) mod retry;
pub mod set_aside;
pub mod ttl_update;
pub(crate) mod update;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use heddle_schemas::id::{ContactId, ConversationId, MessageKey};
use heddle_schemas::ports::log::{Record, StoreError};
use heddle_schemas::ports::state::{Batch, Fence, Scan, State};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::{RecordError, version};
use heddle_schemas::table::{Partition as Rows, agenda_bound};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, Topic, TopicPartition};
use lru::LruCache;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use self::lag::Lag;
use crate::context::Context;
use crate::invariants::{Invariant, are_entities_bounded, are_permits_kept, is_in_order};
use crate::metrics::{GaugeShare, Metrics};
use crate::partition::agenda::{Agenda, Entry, Laned, Place, Wanted};
use crate::partition::commit::{commit, read};
use crate::partition::dead_letter::dead_letter;
use crate::partition::parking::{Discarding, Held, Name, Parking, RETURNING, Step};
use crate::partition::ttl_update::TtlUpdate;
use crate::ports::Ports;
use crate::privacy::{erasure, tenant_deletion};
pub(crate) use crate::tenant::configuration::Changed;

/// Interval of a partition's periodic check: passivation, a wall clock that jumped.
const LOOK: Duration = Duration::from_secs(1);
/// Maximum number of agenda reads in one check; the next check follows at once.
const READS_AT_ONCE: usize = 8;
/// Rows of the agenda that are read at once at most.
const AGENDA_READ: usize = 4096;
/// Maximum number of entities that one check retires.
const RETIRED_AT_ONCE: usize = 4096;
/// Entities that are checked to make room for one.
const LET_GO_AT_ONCE: usize = 4;
/// Parked records that one check may hand over; the next check follows soon.
const RETURNED_AT_ONCE: usize = 64;
/// The pause between checks while parked records are handed over.
const RETURN_PAUSE: Duration = Duration::from_millis(10);
/// Pause before the agenda entry of a held entity is checked again.
const HELD_PAUSE: Duration = Duration::from_secs(30);

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

/// Message to a partition.
#[derive(Debug)]
pub enum PartitionMessage<K> {
    /// Records, in order, and the offset that reading goes on at.
    Records(Vec<Record>, Offset),
    /// An entity wrote an agenda row.
    Armed {
        /// When it is due.
        due: Timestamp,
        /// Entity to wake.
        key: K,
    },
    /// An entity has settled an entry.
    Woken {
        /// Entry that was settled.
        entry: Entry<K>,
        /// When to wake it again for the same row; `None` when the row is deleted.
        again: Option<Timestamp>,
    },
    /// An entity asks for a message when everything below this offset has been delivered to it.
    Barrier {
        /// The offset.
        below: Offset,
        /// Entity that asks.
        key: K,
    },
    /// TTL update: rows of an entity are to end earlier.
    Shorten {
        /// Entity of the rows.
        key: K,
        /// Rows and their ends.
        rows: Vec<TtlUpdate>,
        /// Receives the number of updated rows; dropped where the partition is being released.
        done: oneshot::Sender<usize>,
    },
    /// An entity found that a later build wrote what a record is about. It and all that follows are parked.
    Newer {
        /// The record.
        receipt: Receipt,
        /// What is newer.
        detail: String,
    },
    /// The configuration of these tenants has changed.
    Reconfigured(Arc<Changed>),
    /// Time of a periodic check.
    Tick,
    /// Fetch no more records, finish those in work, then answer and stop.
    Drain(oneshot::Sender<()>),
    /// The ownership is over, or the store broken: stop at once.
    Over(String),
}

/// The proof that a record was delivered; as long as it lives, the record counts as in work.
#[derive(Debug)]
pub struct Receipt {
    /// The record as it came, for the dead-letter topic.
    pub record: Record,
    /// True where what it asks for may have been done before: it was in the log when the partition was taken
    /// over, or who published it had lost its own partition by then.
    pub maybe_again: bool,
    /// When it was delivered, by the clock's elapsed time.
    pub delivered: Duration,
    /// True for a record that was parked.
    parked: bool,
    work: Arc<Work>,
}

/// Records of a partition in work.
#[derive(Debug)]
struct Work {
    permits: Semaphore,
    /// Of parked records.
    returning: Semaphore,
    records: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Receipt {
    /// Returns the consumed offset for the batch that settles the record.
    #[must_use]
    pub fn consumed(&self) -> (TopicPartition, Offset) {
        (self.record.partition, self.record.offset)
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.work.metrics.in_work(self.record.partition.topic, -1);
        self.work.records.fetch_sub(1, Ordering::AcqRel);
        let permits = if self.parked { &self.work.returning } else { &self.work.permits };
        permits.add_permits(1);
    }
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

/// A message to oneself, some time from now.
pub(crate) type Timer<M> = JoinHandle<Result<(), ractor::MessagingErr<M>>>;

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

struct LiveEntity<M> {
    actor: ActorRef<M>,
    idle: Arc<Idle>,
    given: u64,
    last: Timestamp,
}

impl<M: ractor::Message> LiveEntity<M> {
    fn is_idle(&self) -> bool {
        self.idle.0.load(Ordering::Acquire) == self.given
    }
}

/// The actor of a partition.
pub struct Partition<R> {
    /// Kind of the entities.
    pub kind: R,
    /// Dependencies of its entities.
    pub context: Context,
    /// The ownership.
    pub fence: Fence,
}

/// The fetching of a partition; it ends with the state it is part of, also when its actor is killed.
struct Fetching(JoinHandle<()>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The state of a partition's actor.
pub struct PartitionState<R: EntityKind> {
    kind: R,
    /// Where entities commit.
    store: Arc<dyn State>,
    parking: Parking,
    entities: LruCache<R::Key, LiveEntity<R::Message>>,
    agenda: Agenda<R::Key>,
    work: Arc<Work>,
    /// Every record below it has been given to its entity.
    delivered: Offset,
    /// The record of the log delivered last.
    last: Option<Offset>,
    /// Where the log ended when the partition was taken over.
    taken_over_at: Offset,
    /// The newest epoch of each partition whose owners publish into this one.
    publishers: HashMap<TopicPartition, Epoch>,
    barriers: Vec<(Offset, R::Key)>,
    fetch: Fetching,
    tick: Option<(Timestamp, Timer<PartitionMessage<R::Key>>)>,
    draining: Option<oneshot::Sender<()>>,
    /// Reported sizes of `entities` and of `agenda`.
    entities_reported: GaugeShare,
    agenda_reported: GaugeShare,
    lag: Lag,
}

impl<R: EntityKind> Actor for Partition<R> {
    type Msg = PartitionMessage<R::Key>;
    type State = PartitionState<R>;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (): (),
    ) -> Result<Self::State, ActorProcessingErr> {
        let partition = self.fence.partition;
        let Context { ports, options, .. } = &self.context;
        let position = read(&ports.metrics, || ports.log.position(partition)).await?;
        let taken_over_at = read(&ports.metrics, || ports.log.end(partition)).await?;
        let work = Arc::new(Work {
            permits: Semaphore::new(options.permits_per_partition.get()),
            returning: Semaphore::new(RETURNING),
            records: AtomicUsize::new(0),
            metrics: ports.metrics.clone(),
        });
        let parking = Parking::open(partition, ports.state.clone(), ports.metrics.clone()).await?;
        let (kind, store) = match parking.settling() {
            Some(store) => (self.kind.clone().committing_to(store.clone()), store),
            None => (self.kind.clone(), ports.state.clone()),
        };
        let next = position.next;
        let fetch = fetch::Fetch {
            log: ports.log.clone(),
            metrics: ports.metrics.clone(),
            partition,
            position,
            work: work.clone(),
            to: myself.clone(),
        };
        drop(myself.send_message(PartitionMessage::Tick));
        Ok(PartitionState {
            kind,
            store,
            parking,
            entities: LruCache::unbounded(),
            agenda: Agenda::new(options.agenda_window.get(), options.woken_per_tenant.get()),
            work,
            delivered: next,
            last: None,
            barriers: Vec::new(),
            taken_over_at,
            publishers: HashMap::new(),
            fetch: Fetching(tokio::spawn(fetch.run())),
            tick: None,
            draining: None,
            entities_reported: ports.metrics.entities(R::TOPIC),
            agenda_reported: ports.metrics.agenda(R::TOPIC),
            lag: Lag::new(ports, partition),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PartitionMessage::Records(records, next) => {
                for record in records {
                    self.take(&myself, state, record).await?;
                }
                let before = state.delivered;
                state.delivered = next;
                self.pass_barriers(&myself, state)?;
                if before < state.taken_over_at && next >= state.taken_over_at {
                    return self.look(&myself, state).await;
                }
                // Ticks handle passivation and due entries.
                return Ok(());
            }
            PartitionMessage::Armed { due, key } => state.agenda.insert(Entry { fire: due, due, key }),
            PartitionMessage::Woken { entry, again } => state.agenda.answered(entry, again),
            PartitionMessage::Barrier { below, key } => {
                state.barriers.push((below, key));
                return self.pass_barriers(&myself, state);
            }
            PartitionMessage::Shorten { key, rows, done } => {
                // A partition that is being handed over starts no more work.
                let message = R::shorten(rows, done).filter(|_| state.draining.is_none());
                return message.map_or(Ok(()), |message| self.give(&myself, state, key, message));
            }
            PartitionMessage::Newer { receipt, detail } => {
                return self.park_from(state, receipt, &detail).await;
            }
            PartitionMessage::Reconfigured(changed) => self.reconfigured(state, &changed),
            PartitionMessage::Tick => {
                state.tick = None;
                self.retire(state);
                state.lag.look(state.delivered).await;
            }
            PartitionMessage::Drain(done) => {
                state.fetch.0.abort();
                state.draining = Some(done);
            }
            PartitionMessage::Over(why) => {
                tracing::warn!(partition = %self.fence.partition, why, "a partition stops at once: fenced, lease lost or its store failed");
                return Err(why.into());
            }
        }
        self.look(&myself, state).await
    }

    async fn post_stop(
        &self,
        _: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some((_, tick)) = state.tick.take() {
            tick.abort();
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        _: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // An entity ends only when it is retired; one that fails has lost its place in the order, so the whole
        // partition starts anew from the settled offset.
        match event {
            SupervisionEvent::ActorFailed(who, error) => {
                Err(format!("entity {} failed: {error}", who.get_id()).into())
            }
            _ => Ok(()),
        }
    }
}

impl<R: EntityKind> Partition<R> {
    async fn take(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
        record: Record,
    ) -> Result<(), ActorProcessingErr> {
        // Records that come back from parking are older than what the log has delivered since.
        let is_ordered = is_in_order(state.last, record.offset);
        self.context.ports.metrics.check(Invariant::Order, is_ordered, || {
            format!("record {} of {} follows {:?}", record.offset, self.fence.partition, state.last)
        });
        state.last = Some(record.offset);
        let receipt = self.receipt(state, record, false);
        match R::decode(&receipt.record, self.newest()) {
            Ok((key, item)) => {
                if state.parking.may_hold()
                    && self.is_parked(state, &key, R::discards(&item), &receipt).await?
                {
                    return Ok(());
                }
                self.hand(myself, state, key, item, receipt).await
            }
            Err(error) => self.refuse(state, &receipt, error).await,
        }
    }

    /// The newest version of the topic that is read.
    fn newest(&self) -> u16 {
        self.context.ports.versions.reads(R::TOPIC)
    }

    /// Records that may be in work: those of the log, and parked ones that are handed over.
    fn permits(&self, state: &PartitionState<R>) -> usize {
        let returning = RETURNING.saturating_sub(state.work.returning.available_permits());
        self.context.options.permits_per_partition.get() + returning
    }

    fn receipt(&self, state: &PartitionState<R>, record: Record, parked: bool) -> Receipt {
        let ports = &self.context.ports;
        let metrics = &ports.metrics;
        metrics.in_work(R::TOPIC, 1);
        let in_work = state.work.records.fetch_add(1, Ordering::AcqRel) + 1;
        let permits = self.permits(state);
        metrics.check(Invariant::Bounds, are_permits_kept(in_work, permits), || {
            format!("{in_work} records of {} are in work, {permits} may be", self.fence.partition)
        });
        Receipt {
            maybe_again: parked || record.offset < state.taken_over_at,
            delivered: ports.clock.elapsed(),
            record,
            parked,
            work: state.work.clone(),
        }
    }

    /// Gives a record to its entity.
    async fn hand(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
        key: R::Key,
        item: R::Item,
        mut receipt: Receipt,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(fence) = R::published_under(&item) {
            receipt.maybe_again |= self.is_from_fenced_producer(state, fence).await?;
        }
        self.give(myself, state, key, R::deliver(item, receipt))
    }

    /// Parks a record of a later build; dead-letters one that is none, or does not say whom it is for.
    async fn refuse(
        &self,
        state: &mut PartitionState<R>,
        receipt: &Receipt,
        error: RecordError,
    ) -> Result<(), ActorProcessingErr> {
        let record = &receipt.record;
        let name = Name::of(R::TOPIC, record.key.clone()).filter(|_| error.is_newer(self.newest()));
        if let Some(name) = name {
            let held = state.parking.find(&name).await?;
            if held.is_none() {
                self.report_newer(record, &error.to_string());
            }
            return self.park(state, &name, held, record).await;
        }
        let reason = match error {
            RecordError::Version { .. } | RecordError::Unknown(_) => DeadReason::Version,
            RecordError::Shape(_) => DeadReason::Shape,
        };
        let ports = Ports { state: state.store.clone(), ..self.context.ports.clone() };
        Ok(dead_letter(&ports, self.fence, record, reason, error.to_string(), 1).await?)
    }

    fn report_newer(&self, record: &Record, detail: &str) {
        let version = version::of(&record.value);
        tracing::error!(
            topic = %R::TOPIC, partition = record.partition.partition, offset = record.offset, version, detail,
            "a record of a later build is parked, and all that follows it for the same conversation or account; \
             upgrade this node"
        );
    }

    async fn park(
        &self,
        state: &mut PartitionState<R>,
        name: &Name,
        held: Option<Held>,
        record: &Record,
    ) -> Result<(), ActorProcessingErr> {
        let ports = &self.context.ports;
        let writes = state.parking.park(name, held, record, ports.clock.now());
        let consumed = vec![(record.partition, record.offset)];
        self.write(Batch { writes, consumed, ..Batch::default() }).await
    }

    async fn write(&self, batch: Batch) -> Result<(), ActorProcessingErr> {
        let ports = &self.context.ports;
        let batch = Batch { fence: Some(self.fence), ..batch };
        Ok(commit(&*ports.state, &ports.metrics, |_| batch.clone()).await?)
    }

    /// Parks a record whose entity is held, unless it is one that discards parked records: it is delivered. A deletion
    /// of the tenant and an erasure of the contact reach what is parked so.
    async fn is_parked(
        &self,
        state: &mut PartitionState<R>,
        key: &R::Key,
        discards: Option<Discards>,
        receipt: &Receipt,
    ) -> Result<bool, ActorProcessingErr> {
        let Some(name) = Name::of(R::TOPIC, key.to_string().into()) else { return Ok(false) };
        let held = state.parking.find(&name).await?;
        let Some(held) = held.filter(|held| receipt.record.offset >= held.first) else { return Ok(false) };
        if let Some(discards) = discards
            && let Some(mut discarding) = self.discarding(&name, discards, receipt).await?
        {
            while let Some(writes) = state.parking.discard(&name, &held, &mut discarding).await? {
                self.write(Batch { writes, ..Batch::default() }).await?;
            }
            return Ok(false);
        }
        self.park(state, &name, Some(held), &receipt.record).await?;
        Ok(true)
    }

    /// What of the parked records goes; `None` where nothing has to.
    async fn discarding(
        &self,
        name: &Name,
        discards: Discards,
        receipt: &Receipt,
    ) -> Result<Option<Discarding>, StoreError> {
        let ports = &self.context.ports;
        let before = receipt.record.offset;
        Ok(match discards {
            Discards::OfTenant => {
                let deletion = read(&ports.metrics, || tenant_deletion::find(ports, name.tenant())).await?;
                deletion.map(|_| Discarding::all())
            }
            Discards::OfConversation(of, id) => {
                let erasure = erasure::find(ports, &of.tenant, id).await?;
                let part = erasure.as_ref().and_then(|erasure| erasure.part(&of));
                // What is parked since an erasure was done came later.
                part.filter(|part| part.done.is_none()).map(|_| Discarding::before(before))
            }
            Discards::OfContact(contact) => Some(Discarding::about(contact, before)),
        })
    }

    /// Parks what an entity could not do, since a later build wrote what it is about.
    async fn park_from(
        &self,
        state: &mut PartitionState<R>,
        receipt: Receipt,
        detail: &str,
    ) -> Result<(), ActorProcessingErr> {
        let record = &receipt.record;
        let Some(name) = Name::of(R::TOPIC, record.key.clone()) else {
            let error = RecordError::Unknown(detail.to_owned());
            return self.refuse(state, &receipt, error).await;
        };
        let held = state.parking.find(&name).await?;
        if held.is_none() {
            self.report_newer(record, detail);
        }
        state.parking.keep(&name, record.offset);
        self.park(state, &name, held, record).await
    }

    async fn is_held(&self, state: &PartitionState<R>, key: &R::Key) -> Result<bool, StoreError> {
        match Name::of(R::TOPIC, key.to_string().into()) {
            Some(name) => Ok(state.parking.find(&name).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Hands over parked records that this node reads. Returns whether some are left.
    async fn return_parked(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
    ) -> Result<bool, ActorProcessingErr> {
        let newest = self.newest();
        for _ in 0..RETURNED_AT_ONCE {
            let Ok(permit) = state.work.returning.try_acquire() else { return Ok(true) };
            permit.forget();
            let reads = |record: &Record| R::decode(record, newest).map(drop);
            let (step, writes) = state.parking.next(reads, newest).await?;
            if !writes.is_empty() {
                self.write(Batch { writes, ..Batch::default() }).await?;
            }
            let Step::Record(record) = step else {
                state.work.returning.add_permits(1);
                match step {
                    Step::Looked => continue,
                    _ => return Ok(false),
                }
            };
            let receipt = self.receipt(state, record, true);
            match R::decode(&receipt.record, newest) {
                Ok((key, item)) => self.hand(myself, state, key, item, receipt).await?,
                Err(error) => self.refuse(state, &receipt, error).await?,
            }
        }
        Ok(true)
    }

    /// Whether a record's publisher had lost its partition before the record came.
    ///
    /// Where the next owner has published the same before, this partition has seen that owner's epoch: in a record, or,
    /// before it was taken over, its previous owner has, and then the epoch is at least the one that can be read since.
    async fn is_from_fenced_producer(
        &self,
        state: &mut PartitionState<R>,
        by: Fence,
    ) -> Result<bool, ActorProcessingErr> {
        let newest = match state.publishers.get_mut(&by.partition) {
            Some(newest) => newest,
            None => {
                let ports = &self.context.ports;
                let epoch = read(&ports.metrics, || ports.log.epoch(by.partition)).await?;
                state.publishers.entry(by.partition).or_insert(epoch)
            }
        };
        *newest = by.epoch.max(*newest);
        let stray = by.epoch < *newest;
        if stray {
            self.context.ports.metrics.fenced_record();
        }
        Ok(stray)
    }

    /// Sends a message to an entity, starting it where it is not in memory.
    fn give(
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
    fn check_bounds(&self, state: &PartitionState<R>, entities: usize) {
        let options = &self.context.options;
        let (bound, permits) = (options.residents_per_partition.get(), self.permits(state));
        let is_bounded = are_entities_bounded(entities, bound, permits, state.agenda.in_work());
        self.context.ports.metrics.check(Invariant::Bounds, is_bounded, || {
            format!("{entities} entities of {} are in memory, {bound} may be idle", self.fence.partition)
        });
    }

    /// Notifies the entities whose barrier has been passed: everything below its offset has been delivered.
    fn pass_barriers(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
    ) -> Result<(), ActorProcessingErr> {
        let delivered = state.delivered;
        let passed: Vec<_> = state.barriers.extract_if(.., |(below, _)| *below <= delivered).collect();
        for (below, key) in passed {
            // What is parked of it is below as well.
            if state.parking.may_hold() && state.parking.may_be_held(&key.to_string()) {
                state.barriers.push((below, key));
                continue;
            }
            if let Some(message) = R::passed(below) {
                self.give(myself, state, key, message)?;
            }
        }
        Ok(())
    }

    /// Retires entities where there are as many as allowed. Those at work stay, so there may be more of them for a
    /// while: then more than one has to go.
    fn make_room(&self, state: &mut PartitionState<R>, coming: usize) {
        let most = self.context.options.residents_per_partition.get();
        let over = (state.entities.len() + coming).saturating_sub(most);
        for _ in 0..over.min(LET_GO_AT_ONCE) {
            self.retire_one(state);
        }
    }

    /// Retires the entities that have had no work for a while.
    fn retire(&self, state: &mut PartitionState<R>) {
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
    fn retire_one(&self, state: &mut PartitionState<R>) {
        let Some((key, entity)) = state.entities.pop_lru() else { return };
        if entity.is_idle() {
            entity.actor.stop(None);
            state.entities_reported.set(state.entities.len());
        } else {
            let now = self.context.ports.clock.now();
            state.entities.put(key, LiveEntity { last: now, ..entity });
        }
    }

    fn reconfigured(&self, state: &mut PartitionState<R>, changed: &Changed) {
        for (key, entity) in state.entities.iter_mut() {
            let Some(message) = R::reconfigured(key, changed) else { continue };
            entity.given += 1;
            drop(entity.actor.send_message(message));
        }
    }

    /// Wakes due entities, sets the next tick, and ends a drained partition.
    async fn look(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.context.ports.clock.now();
        if state.draining.is_some() {
            if state.work.records.load(Ordering::Acquire) == 0 && state.agenda.in_work() == 0 {
                state.draining.take().map(|done| done.send(()));
                myself.stop(None);
                return Ok(());
            }
            self.tick_at(myself, state, now, now.after(Duration::from_millis(10)));
            return Ok(());
        }
        // What was found in the log may be older than what is parked.
        let caught_up = state.delivered >= state.taken_over_at;
        let returns = caught_up && self.return_parked(myself, state).await?;
        self.pass_barriers(myself, state)?;
        let latest = now.after(if returns { RETURN_PAUSE } else { LOOK });
        if !caught_up {
            // What was found in the log comes first: entities rely on it for their order.
            self.tick_at(myself, state, now, latest);
            return Ok(());
        }
        for _ in 0..READS_AT_ONCE {
            let Some(wanted) = state.agenda.wants(now) else { break };
            self.read_agenda(state, &wanted).await?;
        }
        for entry in state.agenda.take_due(now) {
            if R::RESTS_WHILE_HELD && state.parking.may_hold() && self.is_held(state, &entry.key).await? {
                state.agenda.answered(entry, Some(now.after(HELD_PAUSE)));
                continue;
            }
            self.give(myself, state, entry.key.clone(), R::wake(entry))?;
        }
        state.agenda_reported.set(state.agenda.len());
        // Where there is no room, what frees some looks again.
        self.tick_at(myself, state, now, state.agenda.next().map_or(latest, |next| next.min(latest)));
        Ok(())
    }

    fn tick_at(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
        now: Timestamp,
        at: Timestamp,
    ) {
        if state.tick.as_ref().is_some_and(|(set, _)| *set <= at && *set > now) {
            return;
        }
        if let Some((_, later)) = state.tick.take() {
            later.abort();
        }
        // A clock in milliseconds wakes early otherwise, and finds nothing due.
        let wait = at.since(now).max(Duration::from_millis(1));
        state.tick = Some((at, myself.send_after(wait, || PartitionMessage::Tick)));
    }

    async fn read_agenda(
        &self,
        state: &mut PartitionState<R>,
        wanted: &Wanted<<R::Key as Laned>::Lane>,
    ) -> Result<(), StoreError> {
        let limit = wanted.rows.min(AGENDA_READ);
        let mut from = agenda_bound(wanted.from.due).to_vec();
        from.extend_from_slice(wanted.from.name.as_bytes());
        let scan = Scan { from: from.into(), ..Scan::first(Rows::agenda(self.fence.partition), limit) };
        let ports = &self.context.ports;
        let rows = read(&ports.metrics, || ports.state.scan(&scan)).await?;
        let is_complete = rows.len() < limit;
        let next = rows.iter().rev().find_map(|(key, _)| place_behind(key.row())).filter(|_| !is_complete);
        let rows = rows.iter().filter_map(|(key, _)| agenda_row(key.row())).collect();
        state.agenda.refill(wanted, rows, next);
        Ok(())
    }
}

/// The place right behind an agenda row.
fn place_behind(row: &[u8]) -> Option<Place> {
    let (due, key) = row_parts(row)?;
    // No name has this byte, and every longer name that begins alike is behind it.
    Some(Place { due, name: format!("{key}\0") })
}

/// Parses an agenda row's name: eight bytes of due time, then the entity's key as text.
fn row_parts(row: &[u8]) -> Option<(Timestamp, &str)> {
    let (due, key) = row.split_first_chunk::<8>()?;
    let due = Timestamp::from_micros(i64::try_from(u64::from_be_bytes(*due)).ok()?);
    Some((due, std::str::from_utf8(key).ok()?))
}

fn agenda_row<K: FromStr>(row: &[u8]) -> Option<(Timestamp, K)> {
    let (due, key) = row_parts(row)?;
    Some((due, key.parse().ok()?))
}
