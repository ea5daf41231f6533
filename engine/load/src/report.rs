//! Report of a run: numbers with their units in their names, as JSON or as a table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::options::{Options, Pace, Way};
use crate::tally::Tally;
use heddle_simulator::graph;

/// Percentiles of a latency, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LatencyMs {
    /// Number of measurements.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// 50th percentile.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p99_9: f64,
    /// Maximum.
    pub max: f64,
}

impl LatencyMs {
    fn of(micros: &Histogram<u64>) -> Self {
        if micros.is_empty() {
            return Self::default();
        }
        let millis = |micros: u64| micros as f64 / 1000.0;
        Self {
            count: micros.len(),
            mean: (micros.mean().round()) / 1000.0,
            p50: millis(micros.value_at_quantile(0.5)),
            p99: millis(micros.value_at_quantile(0.99)),
            p99_9: millis(micros.value_at_quantile(0.999)),
            max: millis(micros.max()),
        }
    }
}

/// Report of a run. Plain numbers: no names, phone numbers or texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Requested messages a second; null at maximum speed.
    pub rate_per_second: Option<u32>,
    /// Number of customers at maximum speed; else null.
    pub in_flight: Option<u32>,
    /// Ingress: `webhooks` or `kafka`.
    pub way: &'static str,
    /// Number of tenants, with one WhatsApp number each.
    pub tenants: u32,
    /// Number of conversations to choose from.
    pub conversations: u32,
    /// Exponent of Zipf's law for the choice of conversations.
    pub skew: f64,
    /// Messages in one webhook, or published together.
    pub batch: u32,
    /// The tenants' settle delay.
    pub settle_ms: u128,
    /// The limit of a number.
    pub per_number_per_second: u32,
    /// The seed.
    pub seed: u64,
    /// Time from the first message to the last.
    pub send_seconds: f64,
    /// Webhooks sent, or groups of records published.
    pub bodies: u64,
    /// Messages in those bodies.
    pub messages_sent: u64,
    /// Messages whose webhook was answered with 200, or that Kafka confirmed: each must get a reply.
    pub messages_accepted: u64,
    /// Messages with another answer or none.
    pub messages_refused: u64,
    /// Messages due but not sent when the time was over, because all connections were busy. No percentile includes
    /// their latency.
    pub messages_unsent: u64,
    /// Accepted messages a second of sending.
    pub accepted_per_second: f64,
    /// Messages with a reply, each counted once.
    pub replied: u64,
    /// Replied messages a second, from the first message to the last reply.
    pub replied_per_second: f64,
    /// Accepted messages without a reply at the end.
    pub lost: u64,
    /// Replies to messages that already had one.
    pub doubled: u64,
    /// Replies of one conversation that arrived in another order than their messages.
    pub out_of_order: u64,
    /// Replies that answer no question, such as fallbacks.
    pub wrong: u64,
    /// Replies to unknown recipients, or to questions of an earlier run.
    pub strangers: u64,
    /// Replies to messages without a positive answer: the engine had accepted them nevertheless.
    pub unowed: u64,
    /// Time from a body's due time to its acceptance.
    pub accept_latency_ms: LatencyMs,
    /// Time from a message's due time to its reply's arrival at the simulated API.
    pub reply_latency_ms: LatencyMs,
    /// Bodies by their answer: a status, or the failure.
    pub answers: BTreeMap<Cow<'static, str>, u64>,
    /// Calls that the simulated API refused, by Graph's error code.
    pub graph_refused: BTreeMap<i64, u64>,
    /// Warnings that limit the meaning of these numbers.
    pub cautions: Vec<String>,
}

/// Times of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Due time of the first message.
    pub(crate) start: Duration,
    /// End of sending.
    pub(crate) sent: Duration,
    /// Messages due but not sent by then.
    pub(crate) unsent: u64,
}

