//! Membership of this node in the consumer group: its assigned partitions, and its commits.
//!
//! The group is for membership and commits only: its consumer is paused on everything it is assigned, and
//! records are read by [`super::reader`]. A thread of its own serves it, so that a node that is busy with
//! turns does not count as dead. A static member keeps its partitions through a restart within the session
//! timeout; partitions move one by one (cooperative), and a revoked one is handed over only when
//! the node has released it, or when its time for that has passed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heddle_schemas::ledger::Position;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::client::{Connection, Quiet, blocking, log_fault, unavailable};
use super::metadata;
use super::names::Names;
use super::offsets::Offsets;
use super::reader::{REQUEST, number};

/// Interval at which acknowledgements are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// Time that the thread waits for events at once: the delay with which it notices that it has to end.
const POLL: Duration = Duration::from_millis(100);
/// Number of times within [`LATELY`] that the group may fence the node before it stays out.
const OUT_OFTEN: usize = 3;
/// Period in which fencings count.
const LATELY: Duration = Duration::from_secs(600);
/// The pause before the node joins again; it doubles with each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Change that the group reports.
#[derive(Debug)]
pub enum Change {
    /// These partitions are the node's from now on.
    Assigned(Vec<TopicPartition>),
    /// These are to be released; the group waits until they are, or until its timeout.
    Revoked {
        /// Partitions that are revoked.
        partitions: Vec<TopicPartition>,
        /// True if others may have them already, so that there is nothing left to finish.
        lost: bool,
        /// Dropped or signalled when the node has released them.
        released: blocking_mpsc::Sender<()>,
    },
    /// The group has put the node out too often: it is no member any more and will not be again.
    Over(String),
}

/// Configuration of the membership.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) group: String,
    pub(super) member: String,
    pub(super) session_timeout: Duration,
    pub(super) handover: Duration,
}

type Consumer = BaseConsumer<Group>;

/// The node's membership.
pub(super) struct Membership {
    member: Arc<Member>,
    running: Mutex<Option<Running>>,
}

struct Running {
    thread: std::thread::JoinHandle<()>,
    committing: JoinHandle<()>,
}

/// Member of the group: joins it, and rejoins it.
struct Member {
    config: ClientConfig,
    names: Names,
    offsets: Arc<Offsets>,
    handover: Duration,
    clock: Arc<dyn Clock>,
    changes: mpsc::Sender<Change>,
    consumer: Mutex<Arc<Consumer>>,
    closing: AtomicBool,
}

/// Callbacks of librdkafka.
struct Group {
    names: Names,
    offsets: Arc<Offsets>,
    handover: Duration,
    changes: mpsc::Sender<Change>,
    /// True when its changes no longer count.
    retired: AtomicBool,
}

/// Times at which the group has fenced the node lately.
#[derive(Debug, Default)]
struct TimesOut(Vec<Duration>);

impl TimesOut {
    /// It has happened again: the pause before the node joins again, or none when it is to stay out.
    fn again(&mut self, now: Duration) -> Option<Duration> {
        self.0.retain(|before| now.saturating_sub(*before) < LATELY);
        self.0.push(now);
        let times = self.0.len();
        (times <= OUT_OFTEN).then(|| FIRST_PAUSE * (1 << (times - 1)))
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = self.partitions(list);
        let changed = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                tracing::info!(partitions = %listed(&partitions), "rebalance: partitions assigned");
                // Nothing is read here.
                let assigned = list
                    .set_all_offsets(KafkaOffset::End)
                    .and_then(|()| consumer.incremental_assign(list))
                    .and_then(|()| consumer.pause(list));
                self.report(Change::Assigned(partitions));
                assigned
            }
            _ => {
                if !self.retired.load(Ordering::Acquire) {
                    self.let_go(consumer, partitions);
                }
                consumer.incremental_unassign(list)
            }
        };
        if let Err(error) = changed {
            tracing::error!(%error, "rebalance: the assignment failed");
        }
    }
}

impl Group {
    fn new(names: Names, offsets: Arc<Offsets>, handover: Duration, changes: mpsc::Sender<Change>) -> Self {
        Self { names, offsets, handover, changes, retired: AtomicBool::new(false) }
    }

