//! Leader tasks: one node continues, for the whole cluster, work that was begun and is not complete, whichever node
//! began it.
//!
//! Contract: the owner of the first partition of inbound is the leader, so exactly one node is, wherever the partition
//! moves. Two leaders for a moment, while the ownership changes, are harmless: every task can be done twice. A failed
//! task is retried at the next check.

use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::topic::{Topic, TopicPartition};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::ports::Ports;
use crate::privacy::disconnection::Disconnections;
use crate::privacy::erasure::OpenErasures;
use crate::privacy::tenant_deletion::OpenDeletions;
use crate::tenant::configuration::Tenants;

/// Interval of the leader's checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Pause before the next check where more work waits, so that other work comes in between.
const MORE_WORK_PAUSE: Duration = Duration::from_millis(250);
/// Partition whose owner runs the leader tasks.
pub(crate) const LEADER_PARTITION: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 0 };

/// Runs the leader tasks while it is polled and `ours` is true.
pub(crate) async fn run(ports: Ports, tenants: Arc<Tenants>, mut ours: watch::Receiver<bool>) {
    loop {
        // It ends with the system.
        let Ok(_) = ours.wait_for(|ours| *ours).await else { return };
        let (mut erasures, mut removals) = (OpenErasures::default(), OpenDeletions::default());
        let mut disconnections = Disconnections::default();
        let mut erasures_at = ports.clock.elapsed();
        while *ours.borrow_and_update() {
            if ports.clock.elapsed() >= erasures_at {
                erasures_at = ports.clock.elapsed() + CHECK_INTERVAL;
                if let Err(error) = erasures.check(&ports).await {
                    tracing::warn!(%error, "leader task failed, retrying: open erasures");
                }
            }
            let more = removals.look(&ports, &tenants).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "leader task failed, retrying: tenant deletions");
                false
            });
            let more = more
                | disconnections.go_on(&ports, &tenants).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "leader task failed, retrying: conversations of disconnected accounts");
                    false
                });
            // A change of the ownership is checked at once.
            drop(
                tokio::time::timeout(if more { MORE_WORK_PAUSE } else { CHECK_INTERVAL }, ours.changed())
                    .await,
            );
        }
        ports.metrics.erasures(0, Duration::ZERO);
        ports.metrics.removals(0, Duration::ZERO);
    }
}

/// Has a node keep no index of a tenant that it does not know any more, for as long as it is polled: each node has its
/// own, in memory. One that is missed is closed by the next search, which finds no key, or as the least used.
pub(crate) async fn close_indexes(ports: Ports, tenants: Arc<Tenants>) {
    let mut departures = tenants.departures();
    loop {
        match departures.recv().await {
            Ok(gone) => {
                if let Err(error) = ports.knowledge.erase(&gone).await {
                    // It is closed all the same, and its rows are removed by the leader.
                    tracing::debug!(%error, tenant = %gone, "documents of a deleted tenant are not removed yet");
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
