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
//!
//! # Layout
//! - This file: the actor and its state. `fetch`: records from the log. `delivery`: records to entities, in order.
//! - `entity`: kinds of entities, and their place in memory. `receipt`: records in work. `timer`: due agenda rows.
//! - [`agenda`], `lag`: the window of due rows, and the lag; pure. [`parking`]: records of a later build.
//! - [`commit`], [`publish`], [`pages`], `update`, `retry`: writes, outputs and scans of all actors.
//! - `dead_letter`, [`set_aside`]: records and rows that fail for good. [`ttl_update`]: shortened retention.

pub mod agenda;
pub mod commit;
pub(crate) mod dead_letter;
mod delivery;
mod entity;
mod fetch;
pub(crate) mod lag;
pub mod pages;
pub(crate) mod parking;
pub mod publish;
mod receipt;
pub(crate) mod retry;
pub mod set_aside;
mod timer;
pub mod ttl_update;
pub(crate) mod update;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use heddle_schemas::ports::log::Record;
use heddle_schemas::ports::state::{Fence, State};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, TopicPartition};
use lru::LruCache;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use self::entity::LiveEntity;
pub use self::entity::{Discards, EntityHandle, EntityKind, Idle};
use self::lag::Lag;
pub use self::receipt::Receipt;
use self::receipt::Work;
use crate::context::Context;
use crate::metrics::GaugeShare;
use crate::partition::agenda::{Agenda, Entry};
use crate::partition::commit::read;
use crate::partition::parking::{Parking, RETURNING};
use crate::partition::ttl_update::TtlUpdate;
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

/// A message to oneself, some time from now.
pub(crate) type Timer<M> = JoinHandle<Result<(), ractor::MessagingErr<M>>>;

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
