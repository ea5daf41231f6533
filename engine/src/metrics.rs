//! Metrics of the engine's own parts: webhooks, the admin API, replayed dead letters, readiness.

use std::time::Duration;

use heddle_api::dead_letters::Outcome;
use heddle_schemas::id::ChannelKind;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Kinds of events in webhooks.
pub(crate) const EVENT_KINDS: [&str; 4] = ["message", "status", "preference", "notice"];

/// Creates the series of each channel.
fn by_channel(counter: &IntCounterVec, values: &[&str]) {
    for kind in ChannelKind::ALL {
        for value in values {
            counter.with_label_values(&[kind.as_str(), value]);
        }
    }
}

/// Metrics of the engine.
#[derive(Debug)]
pub struct Metrics {
    webhooks: IntCounterVec,
    events: IntCounterVec,
    seconds: Histogram,
    in_work: IntGauge,
    admin: IntCounterVec,
    replayed: IntCounterVec,
    connections: IntGauge,
    connections_refused: IntCounter,
    ready: IntGauge,
}

impl Metrics {
    /// Creates and registers the metrics. Each series exists from the start, so that its first rise shows; that of the
    /// admin API's statuses begins with the first answer.
    ///
    /// # Panics
    /// When they are registered twice with one registry.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let webhook_results = &crate::http::webhooks::WEBHOOK_RESULTS;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("the name is valid");
            registry.register(Box::new(counter.clone())).expect("each name is registered once");
            counter
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("the name is valid");
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
                "Time from a webhook's headers to its answer; a 200 waits until the records are durable.",
            )
            .buckets(buckets),
        )
        .expect("the name is valid");
        registry.register(Box::new(seconds.clone())).expect("each name is registered once");
        Self {
            webhooks: {
                let webhooks =
                    counters("heddle_webhook_requests_total", "Webhooks, by result.", &["channel", "result"]);
                by_channel(&webhooks, webhook_results);
                webhooks
            },
            events: {
                let events = counters(
                    "heddle_webhook_events_total",
                    "Events in accepted webhooks, by kind.",
                    &["channel", "kind"],
                );
                by_channel(&events, &EVENT_KINDS);
                events
            },
            seconds,
            in_work: gauge("heddle_webhook_in_work_requests", "Webhooks being read or processed."),
            admin: counters(
                "heddle_admin_requests_total",
                "Requests to the admin API, by status.",
                &["status"],
            ),
            replayed: {
                let help = "Dead letters selected for a replay, by outcome.";
                let replayed = counters("heddle_dlq_replayed_total", help, &["outcome"]);
                for outcome in Outcome::ALL {
                    replayed.with_label_values(&[outcome.as_str()]);
                }
                replayed
            },
            connections: gauge("heddle_http_connections", "Open connections of both listeners."),
            connections_refused: counter(
                "heddle_http_connections_refused_total",
                "Connections closed at once, since their address had its share.",
            ),
            ready: gauge("heddle_node_ready", "1 while this node accepts webhooks, else 0."),
        }
    }

    /// Counts an answered webhook.
    pub fn webhook(&self, channel: ChannelKind, result: &'static str, took: Duration) {
        self.webhooks.with_label_values(&[channel.as_str(), result]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts the events of this kind in an accepted webhook.
    pub fn events(&self, channel: ChannelKind, kind: &'static str, count: usize) {
        self.events.with_label_values(&[channel.as_str(), kind]).inc_by(count as u64);
    }

    /// Changes the number of webhooks in flight.
    pub fn in_work(&self, change: i64) {
        self.in_work.add(change);
    }

    /// Counts an answer of the admin API.
    pub fn admin(&self, status: u16) {
        self.admin.with_label_values(&[&status.to_string()]).inc();
    }

    /// Counts a dead letter selected for a replay.
    pub fn dead_letter_replayed(&self, outcome: &'static str) {
        self.replayed.with_label_values(&[outcome]).inc();
    }

    /// Changes the number of open connections.
    pub fn connections(&self, change: i64) {
        self.connections.add(change);
    }

    /// Counts a connection over its address's share.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Sets whether webhooks are accepted.
    pub fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }
}