    fn let_go(&self, consumer: &BaseConsumer<Self>, partitions: Vec<TopicPartition>) {
        let lost = consumer.assignment_lost();
        tracing::info!(partitions = %listed(&partitions), lost, "rebalance: partitions revoked");
        let (released, wait) = blocking_mpsc::channel();
        self.report(Change::Revoked { partitions: partitions.clone(), lost, released });
        // Closed without a signal as well: no work on them continues then.
        if matches!(wait.recv_timeout(self.handover), Err(blocking_mpsc::RecvTimeoutError::Timeout)) {
            tracing::warn!(
                "rebalance: partitions handed over with work in progress; the next owner redoes it"
            );
        }
        if !lost {
            let changed = self.offsets.changed(Some(&partitions));
            if let Err(error) = commit(consumer, &self.names, &changed) {
                tracing::warn!(%error, "the last offsets could not be committed; their records come again");
            }
        }
        for partition in partitions {
            self.offsets.close(partition);
        }
    }

    fn report(&self, change: Change) {
        // A consumer that is dropped serves what is still in its queue, on whatever thread drops it: an assignment that
        // came while the node closed has no receiver any more, and an asynchronous thread must not wait here.
        if !self.retired.load(Ordering::Acquire) {
            drop(self.changes.blocking_send(change));
        }
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let elements = list.elements();
        let partitions = elements.iter().filter_map(|element| {
            let partition = u32::try_from(element.partition()).ok()?;
            Some(TopicPartition { topic: self.names.topic(element.topic())?, partition })
        });
        partitions.collect()
    }
}

impl Membership {
    pub(super) fn new(
        connection: &Connection,
        names: Names,
        options: &Options,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, mpsc::Receiver<Change>), KafkaError> {
        let mut config = connection.config();
        config.set("group.id", &options.group);
        config.set("group.instance.id", &options.member);
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config.set("session.timeout.ms", options.session_timeout.as_millis().to_string());
        config.set("heartbeat.interval.ms", (options.session_timeout / 6).as_millis().to_string());
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "latest");
        let (changes, followed) = mpsc::channel(64);
        let offsets = Arc::<Offsets>::default();
        let handover = options.handover;
        let group = Group::new(names.clone(), offsets.clone(), handover, changes.clone());
        let consumer = Mutex::new(Arc::new(config.create_with_context(group)?));
        let closing = AtomicBool::new(false);
        let member = Member { config, names, offsets, handover, clock, changes, consumer, closing };
        Ok((Self { member: Arc::new(member), running: Mutex::default() }, followed))
    }

    pub(super) fn offsets(&self) -> &Offsets {
        &self.member.offsets
    }

    /// Joins the group for the consumed topics.
    pub(super) fn join(&self) -> Result<(), StoreError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return Ok(());
        }
        let failed = |error: KafkaError| unavailable("the consumer group cannot be joined", &error);
        self.member.subscribe(&self.member.consumer()).map_err(failed)?;
        let member = self.member.clone();
        let thread = std::thread::Builder::new().name("kafka-group".into()).spawn(move || member.serve());
        let thread = thread.map_err(|error| StoreError::Unavailable { detail: error.to_string() })?;
        let member = self.member.clone();
        let committing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(COMMIT_EVERY).await;
                member.commit_changed().await;
            }
        });
        *running = Some(Running { thread, committing });
        Ok(())
    }

    /// Reads the committed position of a partition; `None` if there is none.
    pub(super) async fn committed(&self, partition: TopicPartition) -> Result<Option<Position>, StoreError> {
        let consumer = self.member.consumer();
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(self.member.names.of(partition.topic), number(partition));
        let found = blocking(move || consumer.committed_offsets(list, REQUEST)).await?;
        let failed =
            |error: KafkaError| unavailable(&format!("the position of {partition} is not known"), &error);
        let list = found.map_err(failed)?;
        let elements = list.elements();
        let Some(element) = elements.first() else { return Ok(None) };
        element.error().map_err(failed)?;
        Ok(match element.offset() {
            KafkaOffset::Offset(next) => {
                Some(metadata::decode(Offset::try_from(next).unwrap_or_default(), element.metadata()))
            }
            _ => None,
        })
    }

    /// Commits what has been acknowledged, and stops being served. As a static member the node stays in the
    /// group until its session times out.
    pub(super) async fn close(&self) {
        self.member.closing.store(true, Ordering::Release);
        self.member.consumer().context().retired.store(true, Ordering::Release);
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { thread, committing }) = running {
            committing.abort();
            self.member.commit_changed().await;
            drop(blocking(move || thread.join()).await);
        }
    }
}

impl Member {
    fn consumer(&self) -> Arc<Consumer> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn subscribe(&self, consumer: &Consumer) -> Result<(), KafkaError> {
        let topics: Vec<_> = Topic::CONSUMED.into_iter().map(|topic| self.names.of(topic)).collect();
        consumer.subscribe(&topics)
    }

