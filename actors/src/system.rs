//! System: starts a worker for each partition that this node owns, and stops it again.
//!
//! Contract: two workers of one partition never run at once on a node. A partition that fails is restarted from its
//! settled offset, as long as it is owned. A drained system has finished the work it had accepted; a killed one leaves
//! everything to the next owners of the partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::ports::log::{Assignment, StoreError};
use heddle_schemas::ports::state::Fence;
use heddle_schemas::topic::{Epoch, Topic, TopicPartition};
use ractor::{ActorRef, ActorRuntime, SpawnErr};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::account::Accounts;
use crate::context::Context;
use crate::conversation::Conversations;
use crate::intake::connector::Ingress;
use crate::intake::gate::IntakeGate;
use crate::intake::webhook::Reception;
use crate::leader;
use crate::options::Options;
use crate::partition::{EntityKind, Partition, PartitionMessage};
use crate::ports::Ports;
use crate::privacy::sweep::{self, RunningPartition, Sweeper};
use crate::tenant::configuration::{Changed, Tenants, TenantsError};
use crate::tenant::quota::Quotas;
use crate::tenant::turns::TenantTurns;

/// Pause before a failed partition is restarted.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Running system.
pub struct System {
    /// The tenants.
    pub tenants: Arc<Tenants>,
    /// Intake of channels' events.
    pub reception: Arc<Reception>,
    /// Gate that says whether webhooks are accepted; set by their server.
    pub intake_gate: Arc<IntakeGate>,
    orders: mpsc::Sender<Order>,
    running: JoinHandle<()>,
    following: JoinSet<()>,
    // Closed when the supervisor ends.
    over: watch::Receiver<()>,
}

#[derive(Debug)]
enum Order {
    Drain(oneshot::Sender<bool>),
    Kill(oneshot::Sender<()>),
}

/// Notifies a partition of changed tenants.
type Reconfigure = Box<dyn Fn(&Arc<Changed>) + Send>;

/// Running partition of any kind.
struct Running {
    stop: Box<dyn Fn() + Send>,
    ended: JoinHandle<()>,
    drain: Box<dyn Fn(oneshot::Sender<()>) + Send>,
    reconfigured: Reconfigure,
}

struct Supervisor {
    context: Context,
    reception: Arc<Reception>,
    running: BTreeMap<TopicPartition, Running>,
    owned: BTreeMap<TopicPartition, Epoch>,
    is_leader: watch::Sender<bool>,
    /// The partitions of inbound among those that run.
    running_partitions: sweep::Running,
}

impl System {
    /// Reads the tenants and starts following the assignment. Webhooks are not accepted yet.
    ///
    /// # Errors
    /// When the tenants cannot be read, or the log keeps records longer than a tenant was promised.
    pub async fn start(ports: Ports, options: Options) -> Result<Self, TenantsError> {
        let (tenants, followed) = Tenants::load(&ports, &options.region).await?;
        tenants.limit_retention(options.oldest_record)?;
        if let Err(error) = tenants.authenticate().await {
            tracing::warn!(%error, "configurations of a build before could not be rewritten; the next start tries again");
        }
        let mut following = JoinSet::new();
        for (partition, next) in followed {
            following.spawn(tenants.clone().follow(partition, next));
        }
        let intake_gate = IntakeGate::new(ports.clock.clone());
        let reception = Arc::new(Reception::new(ports.clone(), intake_gate.clone()));
        let quotas = Quotas::new(ports.clone());
        following.spawn(quotas.clone().tidy(tenants.clone()));
        following.spawn(ports.security.clone().run(ports.log.clone()));
        let (is_leader, ours) = watch::channel(false);
        following.spawn(leader::run(ports.clone(), tenants.clone(), ours));
        following.spawn(leader::close_indexes(ports.clone(), tenants.clone()));
        let context = Context {
            turns: TenantTurns::new(options.turns_per_tenant),
            started: ports.clock.now(),
            quotas: quotas.clone(),
            options: Arc::new(options),
            tenants: tenants.clone(),
            identity: reception.identity(),
            intake_gate: intake_gate.clone(),
            ports,
        };
        let running_partitions = sweep::Running::default();
        following.spawn(Sweeper::new(context.clone(), &running_partitions).run());
        let (orders, receiver) = mpsc::channel(4);
        let supervisor = Supervisor {
            context,
            reception: reception.clone(),
            running: BTreeMap::new(),
            owned: BTreeMap::new(),
            is_leader,
            running_partitions,
        };
        let (running_on, over) = watch::channel(());
        let running = tokio::spawn(async move {
            supervisor.run(receiver).await;
            drop(running_on);
        });
        Ok(Self { tenants, reception, intake_gate, orders, running, following, over })
    }

