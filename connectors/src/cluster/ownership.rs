//! Ownership of partitions: takes them over, renews their leases and releases them.
//!
//! The consumer group assigns a partition to a node; the ownership's row says which node owns it. Only the node that
//! raised the row's epoch reads, writes, sends and acknowledges. A partition is taken over when its previous owner has
//! released it, or when its lease has expired by the database's own clock; for partitions that send, the longest call
//! must be over too. A node that finds a newer epoch in the row drops the partition at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc as blocking_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{Assignment, StoreError};
use heddle_schemas::ports::state::Fence;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Topic, TopicPartition};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::Options;
use super::lease::{Lease, Refusal, first_end};
use super::stats::Stats;
use crate::cql::Cql;
use crate::cql::ownership::OwnershipRow;
use crate::kafka::{Change, Kafka};

/// Pause between two checks of a lease that has to expire, or after a failure.
const PAUSE: Duration = Duration::from_millis(250);
/// Maximum skew between the clocks of two database nodes.
const SKEW: Duration = Duration::from_millis(500);
/// Time that assigned partitions wait for others of the same assignment.
const TOGETHER: Duration = Duration::from_millis(500);
/// Interval of the sweep of the agenda's leftovers.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Partitions that this node owns.
pub(super) struct Ownerships {
    options: Options,
    kafka: Arc<Kafka>,
    cql: Arc<Cql>,
    clock: Arc<dyn Clock>,
    held: Mutex<HashMap<TopicPartition, Lease>>,
    leaving: Mutex<HashMap<TopicPartition, Leaving>>,
    assignment: watch::Sender<Assignment>,
    over: watch::Sender<bool>,
    stats: Stats,
}

/// A partition that the group takes away and the node still works on.
struct Leaving {
    until: Duration,
    // The group continues when all parts of a revocation are dropped.
    _released: blocking_mpsc::Sender<()>,
}

/// An ownership that another one has ended.
struct Lost {
    epoch: u64,
}

/// State of following the consumer group.
#[derive(Default)]
struct Following {
    wanted: BTreeSet<TopicPartition>,
    taking: JoinSet<(TopicPartition, Lease)>,
    handles: BTreeMap<TopicPartition, AbortHandle>,
    taken: bool,
    /// Renewals in progress: a slow one delays neither the others nor the group's changes.
    renewing: JoinSet<(TopicPartition, Option<Lost>)>,
    in_renewal: BTreeSet<TopicPartition>,
}

