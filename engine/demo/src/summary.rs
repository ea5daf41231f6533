//! Results of the demo, and the checks that decide its exit code.
//!
//! The simulator keeps its own counts, outside the engine's code; the engine's come from its metrics. Where both
//! count the same thing, they must agree.

use std::fmt;

use heddle_simulator::report::Report;
use serde::Serialize;

use crate::EngineCounts;

/// Check of one guarantee.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The guarantee.
    pub what: &'static str,
    /// True where the guarantee held.
    pub holds: bool,
    /// Counts that support the result.
    pub evidence: String,
}

/// Result of the demo.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Messages that customers sent.
    pub messages_in: u64,
    /// Messages repeated in duplicated webhooks.
    pub duplicates_sent: u64,
    /// Messages that the engine dropped as duplicates.
    pub duplicates_dropped: u64,
    /// Turns of the engine.
    pub turns: u64,
    /// Questions asked.
    pub questions: u64,
    /// Replies received by the simulated API, each counted once.
    pub replies_delivered: u64,
    /// Time from the last line of a question to its answer.
    pub latency_ms: LatencyMillis,
    /// Sends with an unknown outcome.
    pub unknown_sends: u64,
    /// The checks.
    pub checks: Vec<Check>,
}

/// Percentiles of a latency, in milliseconds.
#[derive(Debug, Serialize)]
pub struct LatencyMillis {
    /// 50th percentile.
    pub p50: u128,
    /// 90th percentile.
    pub p90: u128,
    /// 99th percentile.
    pub p99: u128,
    /// Maximum.
    pub max: u128,
}

impl Summary {
    /// Summarises a run; `quiet` is true where everything was settled at its end.
    pub(super) fn of(engine: &EngineCounts, report: &Report, quiet: bool) -> Self {
        let EngineCounts { duplicates, turns, unknown_sends, dead_letters, unsettled } = *engine;
        let refused: u64 = report.graph.refused.values().sum();
        let check = |what, holds, evidence: String| Check { what, holds, evidence };
        let checks = vec![
            check(
                "every message got its 200, and every question its answer",
                report.questions > 0 && report.unanswered == 0 && report.acknowledged == report.messages,
                format!(
                    "{} of {} messages accepted, {} of {} questions answered correctly",
                    report.acknowledged, report.messages, report.answered, report.questions
                ),
            ),
            check(
                "nothing is sent twice",
                report.doubled == 0,
                format!(
                    "{} messages sent to the API again under an id it had already accepted",
                    report.doubled
                ),
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
                "no message goes to the wrong person",
                report.strangers == 0,
                format!("{} messages to people who are not customers", report.strangers),
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
                format!("{unsettled} unsettled records in inbound and outbound"),
            ),
            check("nothing is dead-lettered", dead_letters == 0, format!("{dead_letters} dead letters")),
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
            unknown_sends,
            checks,
        }
    }

    /// Returns the number of failed checks.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.checks.iter().filter(|check| !check.holds).count()
    }
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
            let label = if check.holds { "ok  " } else { "FAIL" };
            writeln!(f, "  {label} {:<58} {}", check.what, check.evidence)?;
        }
        match self.broken() {
            0 => write!(f, "Nothing lost, nothing doubled, nothing out of order."),
            broken => write!(f, "{broken} checks failed."),
        }
    }
}
