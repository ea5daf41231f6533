//! Metrics of the stores and of providers: read from their own counters when Prometheus scrapes.

use std::sync::{Arc, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntCounter, IntGauge, Registry};

use crate::cluster::Cluster;
use crate::embedded::Embedded;
use crate::responders::Llm;

/// Registers the embedded store's metrics. They end with the store.
///
/// # Panics
/// If they are registered twice with one registry.
pub fn register_embedded(registry: &Registry, store: &Arc<Embedded>) {
    let collector = EmbeddedCollector::new(Arc::downgrade(store));
    registry.register(Box::new(collector)).expect("each name is registered once");
}

/// Registers the metrics of a shared log and state store.
///
/// # Panics
/// If they are registered twice with one registry.
pub fn register_cluster(registry: &Registry, store: &Cluster) {
    store.register(registry);
}

/// Registers the metrics of calls to language models.
///
/// # Panics
/// If they are registered twice with one registry.
pub fn register_llm(registry: &Registry, llm: &Llm) {
    llm.stats().register(registry);
}

struct EmbeddedCollector {
    store: Weak<Embedded>,
    held: IntGauge,
    written: IntCounter,
    syncs: IntCounter,
    batches: IntCounter,
    swept: IntCounter,
    compactions: IntCounter,
    compacted: Counter,
    reopened: IntCounter,
    failing: IntGauge,
    refused: IntGauge,
    free: IntGauge,
}

impl EmbeddedCollector {
    fn new(store: Weak<Embedded>) -> Self {
        let counter = |name, help| IntCounter::new(name, help).expect("the name is valid");
        let gauge = |name, help| IntGauge::new(name, help).expect("the name is valid");
        let held = IntGauge::new("heddle_journal_bytes", "Bytes the journal takes; log.max_bytes bounds it.");
        Self {
            store,
            held: held.expect("the name is valid"),
            written: counter("heddle_journal_written_bytes_total", "Bytes written to the journal."),
            syncs: counter("heddle_journal_syncs_total", "Frames written, each with one sync."),
            batches: counter(
                "heddle_journal_batches_total",
                "Batches, appends and conditional writes; with the syncs, how well they group.",
            ),
            swept: counter(
                "heddle_store_swept_rows_total",
                "Rows deleted from the checkpoint because their time was over.",
            ),
            compactions: counter(
                "heddle_store_compactions_total",
                "Rewrites of the checkpoint's files without removed rows; state.compact_every.",
            ),
            compacted: Counter::new(
                "heddle_store_compactions_seconds_total",
                "How long rewriting them took, all together.",
            )
            .expect("the name is valid"),
            reopened: counter(
                "heddle_store_reopened_total",
                "How often the checkpoint store was opened again after a failed write or merge.",
            ),
            failing: gauge(
                "heddle_store_failing",
                "1 while the journal or the checkpoint cannot be written, as on a full disk, else 0.",
            ),
            refused: gauge(
                "heddle_store_compaction_refused",
                "1 if the last rewrite of the files stopped for lack of room, else 0.",
            ),
            free: gauge("heddle_store_free_bytes", "Bytes that are free on the disk of data_dir."),
        }
    }
}

impl EmbeddedCollector {
    fn parts(&self) -> [&dyn Collector; 11] {
        [
            &self.held,
            &self.written,
            &self.syncs,
            &self.batches,
            &self.swept,
            &self.compactions,
            &self.compacted,
            &self.reopened,
            &self.failing,
            &self.refused,
            &self.free,
        ]
    }
}

impl Collector for EmbeddedCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(store) = self.store.upgrade() else { return Vec::new() };
        self.held.set(i64::try_from(store.journal_bytes()).unwrap_or(i64::MAX));
        let stats = store.stats();
        for (counter, now) in [
            (&self.written, stats.bytes()),
            (&self.syncs, stats.frames()),
            (&self.batches, stats.batches()),
            (&self.swept, stats.swept()),
            (&self.compactions, stats.compactions()),
            (&self.reopened, stats.reopens()),
        ] {
            // Two scrapes may run at once; the later one adds nothing.
            counter.inc_by(now.saturating_sub(counter.get()));
        }
        self.failing.set(i64::from(store.fault().is_some()));
        self.refused.set(i64::from(stats.is_compaction_refused()));
        self.free.set(store.free_bytes().and_then(|free| i64::try_from(free).ok()).unwrap_or(i64::MAX));
        let compacted = stats.compacted_for().as_secs_f64();
        self.compacted.inc_by((compacted - self.compacted.get()).max(0.0));
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::Options;
    use heddle_memory::ManualClock;
    use heddle_schemas::time::Timestamp;

    #[tokio::test]
    async fn the_journal_is_seen_as_long_as_it_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1)));
        let store = Embedded::open(Options::new(folder.path()), clock).unwrap();
        let registry = Registry::new();
        register_embedded(&registry, &store);
        // Opening has written one frame: that an epoch began.
        let syncs = |registry: &Registry| {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == "heddle_journal_syncs_total");
            family.map(|family| family.get_metric()[0].get_counter().get_value())
        };
        assert_eq!(syncs(&registry), Some(1.0));
        assert_eq!(syncs(&registry), Some(1.0), "asking twice counts once");
        store.close().await;
        drop(store);
        assert_eq!(syncs(&registry), None);
    }
}
