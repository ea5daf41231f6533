//! What operators watch of the engine's own parts: webhooks, the admin API, replayed letters, readiness.

use std::time::Duration;

use heddle_schemas::id::ChannelKind;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

/// The metrics of the engine.
#[derive(Debug)]
pub struct Metrics {
    webhooks: IntCounterVec,
    events: IntCounterVec,
    seconds: Histogram,
    in_work: IntGauge,
    admin: IntCounterVec,
    replayed: IntCounterVec,
    ready: IntGauge,
}

impl Metrics {
    /// Makes them and registers them.
    ///
    /// # Panics
    /// When they are registered twice with one registry.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("the name is valid");
            registry.register(Box::new(counter.clone())).expect("each name is registered once");
            counter
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("the name is valid");
            registry.register(Box::new(gauge.clone())).expect("each name is registered once");
            gauge
        };
        let buckets = prometheus::exponential_buckets(0.000_5, 2.0, 16).expect("the buckets rise");
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "heddle_webhook_seconds",
                "From a webhook's headers being read to its answer; a 200 waits for the records being durable.",
            )
            .buckets(buckets),
        )
        .expect("the name is valid");
        registry.register(Box::new(seconds.clone())).expect("each name is registered once");
        Self {
            webhooks: counters(
                "heddle_webhook_requests_total",
                "Webhooks, by result.",
                &["channel", "result"],
            ),
            events: counters(
                "heddle_webhook_events_total",
                "What taken webhooks said, by kind.",
                &["channel", "kind"],
            ),
            seconds,
            in_work: gauge("heddle_webhook_in_work_requests", "Webhooks being read or taken in."),
            admin: counters(
                "heddle_admin_requests_total",
                "Requests to the admin API, by status.",
                &["status"],
            ),
            replayed: counters(
                "heddle_dlq_replayed_total",
                "Dead letters that were to be replayed, by what became of them.",
                &["outcome"],
            ),
            ready: gauge("heddle_node_ready", "Whether this node takes webhooks in (1) or not (0)."),
        }
    }

    /// A webhook was answered.
    pub fn webhook(&self, channel: ChannelKind, result: &'static str, took: Duration) {
        self.webhooks.with_label_values(&[channel.as_str(), result]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// A taken webhook said so many things of this kind.
    pub fn events(&self, channel: ChannelKind, kind: &'static str, count: usize) {
        self.events.with_label_values(&[channel.as_str(), kind]).inc_by(count as u64);
    }

    /// Webhooks in work, more or less.
    pub fn in_work(&self, change: i64) {
        self.in_work.add(change);
    }

    /// The admin API answered.
    pub fn admin(&self, status: u16) {
        self.admin.with_label_values(&[&status.to_string()]).inc();
    }

    /// A dead letter was to be replayed.
    pub fn dead_letter_replayed(&self, outcome: &'static str) {
        self.replayed.with_label_values(&[outcome]).inc();
    }

    /// Whether webhooks are taken in.
    pub fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }
}
