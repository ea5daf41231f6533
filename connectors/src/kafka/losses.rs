//! Records that Kafka lost before this node fetched them, and how near its lag is to losing more.
//!
//! Retention deletes records whether they were fetched or not, and a topic that is made again or truncated ends before
//! the node's position. Both are counted by topic; a partition of the second kind is given up until an operator has
//! corrected the group's offsets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::Record;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};

/// Progress of reading one owned partition.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Next offset to fetch.
    next: Offset,
    /// End of the log as last known.
    end: Offset,
    /// Time of the newest record that was fetched, or at which nothing was left to fetch.
    at: Timestamp,
    given_up: bool,
}

/// Losses and progress of the owned partitions, one entry each.
pub(super) struct Losses {
    clock: Arc<dyn Clock>,
    retention: Duration,
    lost: IntCounterVec,
    given_up: IntGaugeVec,
    used: GaugeVec,
    progress: Mutex<HashMap<TopicPartition, Progress>>,
}

impl Losses {
    pub(super) fn new(clock: Arc<dyn Clock>, retention: Duration) -> Self {
        let lost = IntCounterVec::new(
            Opts::new(
                "heddle_partition_lost_records_total",
                "Records that Kafka no longer held when they were to be fetched.",
            ),
            &["topic"],
        );
        let given_up = IntGaugeVec::new(
            Opts::new(
                "heddle_partition_given_up_partitions",
                "Partitions that are not read: their topic was made again or truncated.",
            ),
            &["topic"],
        );
        let used = GaugeVec::new(
            Opts::new(
                "heddle_partition_retention_used_ratio",
                "Age of the oldest record not yet fetched, as a part of log.retention; at 1 records are lost.",
            ),
            &["topic"],
        );
        let losses = Self {
            clock,
            retention,
            lost: lost.expect("the name is valid"),
            given_up: given_up.expect("the name is valid"),
            used: used.expect("the name is valid"),
            progress: Mutex::default(),
        };
        // Alerts need a series before the first loss.
        for topic in Topic::CONSUMED {
            losses.lost.with_label_values(&[topic.as_str()]);
            losses.given_up.with_label_values(&[topic.as_str()]);
            losses.used.with_label_values(&[topic.as_str()]);
        }
        losses
    }

    /// Begins to follow an owned partition.
    pub(super) fn opened(&self, partition: TopicPartition, next: Offset) {
        let progress = Progress { next, end: next, at: self.clock.now(), given_up: false };
        self.lock().insert(partition, progress);
    }

    /// Stops following a partition.
    pub(super) fn closed(&self, partition: TopicPartition) {
        self.lock().remove(&partition);
    }

    /// Notes what was fetched of a partition.
    pub(super) fn fetched(&self, partition: TopicPartition, records: &[Record]) {
        let Some(last) = records.last() else { return };
        if let Some(progress) = self.lock().get_mut(&partition) {
            progress.next = last.offset + 1;
            progress.end = progress.end.max(progress.next);
            progress.at = last.at;
        }
    }

    /// Notes where the log of a partition ends.
    pub(super) fn ends(&self, partition: TopicPartition, end: Offset) {
        let now = self.clock.now();
        if let Some(progress) = self.lock().get_mut(&partition) {
            progress.end = end;
            if end <= progress.next {
                progress.at = now;
            }
        }
    }

    /// Counts records that were deleted before they were fetched.
    pub(super) fn lost(&self, partition: TopicPartition, records: u64) {
        self.lost.with_label_values(&[partition.topic.as_str()]).inc_by(records);
    }

    /// Gives a partition up, and counts the records that were known to be there and were not fetched. Returns false
    /// if it is given up already.
    pub(super) fn give_up(&self, partition: TopicPartition) -> bool {
        let mut lock = self.lock();
        let Some(progress) = lock.get_mut(&partition) else { return false };
        if std::mem::replace(&mut progress.given_up, true) {
            return false;
        }
        let unread = progress.end.saturating_sub(progress.next);
        drop(lock);
        self.lost(partition, unread);
        true
    }

    fn update(&self) {
        let now = self.clock.now();
        let progress = self.lock();
        for topic in Topic::CONSUMED {
            let of_topic = || progress.iter().filter(|(partition, _)| partition.topic == topic);
            let given_up = of_topic().filter(|(_, progress)| progress.given_up).count();
            let behind = of_topic().filter(|(_, progress)| progress.next < progress.end);
            let oldest = behind.map(|(_, progress)| now.since(progress.at)).max().unwrap_or_default();
            let label = [topic.as_str()];
            self.given_up.with_label_values(&label).set(i64::try_from(given_up).unwrap_or(i64::MAX));
            let used = oldest.as_secs_f64() / self.retention.as_secs_f64().max(1.0);
            self.used.with_label_values(&label).set(used);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Exports [`Losses`] to a registry.
pub(super) struct LossCollector(pub(super) Arc<Losses>);

impl LossCollector {
    fn parts(&self) -> [&dyn Collector; 3] {
        [&self.0.lost, &self.0.given_up, &self.0.used]
    }
}

impl Collector for LossCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.update();
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_memory::ManualClock;

    const INBOUND: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 0 };

    fn value(losses: &Arc<Losses>, name: &str) -> f64 {
        let families = LossCollector(losses.clone()).collect();
        let family = families.into_iter().find(|family| family.name() == name).unwrap();
        let of_topic = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == "inbound";
        let metric = family.get_metric().iter().find(of_topic).unwrap();
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }

    fn record(offset: Offset, at: Timestamp) -> Record {
        Record { partition: INBOUND, offset, key: "k".into(), value: "v".into(), at }
    }

    #[test]
    fn the_age_of_what_is_not_fetched_is_compared_with_the_retention() {
        let start = Timestamp::from_secs(1_000_000);
        let clock = Arc::new(ManualClock::starting_at(start));
        let losses = Arc::new(Losses::new(clock.clone(), Duration::from_secs(1_000)));
        losses.opened(INBOUND, 0);
        losses.ends(INBOUND, 10);
        clock.advance(Duration::from_secs(100));
        losses.fetched(INBOUND, &[record(0, start)]);
        clock.advance(Duration::from_secs(400));
        assert!((value(&losses, "heddle_partition_retention_used_ratio") - 0.5).abs() < 1e-9);
        losses.fetched(INBOUND, &[record(9, start)]);
        assert!(value(&losses, "heddle_partition_retention_used_ratio").abs() < 1e-9, "nothing is left");
    }

    #[test]
    fn a_partition_is_given_up_once_and_its_unread_records_are_counted() {
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1)));
        let losses = Arc::new(Losses::new(clock, Duration::from_secs(1_000)));
        assert!(value(&losses, "heddle_partition_lost_records_total").abs() < 1e-9, "the series exists");
        losses.opened(INBOUND, 3);
        losses.ends(INBOUND, 10);
        assert!(losses.give_up(INBOUND));
        assert!(!losses.give_up(INBOUND));
        assert!((value(&losses, "heddle_partition_lost_records_total") - 7.0).abs() < 1e-9);
        assert!((value(&losses, "heddle_partition_given_up_partitions") - 1.0).abs() < 1e-9);
        losses.closed(INBOUND);
        assert!(value(&losses, "heddle_partition_given_up_partitions").abs() < 1e-9);
    }
}