    /// Waits until no further work is possible though no shutdown was requested: the log has closed to this node.
    /// Records in work are another owner's, and the process should end.
    pub async fn over(&self) {
        // Nothing is ever sent.
        let _ = self.over.clone().changed().await;
    }

    /// Fetches no more records, waits for those in work, and stops. Returns true if all of them were finished in time;
    /// the next owner takes up the rest.
    pub async fn drain(self) -> bool {
        self.intake_gate.set_open(false);
        let (done, drained) = oneshot::channel();
        if self.orders.send(Order::Drain(done)).await.is_err() {
            return false;
        }
        let finished = drained.await.unwrap_or(false);
        drop(self.running.await);
        finished
    }

    /// Stops at once, as a crash would.
    pub async fn kill(mut self) {
        self.following.abort_all();
        let (done, killed) = oneshot::channel();
        if self.orders.send(Order::Kill(done)).await.is_ok() {
            drop(killed.await);
        }
        self.running.abort();
    }
}

impl Supervisor {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut changes = self.context.tenants.changes();
        let mut seen = 0;
        let mut restart = tokio::time::interval(RESTART_PAUSE);
        restart.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let log = self.context.ports.log.clone();
            tokio::select! {
                biased;
                order = orders.recv() => {
                    match order {
                        Some(Order::Drain(done)) => drop(done.send(self.drain().await)),
                        Some(Order::Kill(done)) => {
                            self.kill().await;
                            // The caller may have gone.
                            let _ = done.send(());
                        }
                        None => self.kill().await,
                    }
                    self.context.turns.stop();
                    return;
                }
                assignment = log.assignment(seen) => match assignment {
                    Ok(assignment) => {
                        seen = assignment.generation;
                        self.assign(assignment).await;
                    }
                    Err(StoreError::Closed) => {
                        tracing::error!("the log has closed to this node; it processes no more records");
                        self.context.intake_gate.set_open(false);
                        self.kill().await;
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "assignment unknown, retrying");
                        tokio::time::sleep(RESTART_PAUSE).await;
                    }
                },
                Ok(()) = changes.changed() => {
                    let changed = Arc::new(self.context.tenants.take_changed());
                    self.running.values().for_each(|partition| (partition.reconfigured)(&changed));
                }
                _ = restart.tick() => self.restart(),
            }
        }
    }

    /// Starts new partitions, and hands over those that are no longer owned: a worker finishes its records in work, as
    /// far as the ownership still allows, before the log learns that the partition is free.
    async fn assign(&mut self, assignment: Assignment) {
        let owned: BTreeMap<_, _> = assignment.partitions.into_iter().collect();
        let before = std::mem::replace(&mut self.owned, owned);
        let mut leaving = JoinSet::new();
        for (partition, epoch) in before {
            if self.owned.get(&partition) == Some(&epoch) {
                continue;
            }
            let running = self.running.remove(&partition);
            self.running_partitions.send_if_modified(|running| running.remove(&partition).is_some());
            let (log, limit) = (self.context.ports.log.clone(), self.context.options.drain);
            leaving.spawn(async move {
                if let Some(running) = running {
                    hand_over(running, limit).await;
                }
                log.release(partition, epoch).await;
            });
        }
        while leaving.join_next().await.is_some() {}
        self.restart();
        self.is_leader.send_replace(self.owned.contains_key(&leader::LEADER_PARTITION));
        for topic in Topic::CONSUMED {
            let owned = self.owned.keys().filter(|partition| partition.topic == topic).count();
            self.context.ports.metrics.owned(topic, owned);
        }
    }

    /// Starts owned partitions that do not run.
    fn restart(&mut self) {
        self.running.retain(|_, running| !running.ended.is_finished());
        for (&partition, &epoch) in &self.owned {
            if self.running.contains_key(&partition) {
                continue;
            }
            let fence = Fence { partition, epoch };
            let context = self.context.clone();
            let started = match partition.topic {
                Topic::Ingress => Ok(take_in(Ingress::new(context, self.reception.clone(), fence))),
                Topic::Inbound => {
                    let known = context.tenants.read_to();
                    let kind = Conversations { context: Arc::new(context.clone()) };
                    start(kind, context, fence).map(|(running, actor)| {
                        let running_partition = RunningPartition { fence, actor, known };
                        self.running_partitions
                            .send_modify(|all| drop(all.insert(partition, running_partition)));
                        running
                    })
                }
                Topic::Outbound => {
                    start(Accounts { context: context.clone() }, context, fence).map(|(running, _)| running)
                }
                Topic::Tenants | Topic::Events | Topic::Dlq => continue,
            };
            match started {
                Ok(running) => {
                    self.running.insert(partition, running);
                }
                Err(error) => tracing::error!(%error, %partition, "partition not started, retrying"),
            }
        }
    }

    async fn drain(&mut self) -> bool {
        let limit = self.context.options.drain;
        // In the order of a message's path: accepted messages go to conversations, their decisions to accounts.
        let mut finished = true;
        for topic in Topic::CONSUMED {
            let mut draining = JoinSet::new();
            for (_, running) in self.running.iter().filter(|(partition, _)| partition.topic == topic) {
                let (done, drained) = oneshot::channel();
                (running.drain)(done);
                draining.spawn(drained);
            }
            let all = tokio::time::timeout(limit, async {
                let mut all = true;
                while let Some(drained) = draining.join_next().await {
                    all &= matches!(drained, Ok(Ok(())));
                }
                all
            });
            finished &= all.await.unwrap_or(false);
        }
        self.kill().await;
        // The rest of the quotas is for other nodes; where that fails they take it back themselves.
        finished &= tokio::time::timeout(limit, self.context.quotas.give_back()).await.is_ok();
        let ports = &self.context.ports;
        finished &= tokio::time::timeout(limit, ports.security.publish(&*ports.log)).await.is_ok();
        finished
    }

    async fn kill(&mut self) {
        for (_, running) in std::mem::take(&mut self.running) {
            stop(running).await;
        }
    }
}

