//! What one node does for all: it looks after what was begun and is not complete, whoever began it.
//!
//! Contract: the owner of the first partition of inbound keeps house, so one node does, wherever it moves. Two that
//! do for a moment, while the ownership changes, do no harm: all of it can be done twice. What fails is tried again at
//! the next look.

use std::time::Duration;

use heddle_schemas::topic::{Topic, TopicPartition};
use tokio::sync::watch;

use crate::erasure::OpenErasures;
use crate::ports::Ports;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(30);
/// Whose owner keeps house.
pub(crate) const HOUSE: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 0 };

/// Keeps house for as long as it is polled and `ours` says so.
pub(crate) async fn run(ports: Ports, mut ours: watch::Receiver<bool>) {
    loop {
        // It ends with the system.
        let Ok(_) = ours.wait_for(|ours| *ours).await else { return };
        let mut erasures = OpenErasures::default();
        while *ours.borrow_and_update() {
            if let Err(error) = erasures.look(&ports).await {
                tracing::warn!(%error, "open erasures cannot be looked after now");
            }
            // A change of the ownership is looked at right away.
            drop(tokio::time::timeout(LOOK, ours.changed()).await);
        }
        ports.metrics.erasures(0, Duration::ZERO);
    }
}
