//! Lag of a partition: records of its log that have not been taken yet, as operators see it.

use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::Log;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, TopicPartition};

use crate::metrics::GaugeShare;
use crate::ports::Ports;

/// Shortest time between two reads of the end of the log.
const LOOK: Duration = Duration::from_secs(1);

/// A partition's share of its topic's lag.
pub(crate) struct Lag {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    partition: TopicPartition,
    reported: GaugeShare,
    looked_at: Option<Timestamp>,
}

impl Lag {
    /// Nothing yet.
    pub(crate) fn new(ports: &Ports, partition: TopicPartition) -> Self {
        let Ports { log, clock, metrics, .. } = ports.clone();
        Self { log, clock, partition, reported: metrics.lag(partition.topic), looked_at: None }
    }

    /// Reports the records from `taken` on, at most once in [`LOOK`].
    pub(crate) async fn look(&mut self, taken: Offset) {
        let now = self.clock.now();
        if self.looked_at.is_some_and(|at| at <= now && now.since(at) < LOOK) {
            return;
        }
        self.looked_at = Some(now);
        // A log that does not answer has its own metric, and the lag stays as it was last known.
        if let Ok(end) = self.log.end(self.partition).await {
            self.reported.set(usize::try_from(end.saturating_sub(taken)).unwrap_or(usize::MAX));
        }
    }
}