async fn hand_over(running: Running, limit: Duration) {
    let (done, drained) = oneshot::channel();
    (running.drain)(done);
    // Work that does not finish in time, or cannot, is taken up by the next owner.
    drop(tokio::time::timeout(limit, drained).await);
    stop(running).await;
}

async fn stop(running: Running) {
    (running.stop)();
    drop(running.ended.await);
}

/// Partition that has begun to run, and its actor.
type Started<K> = (Running, ActorRef<PartitionMessage<K>>);

fn start<R: EntityKind>(kind: R, context: Context, fence: Fence) -> Result<Started<R::Key>, SpawnErr> {
    let actor = Partition { kind, context, fence };
    let (actor, started) = ActorRuntime::spawn_instant(None, actor, ())?;
    let ended = tokio::spawn(async move {
        if let Ok(Ok(running)) = started.await {
            drop(running.await);
        }
    });
    let (cell, draining, notified) = (actor.get_cell(), actor.clone(), actor.clone());
    let running = Running {
        stop: Box::new(move || cell.kill()),
        ended,
        drain: Box::new(move |done| drop(draining.send_message(PartitionMessage::Drain(done)))),
        reconfigured: Box::new(move |changed| {
            drop(notified.send_message(PartitionMessage::Reconfigured(changed.clone())));
        }),
    };
    Ok((running, actor))
}

fn take_in(ingress: Ingress) -> Running {
    let (drain, draining) = mpsc::channel(1);
    let ended = tokio::spawn(ingress.run(draining));
    let task = ended.abort_handle();
    Running {
        stop: Box::new(move || task.abort()),
        ended,
        // Where it has ended already, the answer is dropped, and its unfinished work is left.
        drain: Box::new(move |done| drop(drain.try_send(done))),
        // It looks up each tenant anew.
        reconfigured: Box::new(|_| ()),
    }
}