    /// Serves the group until the node closes or is out for good.
    fn serve(&self) {
        let mut times = TimesOut::default();
        while let Some(error) = self.serve_until_out() {
            self.lose_everything();
            let Some(pause) = times.again(self.clock.elapsed()) else {
                let why = format!("the consumer group keeps fencing this node: {error}");
                tracing::error!("{why}; another process uses its node.name: give each its own");
                drop(self.changes.blocking_send(Change::Over(why)));
                return;
            };
            tracing::error!(
                ?pause,
                "the consumer group has fenced this node: {error}; retrying after a pause. If this repeats, \
                 another process uses its node.name"
            );
            if !self.rejoin(pause) {
                return;
            }
        }
    }

    /// Returns with the reason when the group has put the node out.
    fn serve_until_out(&self) -> Option<RDKafkaErrorCode> {
        let consumer = self.consumer();
        while !self.closing.load(Ordering::Acquire) {
            match consumer.poll(POLL) {
                // A record that was on its way before the pause.
                None | Some(Ok(_)) => {}
                Some(Err(KafkaError::MessageConsumptionFatal(error))) => return Some(error),
                Some(Err(error)) => log_fault("the consumer group", &error, ""),
            }
        }
        None
    }

    /// Others may have everything already.
    fn lose_everything(&self) {
        self.consumer().context().retired.store(true, Ordering::Release);
        let partitions = Topic::CONSUMED.into_iter().flat_map(|topic| {
            (0..self.names.partitions(topic)).map(move |partition| TopicPartition { topic, partition })
        });
        let partitions: Vec<_> = partitions.collect();
        for partition in &partitions {
            self.offsets.close(*partition);
        }
        // No release is waited for.
        let (released, _) = blocking_mpsc::channel();
        drop(self.changes.blocking_send(Change::Revoked { partitions, lost: true, released }));
    }

    /// Joins the group again after a pause, or returns false when the node closes.
    fn rejoin(&self, mut pause: Duration) -> bool {
        loop {
            let until = self.clock.elapsed() + pause;
            while self.clock.elapsed() < until {
                if self.closing.load(Ordering::Acquire) {
                    return false;
                }
                std::thread::sleep(POLL);
            }
            let group =
                Group::new(self.names.clone(), self.offsets.clone(), self.handover, self.changes.clone());
            let joined = self.config.create_with_context(group).and_then(|consumer: Consumer| {
                self.subscribe(&consumer)?;
                Ok(Arc::new(consumer))
            });
            match joined {
                Ok(consumer) => {
                    *self.consumer.lock().unwrap_or_else(PoisonError::into_inner) = consumer;
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, "the consumer group cannot be joined; retrying")
                }
            }
            pause = FIRST_PAUSE;
        }
    }

    async fn commit_changed(&self) {
        let changed = self.offsets.changed(None);
        if changed.is_empty() {
            return;
        }
        let (consumer, names) = (self.consumer(), self.names.clone());
        let committed = blocking(move || commit(&consumer, &names, &changed).map(|()| changed)).await;
        match committed {
            Ok(Ok(changed)) => self.offsets.committed(changed),
            Ok(Err(error)) => {
                tracing::warn!(%error, "offsets could not be committed; retrying");
            }
            Err(_) => {}
        }
    }
}

fn commit(
    consumer: &Consumer,
    names: &Names,
    positions: &[(TopicPartition, Position)],
) -> Result<(), KafkaError> {
    if positions.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, position) in positions {
        let mut element = list.add_partition(names.of(partition.topic), number(*partition));
        element.set_offset(KafkaOffset::Offset(i64::try_from(position.next).unwrap_or(i64::MAX)))?;
        let metadata = metadata::encode(position);
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    consumer.commit(&list, CommitMode::Sync)
}

fn listed(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_put_out_now_and_then_joins_again_and_who_is_put_out_often_stays_out() {
        let mut times = TimesOut::default();
        let mut now = Duration::from_secs(5);
        for _ in 0..20 {
            assert_eq!(times.again(now), Some(FIRST_PAUSE));
            now += LATELY;
        }
        assert_eq!(times.again(now), Some(FIRST_PAUSE));
        assert_eq!(times.again(now + Duration::from_secs(3)), Some(FIRST_PAUSE * 2));
        assert_eq!(times.again(now + Duration::from_secs(8)), Some(FIRST_PAUSE * 4));
        assert_eq!(times.again(now + Duration::from_secs(17)), None);
    }
}
