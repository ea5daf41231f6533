//! How much of a partition's log has not been taken yet, as operators see it.

use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::Log;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, TopicPartition};

use crate::metrics::Metrics;
use crate::ports::Ports;

/// At most how often the log is asked.
const LOOK: Duration = Duration::from_secs(1);

/// What a partition adds to its topic's lag; taken back when it is dropped.
pub(crate) struct Lag {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    partition: TopicPartition,
    reported: i64,
    looked_at: Option<Timestamp>,
}

impl Lag {
    /// Nothing yet.
    pub(crate) fn new(ports: &Ports, partition: TopicPartition) -> Self {
        let Ports { log, clock, metrics, .. } = ports.clone();
        Self { log, clock, metrics, partition, reported: 0, looked_at: None }
    }

    /// Tells how much there is from `taken` on, unless it was asked a moment ago.
    pub(crate) async fn look(&mut self, taken: Offset) {
        let now = self.clock.now();
        if self.looked_at.is_some_and(|at| at <= now && now.since(at) < LOOK) {
            return;
        }
        self.looked_at = Some(now);
        // A log that does not answer has its own metric, and the lag stays as it was last known.
        if let Ok(end) = self.log.end(self.partition).await {
            let lag = i64::try_from(end.saturating_sub(taken)).unwrap_or(i64::MAX);
            self.metrics.lag(self.partition.topic, lag - self.reported);
            self.reported = lag;
        }
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.metrics.lag(self.partition.topic, -self.reported);
    }
}
