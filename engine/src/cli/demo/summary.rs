//! What the demo came to, and the checks that decide whether it ended well.
//!
//! The counts of the simulator are of its own account, outside the engine's code; those of the engine come
//! from its metrics. Where both count the same thing, they must agree.

use std::fmt;

use heddle_schemas::topic::{Topic, TopicPartition};
use serde::Serialize;

use crate::service::Service;
use crate::simulator::report::Report;

/// One promise, and whether it held.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    what: &'static str,
    holds: bool,
    evidence: String,
}

/// What the demo came to.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    messages_in: u64,
    duplicates_sent: u64,
    duplicates_dropped: u64,
    turns: u64,
    questions: u64,
    replies_delivered: u64,
    latency_ms: LatencyMillis,
    unknown_sends: u64,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct LatencyMillis {
    p50: u128,
    p90: u128,
    p99: u128,
    max: u128,
}

impl Summary {
    /// Of a run; `quiet` says whether everything was settled at its end.
    pub(super) async fn of(service: &Service, report: &Report, quiet: bool) -> Self {
        let metrics = &service.node.ports.metrics;
        let (duplicates, turns) = (metrics.duplicates(), metrics.turns());
        let dead = dead_letters(service).await;
        let node = &service.node;
        let left = node.unsettled(Topic::Inbound).await + node.unsettled(Topic::Outbound).await;
        let refused: u64 = report.graph.refused.values().sum();
        let check = |what, holds, evidence: String| Check { what, holds, evidence };
        let checks = vec![
            check(
                "every message got its 200, and every question its answer",
                report.questions > 0 && report.unanswered == 0 && report.acknowledged == report.messages,
                format!(
                    "{} of {} messages taken, {} of {} questions answered rightly",
                    report.acknowledged, report.messages, report.answered, report.questions
                ),
            ),
            check(
                "nothing is sent twice",
                report.doubled == 0,
                format!("{} messages came to the API again under an id already taken", report.doubled),
            ),
            check(
                "every duplicate is recognised",
                duplicates == report.duplicates,
                format!("{} sent twice, {duplicates} dropped", report.duplicates),
            ),
            check(
                "order holds",
                report.out_of_order == 0,
                format!("{} replies out of order", report.out_of_order),
            ),
            check(
                "nobody gets another's message",
                report.strangers == 0,
                format!("{} messages to people who are no customers", report.strangers),
            ),
            check(
                "each turn is one reply",
                report.replies == turns,
                format!("{turns} turns, {} replies", report.replies),
            ),
            check("no limit of the API is exceeded", refused == 0, format!("{refused} requests refused")),
            check(
                "everything is settled",
                quiet,
                format!("{left} records of inbound and outbound without an end"),
            ),
            check("nothing is given up", dead == 0, format!("{dead} dead letters")),
        ];
        let latency = LatencyMillis {
            p50: report.latency.p50.as_millis(),
            p90: report.latency.p90.as_millis(),
            p99: report.latency.p99.as_millis(),
            max: report.latency.max.as_millis(),
        };
        Self {
            messages_in: report.messages,
            duplicates_sent: report.duplicates,
            duplicates_dropped: duplicates,
            turns,
            questions: report.questions,
            replies_delivered: report.replies - report.doubled,
            latency_ms: latency,
            unknown_sends: metrics.unknown_total(),
            checks,
        }
    }

    /// How many checks do not hold.
    pub(super) fn broken(&self) -> usize {
        self.checks.iter().filter(|check| !check.holds).count()
    }
}

async fn dead_letters(service: &Service) -> u64 {
    let log = &service.node.ports.log;
    let mut letters = 0;
    for partition in 0..log.partitions(Topic::Dlq) {
        letters += log.end(TopicPartition { topic: Topic::Dlq, partition }).await.unwrap_or(u64::MAX);
    }
    letters
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LatencyMillis { p50, p90, p99, max } = self.latency_ms;
        writeln!(f, "\nSummary")?;
        writeln!(f, "  messages in          {:>6}", self.messages_in)?;
        writeln!(
            f,
            "  duplicates dropped   {:>6}  (of {} sent)",
            self.duplicates_dropped, self.duplicates_sent
        )?;
        writeln!(f, "  turns                {:>6}", self.turns)?;
        writeln!(f, "  replies delivered    {:>6}", self.replies_delivered)?;
        writeln!(f, "  answer latency       p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, max {max} ms")?;
        writeln!(
            f,
            "                       (from the last line of a question; settle delay and API included)"
        )?;
        for check in &self.checks {
            let mark = if check.holds { "ok  " } else { "FAIL" };
            writeln!(f, "  {mark} {:<58} {}", check.what, check.evidence)?;
        }
        match self.broken() {
            0 => write!(f, "Nothing lost, nothing doubled, nothing out of order."),
            broken => write!(f, "{broken} checks do not hold."),
        }
    }
}
