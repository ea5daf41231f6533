//! Metrics of the ownership.

use prometheus::{IntCounter, IntGauge, Registry};

/// Counters of a node's ownerships.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    /// Partitions held now.
    pub(super) held: IntGauge,
    /// Partitions taken over.
    pub(super) taken: IntCounter,
    /// Partitions released in order.
    pub(super) released: IntCounter,
    /// Partitions that another owner has taken while this node held them.
    pub(super) lost: IntCounter,
    /// Renewals that failed and were tried again.
    pub(super) unrenewed: IntCounter,
}

impl Stats {
    pub(super) fn new() -> Self {
        let counter = |name, help| IntCounter::new(name, help).expect("the name is valid");
        let held =
            IntGauge::new("heddle_ownership_held_partitions", "Partitions whose lease this node holds.");
        Self {
            held: held.expect("the name is valid"),
            taken: counter("heddle_ownership_taken_total", "Partitions taken over."),
            released: counter("heddle_ownership_released_total", "Partitions released in order."),
            lost: counter(
                "heddle_ownership_lost_total",
                "Partitions that another owner took from this node before it had released them.",
            ),
            unrenewed: counter(
                "heddle_ownership_renewal_failures_total",
                "Lease renewals that failed and were retried; without a lease nothing is sent or written.",
            ),
        }
    }

    /// Has a registry read them.
    pub(crate) fn register(&self, registry: &Registry) {
        let all: [Box<dyn prometheus::core::Collector>; 5] = [
            Box::new(self.held.clone()),
            Box::new(self.taken.clone()),
            Box::new(self.released.clone()),
            Box::new(self.lost.clone()),
            Box::new(self.unrenewed.clone()),
        ];
        for one in all {
            registry.register(one).expect("each name is registered once");
        }
    }
}