impl Report {
    pub(crate) fn of(
        options: &Options,
        tally: &Tally,
        times: Times,
        graph: graph::Counts,
        cautions: Vec<String>,
    ) -> Self {
        let counts = tally.counts();
        let sending = times.sent.saturating_sub(times.start);
        let replying = tally.last_reply().saturating_sub(times.start);
        let (rate_per_second, in_flight) = match options.pace {
            Pace::Rate(rate) => (Some(rate.get()), None),
            Pace::Max { in_flight } => (None, Some(in_flight.get())),
        };
        Self {
            rate_per_second,
            in_flight,
            way: match options.way {
                Way::Webhooks { .. } => "webhooks",
                Way::Kafka { .. } => "kafka",
            },
            tenants: options.tenants.get(),
            conversations: options.conversations.get(),
            skew: options.skew,
            batch: options.batch.get(),
            settle_ms: options.settle.as_millis(),
            per_number_per_second: options.per_number.get(),
            seed: options.seed,
            send_seconds: (sending.as_secs_f64() * 1000.0).round() / 1000.0,
            bodies: counts.bodies,
            messages_sent: counts.sent,
            messages_accepted: counts.accepted,
            messages_refused: counts.refused,
            messages_unsent: times.unsent,
            accepted_per_second: per_second(counts.accepted, sending),
            replied: counts.answered,
            replied_per_second: per_second(counts.answered, replying),
            lost: tally.open(),
            doubled: counts.doubled,
            out_of_order: counts.out_of_order,
            wrong: counts.nameless,
            strangers: counts.strangers,
            unowed: counts.unowed,
            accept_latency_ms: LatencyMs::of(tally.accept_latency()),
            reply_latency_ms: LatencyMs::of(tally.reply_latency()),
            answers: counts.answers.clone(),
            graph_refused: graph.refused,
            cautions,
        }
    }

    /// Returns whether at least one message was accepted, and none is lost, doubled or out of order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.messages_accepted > 0 && self.lost == 0 && self.doubled == 0 && self.out_of_order == 0
    }
}

/// Returns a rate to one decimal.
fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { (count as f64 / time.as_secs_f64() * 10.0).round() / 10.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = match (self.rate_per_second, self.in_flight) {
            (Some(rate), _) => format!("{rate} messages a second"),
            (_, customers) => format!("maximum speed, {} in flight", customers.unwrap_or_default()),
        };
        writeln!(f, "Load by {}: {asked}, {:.1} s", self.way, self.send_seconds)?;
        writeln!(
            f,
            "  {} tenants, {} conversations, skew {}, {} at once, settle {} ms",
            self.tenants, self.conversations, self.skew, self.batch, self.settle_ms
        )?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, count: u64, beside: String| {
            writeln!(f, "  {name:<22} {count:>10}  {beside}").map(drop)
        };
        line(f, "messages accepted", self.messages_accepted, format!("{}/s", self.accepted_per_second))?;
        line(f, "replies", self.replied, format!("{}/s", self.replied_per_second))?;
        for (name, count, meaning) in [
            ("lost", self.lost, "accepted, no reply"),
            ("doubled", self.doubled, "replied again"),
            ("out of order", self.out_of_order, "in one conversation"),
        ] {
            line(f, name, count, meaning.into())?;
        }
        for (name, count, meaning) in [
            ("refused", self.messages_refused, "not accepted: no reply expected"),
            ("unsent", self.messages_unsent, "due, but all connections were busy; in no percentile"),
            ("wrong replies", self.wrong, "answer no question"),
            ("strangers", self.strangers, "replies to unknown recipients, or of an earlier run"),
            ("unowed", self.unowed, "replies to messages that were not accepted"),
        ] {
            if count > 0 {
                line(f, name, count, meaning.into())?;
            }
        }
        writeln!(f, "  {:<22} {:>10} {:>10} {:>10} {:>10}", "latency, ms", "p50", "p99", "p99.9", "max")?;
        for (name, latency) in
            [("due to accepted", self.accept_latency_ms), ("due to reply", self.reply_latency_ms)]
        {
            let LatencyMs { p50, p99, p99_9, max, .. } = latency;
            writeln!(f, "  {name:<22} {p50:>10.2} {p99:>10.2} {p99_9:>10.2} {max:>10.2}")?;
        }
        let answers = self.answers.iter().map(|(answer, times)| format!("{answer}: {times}"));
        write!(f, "  {:<22} {}", format!("{} by answer", self.way), answers.collect::<Vec<_>>().join(", "))?;
        if !self.graph_refused.is_empty() {
            let refused = self.graph_refused.iter().map(|(code, times)| format!("{code}: {times}"));
            write!(f, "\n  calls refused          {}", refused.collect::<Vec<_>>().join(", "))?;
        }
        for caution in &self.cautions {
            write!(f, "\n  note: {caution}")?;
        }
        match self.is_clean() {
            true => write!(f, "\nNothing lost, nothing doubled, nothing out of order."),
            false if self.messages_accepted == 0 => write!(f, "\nNothing was accepted: this proves nothing."),
            false => write!(f, "\nA guarantee is broken: see lost, doubled and out of order."),
        }
    }
}