impl Ownerships {
    pub(super) fn new(options: Options, kafka: Arc<Kafka>, cql: Arc<Cql>, clock: Arc<dyn Clock>) -> Self {
        Self {
            options,
            kafka,
            cql,
            clock,
            held: Mutex::default(),
            leaving: Mutex::default(),
            assignment: watch::Sender::default(),
            over: watch::Sender::new(false),
            stats: Stats::new(),
        }
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Waits for an assignment newer than `seen`.
    pub(super) async fn assignment(&self, seen: u64) -> Result<Assignment, StoreError> {
        let mut assignment = self.assignment.subscribe();
        let mut over = self.over.subscribe();
        tokio::select! {
            biased;
            _ = over.wait_for(|over| *over) => Err(StoreError::Closed),
            found = assignment.wait_for(|assignment| assignment.generation > seen) => {
                found.map(|found| found.clone()).map_err(|_| StoreError::Closed)
            }
        }
    }

    /// Checks that an ownership holds right now.
    pub(super) fn holds(&self, fence: Fence) -> Result<(), StoreError> {
        let elapsed = self.clock.elapsed();
        let held = lock(&self.held);
        let lease = of(&held, fence)?;
        if lease.holds(elapsed) { Ok(()) } else { Err(refused(fence, Refusal::Expired)) }
    }

    /// The next write timestamp under an ownership.
    pub(super) fn timestamp(&self, fence: Fence) -> Result<i64, StoreError> {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let mut held = lock(&self.held);
        of(&held, fence)?;
        let lease = held.get_mut(&fence.partition).expect("it was just found");
        lease.timestamp(now, elapsed).map_err(|refusal| refused(fence, refusal))
    }

    /// Follows the group until it or the node ends.
    pub(super) async fn follow(self: Arc<Self>, mut changes: mpsc::Receiver<Change>) {
        let mut following = Following::default();
        let mut renew = tokio::time::interval(self.options.lease / 3);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let together = tokio::time::sleep(TOGETHER);
            tokio::select! {
                change = changes.recv() => match change {
                    Some(Change::Assigned(partitions)) => {
                        for partition in partitions {
                            following.wanted.insert(partition);
                            lock(&self.leaving).remove(&partition);
                            self.begin(&mut following, partition, Duration::ZERO);
                        }
                    }
                    Some(Change::Revoked { partitions, lost, released }) => {
                        self.revoked(&mut following, &partitions, lost, &released);
                    }
                    Some(Change::Over(_)) | None => {
                        lock(&self.held).clear();
                        self.publish();
                        self.over.send_replace(true);
                        return;
                    }
                },
                Some(taken) = following.taking.join_next() => {
                    // One that was aborted is not wanted any more.
                    let Ok((partition, lease)) = taken else { continue };
                    following.handles.remove(&partition);
                    if following.wanted.contains(&partition) {
                        lock(&self.held).insert(partition, lease);
                        following.taken = true;
                    }
                    if following.taking.is_empty() {
                        self.publish_taken(&mut following);
                    }
                }
                () = together, if following.taken => self.publish_taken(&mut following),
                _ = renew.tick() => self.renew_all(&mut following),
                Some(renewed) = following.renewing.join_next() => {
                    let Ok((partition, lost)) = renewed else { continue };
                    following.in_renewal.remove(&partition);
                    if let Some(lost) = lost {
                        self.lose(&mut following, partition, lost);
                    }
                }
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn publish_taken(&self, following: &mut Following) {
        if std::mem::take(&mut following.taken) {
            self.publish();
        }
    }

    fn begin(self: &Arc<Self>, following: &mut Following, partition: TopicPartition, after: Duration) {
        let this = self.clone();
        let handle = following.taking.spawn(async move {
            tokio::time::sleep(after).await;
            let lease = this.take_over(partition).await;
            (partition, lease)
        });
        if let Some(before) = following.handles.insert(partition, handle) {
            before.abort();
        }
    }

    fn revoked(
        &self,
        following: &mut Following,
        partitions: &[TopicPartition],
        lost: bool,
        released: &blocking_mpsc::Sender<()>,
    ) {
        let published: BTreeSet<_> =
            self.assignment.borrow().partitions.iter().map(|(partition, _)| *partition).collect();
        let until = self.clock.elapsed() + self.options.handover;
        for partition in partitions {
            following.wanted.remove(partition);
            if let Some(handle) = following.handles.remove(partition) {
                handle.abort();
            }
            if lost {
                // Others may have them; work in progress here must end.
                lock(&self.held).remove(partition);
                self.kafka.give_up(*partition);
            } else if published.contains(partition) {
                let leaving = Leaving { until, _released: released.clone() };
                lock(&self.leaving).insert(*partition, leaving);
            } else {
                // No work on it has begun, and its row only says what the end of its lease would also bring about.
                lock(&self.held).remove(partition);
                self.kafka.pause(*partition);
            }
        }
        self.publish();
    }

    /// Drops a partition that another node owns. The group may still assign it here; then it is taken over again.
    fn lose(self: &Arc<Self>, following: &mut Following, partition: TopicPartition, lost: Lost) {
        // It may have been released, and taken again, while its renewal was under way.
        if lock(&self.held).get(&partition).map(|lease| lease.epoch) != Some(lost.epoch) {
            return;
        }
        tracing::error!(%partition, "lease lost: another owner has the partition; work in progress is dropped");
        self.stats.lost.inc();
        lock(&self.held).remove(&partition);
        lock(&self.leaving).remove(&partition);
        self.kafka.give_up(partition);
        self.publish();
        if following.wanted.contains(&partition) {
            self.begin(following, partition, self.options.lease);
        }
    }

    /// Publishes the owned partitions: those held and not about to be released.
    fn publish(&self) {
        let leaving = lock(&self.leaving);
        let held = lock(&self.held);
        let mut partitions: Vec<_> = held
            .iter()
            .filter(|(partition, _)| !leaving.contains_key(partition))
            .map(|(&partition, lease)| (partition, Epoch(lease.epoch)))
            .collect();
        partitions.sort_unstable();
        self.stats.held.set(i64::try_from(held.len()).unwrap_or(i64::MAX));
        self.assignment.send_modify(|assignment| {
            assignment.generation += 1;
            assignment.partitions = partitions;
        });
    }

    /// Waits until the partition has no owner and makes it this node's, however long that takes.
    async fn take_over(&self, partition: TopicPartition) -> Lease {
        let mut logged = false;
        loop {
            match self.try_take_over(partition).await {
                Ok(Ok(lease)) => {
                    tracing::info!(%partition, epoch = lease.epoch, "lease taken");
                    self.stats.taken.inc();
                    return lease;
                }
                Ok(Err(wait)) => {
                    if !logged && !wait.is_zero() {
                        logged = true;
                        tracing::info!(%partition, ?wait, "waiting for the lease of the previous owner to expire");
                    }
                    tokio::time::sleep(wait.min(PAUSE)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, %partition, "the partition cannot be taken over; retrying");
                    tokio::time::sleep(PAUSE * 2).await;
                }
            }
        }
    }

    /// Takes the partition over; the inner error is the rest of the previous owner's lease.
    async fn try_take_over(&self, partition: TopicPartition) -> Result<Result<Lease, Duration>, StoreError> {
        let found = self.cql.ownership(partition).await?;
        let (before, expected) = match &found {
            None => (0, None),
            Some(found) => {
                let wait = self.remaining(partition, found.row.lease, found.age);
                // A takeover that this process failed in half-way has no other owner.
                if !wait.is_zero() && found.row.owner != self.options.owner {
                    return Ok(Err(wait));
                }
                (found.row.block_end, Some(found.row.epoch))
            }
        };
        let epoch = expected.unwrap_or(0) + 1;
        let end = first_end(self.clock.now(), before);
        // Counted from before the write, so that it ends here first.
        let until = self.clock.elapsed() + self.options.lease;
        let row = self.row(epoch, self.options.lease, end);
        let taken = match self.cql.swap_ownership(partition, expected, &row).await {
            Ok(taken) => taken,
            // It may have happened all the same.
            Err(StoreError::Unavailable { .. }) => {
                let now = self.cql.ownership(partition).await?;
                now.is_some_and(|now| now.row.epoch == epoch && now.row.owner == row.owner)
            }
            Err(error) => return Err(error),
        };
        if !taken {
            return Ok(Err(PAUSE));
        }
        self.kafka.take_over(partition).await?;
        Ok(Ok(Lease::taken(epoch, until, before, end)))
    }

    /// Returns the time for which a previous owner may still act.
    fn remaining(&self, partition: TopicPartition, lease: i64, age: i64) -> Duration {
        if lease == 0 {
            return Duration::ZERO;
        }
        let mut after = Duration::from_micros(u64::try_from(lease).unwrap_or(0)) + SKEW;
        if partition.topic == Topic::Outbound {
            after += self.options.longest_call;
        }
        after.saturating_sub(Duration::from_micros(u64::try_from(age).unwrap_or(0)))
    }

    fn row(&self, epoch: u64, lease: Duration, block_end: i64) -> OwnershipRow {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        OwnershipRow { epoch, owner: self.options.owner.clone(), lease, block_end }
    }

    /// Begins to renew every lease whose last renewal has completed.
    fn renew_all(self: &Arc<Self>, following: &mut Following) {
        for (partition, lease) in self.due() {
            if !following.in_renewal.insert(partition) {
                continue;
            }
            let this = self.clone();
            following.renewing.spawn(async move {
                let renewed = this.renew(partition, lease).await;
                if let Err(error) = &renewed {
                    this.stats.unrenewed.inc();
                    tracing::warn!(%error, %partition, "lease renewal failed; retrying");
                }
                (partition, matches!(renewed, Ok(false)).then_some(Lost { epoch: lease.epoch }))
            });
        }
    }

    fn due(&self) -> Vec<(TopicPartition, Lease)> {
        let elapsed = self.clock.elapsed();
        let leaving = lock(&self.leaving);
        let held = lock(&self.held);
        // A lease whose partition is not released in time is left to expire.
        let due = held
            .iter()
            .filter(|(partition, _)| leaving.get(partition).is_none_or(|leaving| elapsed < leaving.until));
        due.map(|(&partition, &lease)| (partition, lease)).collect()
    }

    async fn renew(&self, partition: TopicPartition, lease: Lease) -> Result<bool, StoreError> {
        let until = self.clock.elapsed() + self.options.lease;
        let end = lease.next_end(self.clock.now());
        let row = self.row(lease.epoch, self.options.lease, end);
        if !self.cql.swap_ownership(partition, Some(lease.epoch), &row).await? {
            return Ok(false);
        }
        let held = {
            let mut held = lock(&self.held);
            let held = held.get_mut(&partition).filter(|held| held.epoch == lease.epoch);
            held.map(|held| held.renewed(until, end))
        };
        if held.is_none() {
            // It was released meanwhile, and this has just taken that back.
            let row = self.row(lease.epoch, Duration::ZERO, end);
            self.cql.swap_ownership(partition, Some(lease.epoch), &row).await?;
        }
        Ok(true)
    }

    /// The node works on the partition no more.
    pub(super) async fn release(&self, partition: TopicPartition, epoch: Epoch) {
        let lease = {
            let mut held = lock(&self.held);
            match held.get(&partition) {
                Some(lease) if lease.epoch == epoch.0 => held.remove(&partition),
                _ => None,
            }
        };
        if let Some(lease) = lease {
            self.kafka.pause(partition);
            self.stats.released.inc();
            let row = self.row(lease.epoch, Duration::ZERO, lease.last());
            // Should it fail, the lease runs out.
            if let Err(error) = self.cql.swap_ownership(partition, Some(lease.epoch), &row).await {
                tracing::warn!(%error, %partition, "the lease was not released; it expires by itself");
            }
        }
        lock(&self.leaving).remove(&partition);
    }

    /// Releases everything.
    pub(super) async fn release_all(&self) {
        let held: Vec<_> =
            lock(&self.held).iter().map(|(&partition, lease)| (partition, lease.epoch)).collect();
        let released = held.into_iter().map(|(partition, epoch)| self.release(partition, Epoch(epoch)));
        futures::future::join_all(released).await;
        self.over.send_replace(true);
    }

    fn sweep(self: &Arc<Self>) {
        let now = self.clock.now();
        let held: Vec<_> =
            lock(&self.held).iter().map(|(&partition, lease)| (partition, lease.epoch)).collect();
        for (partition, epoch) in held {
            let this = self.clone();
            tokio::spawn(async move { this.sweep_one(partition, Epoch(epoch), now).await });
        }
    }

    async fn sweep_one(&self, partition: TopicPartition, epoch: Epoch, now: Timestamp) {
        let Ok(timestamp) = self.timestamp(Fence { partition, epoch }) else { return };
        if let Err(error) = self.cql.sweep_agenda(partition, now, timestamp).await {
            tracing::debug!(%error, %partition, "the sweep of the agenda failed; retrying");
        }
    }
}

fn of(held: &HashMap<TopicPartition, Lease>, fence: Fence) -> Result<&Lease, StoreError> {
    let Fence { partition, epoch } = fence;
    held.get(&partition).filter(|lease| lease.epoch == epoch.0).ok_or(StoreError::Fenced { partition, epoch })
}

fn refused(fence: Fence, refusal: Refusal) -> StoreError {
    let partition = fence.partition;
    let detail = match refusal {
        Refusal::Expired => format!("the lease of {partition} has run out and is being renewed"),
        Refusal::UsedUp => format!("the write timestamps of {partition} are used up until its next renewal"),
    };
    StoreError::Unavailable { detail }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
