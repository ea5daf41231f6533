//! Metrics of the actors for operators: one struct, passed in, with one method an occurrence.
//!
//! Labels are bounded: topics, kinds, outcomes; never a tenant's conversation, contact or message.

use std::time::Duration;

use heddle_schemas::audit::Outcome as Written;
use heddle_schemas::consent::{How, Says};
use heddle_schemas::lenient::Lenient;
use heddle_schemas::ports::channel::FailureClass;
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::event::{IncidentKind, Outcome, Resolution};
use heddle_schemas::record::inbound::Withheld;
use heddle_schemas::tenant::Resource;
use heddle_schemas::topic::Topic;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::invariants::Invariant;

/// Label of an entry of the audit log that could not be written.
const FAILED_TO_WRITE: &str = "failed_to_write";

/// Results of calls to channels.
const SEND_RESULTS: [Result<(), FailureClass>; 9] = [
    Ok(()),
    Err(FailureClass::RateLimited),
    Err(FailureClass::PairLimited),
    Err(FailureClass::Temporary),
    Err(FailureClass::Unknown),
    Err(FailureClass::Final),
    Err(FailureClass::OptedOut),
    Err(FailureClass::Unauthorized),
    Err(FailureClass::Blocked),
];

/// Returns the label of a call's result.
fn send_result(result: Result<(), FailureClass>) -> &'static str {
    match result {
        Ok(()) => "accepted",
        Err(FailureClass::RateLimited) => "rate_limited",
        Err(FailureClass::PairLimited) => "pair_limited",
        Err(FailureClass::Temporary) => "temporary",
        Err(FailureClass::Unknown) => "unknown",
        Err(FailureClass::Final) => "final",
        Err(FailureClass::OptedOut) => "opted_out",
        Err(FailureClass::Unauthorized) => "unauthorized",
        Err(FailureClass::Blocked) => "blocked",
    }
}

/// Gauge of the consumed topics, whose labels are not looked up for every record.
#[derive(Debug)]
struct ByTopic {
    inbound: IntGauge,
    outbound: IntGauge,
    all: IntGaugeVec,
}

impl ByTopic {
    fn new(all: IntGaugeVec) -> Self {
        let of = |topic: Topic| all.with_label_values(&[topic.as_str()]);
        Self { inbound: of(Topic::Inbound), outbound: of(Topic::Outbound), all }
    }

    fn add(&self, topic: Topic, change: i64) {
        match topic {
            Topic::Inbound => self.inbound.add(change),
            Topic::Outbound => self.outbound.add(change),
            other => self.all.with_label_values(&[other.as_str()]).add(change),
        }
    }
}

/// Records in work.
pub(crate) struct InWork<'a> {
    metrics: &'a Metrics,
    topic: Topic,
    records: i64,
}

impl Drop for InWork<'_> {
    fn drop(&mut self) {
        self.metrics.in_work(self.topic, -self.records);
    }
}

/// Share of one owner in a gauge, subtracted when the owner is dropped.
///
/// An actor that fails or is killed is dropped without its `post_stop`, so that a share added by hand would stay in the
/// gauge for as long as the process lives.
#[derive(Debug)]
pub(crate) struct GaugeShare {
    gauge: IntGauge,
    value: i64,
}

impl GaugeShare {
    fn of(gauge: IntGauge) -> Self {
        Self { gauge, value: 0 }
    }

    /// Sets the share.
    pub(crate) fn set(&mut self, value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.gauge.add(value - self.value);
        self.value = value;
    }
}

impl Drop for GaugeShare {
    fn drop(&mut self) {
        self.gauge.sub(self.value);
    }
}

/// The metrics of the actors.
#[derive(Debug)]
pub struct Metrics {
    records: IntCounterVec,
    dead: IntCounterVec,
    in_work: ByTopic,
    owned: IntGaugeVec,
    entities: IntGaugeVec,
    agenda: IntGaugeVec,
    lag: IntGaugeVec,
    parked: ByTopic,
    duplicates: IntCounter,
    late: IntCounter,
    loops: IntCounter,
    set_aside: IntCounterVec,
    fenced_records: IntCounter,
    forgotten: IntCounter,
    erasures_open: IntGauge,
    erasures_oldest: IntGauge,
    removals_open: IntGauge,
    removals_oldest: IntGauge,
    of_deleted: IntCounter,
    resurrections: IntCounter,
    swept_rows: IntCounterVec,
    sweeps: IntCounter,
    sweeps_behind: IntGauge,
    republished: IntCounter,
    answered: IntCounter,
    fallback: IntCounter,
    silent: IntCounter,
    tools: IntCounterVec,
    overdue: IntCounter,
    quota_refused: IntCounterVec,
    quota_warned: IntCounterVec,
    quota_lost: IntCounter,
    quota_interrupted: IntCounter,
    turn_seconds: Histogram,
    repeated_calls: IntCounter,
    sends: IntCounterVec,
    send_seconds: Histogram,
    unknown: IntCounter,
    resolved: IntCounterVec,
    send_panics: IntCounter,
    stopped: IntGauge,
    backlog: IntGauge,
    retries: IntCounterVec,
    identities: IntCounterVec,
    foreign: IntCounterVec,
    future: IntCounter,
    limited: IntCounterVec,
    tenants_refused: IntCounter,
    audited: IntCounterVec,
    signals: IntCounterVec,
    incidents: IntCounterVec,
    consents: IntCounterVec,
    withheld: IntCounterVec,
    violations: IntCounterVec,
}

impl Metrics {
    /// Creates and registers them.
    ///
    /// # Panics
    /// When they are registered twice with one registry.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let labelled = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("the name is valid");
            registry.register(Box::new(counter.clone())).expect("each name is registered once");
            counter
        };
        // Each series exists from the start, so that its first rise shows.
        let vec = |name: &str, help: &str, label: &str, values: &[&str]| {
            let counter = labelled(name, help, &[label]);
            for value in values {
                counter.with_label_values(&[value]);
            }
            counter
        };
        let gauges = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["topic"]).expect("the name is valid");
            // Each series is there from the start, so that its first rise shows.
            for topic in Topic::CONSUMED {
                gauge.with_label_values(&[topic.as_str()]);
            }
            registry.register(Box::new(gauge.clone())).expect("each name is registered once");
            gauge
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
        let histogram = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(0.000_5, 2.0, 18).expect("the buckets rise");
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
                .expect("the name is valid");
            registry.register(Box::new(histogram.clone())).expect("each name is registered once");
            histogram
        };
        let turns = vec(
            "heddle_conversation_turns_total",
            "Turns decided, by outcome.",
            "outcome",
            &["answered", "fallback", "silent"],
        );
        Self {
            records: vec(
                "heddle_partition_records_total",
                "Records fetched from the log.",
                "topic",
                &Topic::CONSUMED.map(Topic::as_str),
            ),
            dead: vec(
                "heddle_dlq_records_total",
                "Dead-lettered records, by reason.",
                "reason",
                &DeadReason::ALL.map(DeadReason::as_str),
            ),
            in_work: ByTopic::new(gauges(
                "heddle_partition_in_work_records",
                "Records fetched and not yet settled.",
            )),
            owned: gauges("heddle_partition_owned", "Partitions that this node owns and works on."),
            entities: gauges("heddle_partition_residents", "Conversations and accounts in memory."),
            agenda: gauges("heddle_agenda_window_entries", "Agenda entries held in memory."),
            lag: gauges("heddle_partition_lag_records", "Lag: records of the log not yet fetched."),
            parked: ByTopic::new(gauges(
                "heddle_partition_parked_records",
                "Records of a later build that wait for a node that reads them, with all that follows them for the same \
                 conversation or account.",
            )),
            duplicates: counter("heddle_conversation_duplicates_total", "Messages seen before, dropped."),
            fenced_records: counter(
                "heddle_partition_stray_records_total",
                "Records from a fenced producer, which had lost its partition before; each was looked up.",
            ),
            forgotten: counter("heddle_erasure_contacts_total", "Contacts whose erasure is complete."),
            erasures_open: gauge(
                "heddle_erasure_open",
                "Erasures of contacts that are not complete; 0 on all nodes but the leader.",
            ),
            erasures_oldest: gauge(
                "heddle_erasure_oldest_seconds",
                "Age of the oldest erasure that is not complete.",
            ),
            removals_open: gauge(
                "heddle_tenant_deletions_open",
                "Tenant deletions that are not complete; 0 on all nodes but the leader.",
            ),
            removals_oldest: gauge(
                "heddle_tenant_deletions_oldest_seconds",
                "Age of the oldest tenant deletion that is not complete.",
            ),
            of_deleted: counter(
                "heddle_tenant_refused_records_total",
                "Records of deleted tenants that came late; each was settled and not applied.",
            ),
            resurrections: counter(
                "heddle_erasure_refused_total",
                "Messages and reports from before an erasure that came after it; each was refused.",
            ),
            swept_rows: vec(
                "heddle_sweep_rows_total",
                "Rows to which changed retention was applied: read, and of these made to end earlier.",
                "what",
                &["looked_at", "shortened"],
            ),
            sweeps: counter("heddle_sweep_done_total", "Sweeps that applied changed retention to every row."),
            sweeps_behind: gauge(
                "heddle_sweep_behind_partitions",
                "Partitions of this node to whose rows a change of retention has not been applied yet.",
            ),
            loops: counter(
                "heddle_conversation_loops_total",
                "Conversations in which agent.loop_guard stopped the agent.",
            ),
            set_aside: vec(
                "heddle_agenda_set_aside_total",
                "Turns set aside after a fault that a retry does not fix, by reason; counted each time.",
                "reason",
                &[DeadReason::Unreadable, DeadReason::TooLarge, DeadReason::Shape].map(DeadReason::as_str),
            ),
            late: counter(
                "heddle_conversation_late_total",
                "Messages recorded and not answered because they are older than engine.answer_within.",
            ),
            republished: counter(
                "heddle_conversation_republished_total",
                "Replies published again after an interrupted commit.",
            ),
            answered: turns.with_label_values(&["answered"]),
            fallback: turns.with_label_values(&["fallback"]),
            silent: turns.with_label_values(&["silent"]),
            consents: {
                let help = "Consents (give) and opt-outs (stop) accepted, by how they were stated.";
                let consents = labelled("heddle_consent_changes_total", help, &["says", "how"]);
                for says in [Says::Give, Says::Stop] {
                    for how in How::ALL {
                        consents.with_label_values(&[says.as_str(), how.as_str()]);
                    }
                }
                consents
            },
            withheld: vec(
                "heddle_account_withheld_total",
                "Messages not sent: the contact has opted out, or the 24 h window is over.",
                "reason",
                &Withheld::ALL.map(Withheld::as_str),
            ),
            tools: labelled(
                "heddle_tool_calls_total",
                "Calls of the agent's tools, by result: done, refused.",
                &["tool", "result"],
            ),
            overdue: counter(
                "heddle_conversation_overdue_total",
                "Turns that got the fallback because they waited for their tenant's share longer than engine.answer_deadline.",
            ),
            quota_refused: vec(
                "heddle_quota_refused_turns_total",
                "Turns not answered because a tenant's quota is spent, by resource.",
                "resource",
                &Resource::ALL.map(Resource::as_str),
            ),
            quota_warned: vec(
                "heddle_quota_warnings_total",
                "Warnings of quotas nearly spent, one for each tenant, month and resource.",
                "resource",
                &Resource::ALL.map(Resource::as_str),
            ),
            quota_lost: counter(
                "heddle_quota_lost_messages_total",
                "Messages of quotas that count as spent though their outcome is unknown: a node died, or lost a partition.",
            ),
            quota_interrupted: counter(
                "heddle_quota_interrupted_calls_total",
                "Outside calls that count with their highest possible cost, because a crash hid their use.",
            ),
            turn_seconds: histogram(
                "heddle_conversation_turn_seconds",
                "Time from accepting the first message of a turn to its reply being durable.",
            ),
            repeated_calls: counter(
                "heddle_conversation_repeated_calls_total",
                "Outside calls repeated by policy, because a crash hid the outcome of the first.",
            ),
            sends: vec(
                "heddle_account_sends_total",
                "Calls to channels, by result.",
                "result",
                &SEND_RESULTS.map(send_result),
            ),
            send_seconds: histogram("heddle_account_send_seconds", "Duration of calls to channels."),
            unknown: counter("heddle_account_unknown_total", "Sends of unknown outcome."),
            resolved: vec(
                "heddle_account_unknown_resolved_total",
                "Unknown sends settled, by how.",
                "by",
                &["status", "sent_again", "given_up"],
            ),
            send_panics: counter(
                "heddle_account_send_panics_total",
                "Sends that panicked; each was settled as of unknown outcome.",
            ),
            stopped: gauge(
                "heddle_account_stopped_accounts",
                "Suspended accounts, which wait for an operator.",
            ),
            backlog: gauge("heddle_account_backlog_records", "Messages that wait in the state store."),
            retries: vec(
                "heddle_store_retries_total",
                "Retried store operations, by fault.",
                "fault",
                &["full", "unavailable"],
            ),
            identities: vec(
                "heddle_identity_changes_total",
                "Contacts that turned out to be one person, and ids that moved to another contact.",
                "change",
                &["merged", "moved"],
            ),
            foreign: labelled(
                "heddle_reception_dropped_total",
                "Channel events not accepted, by reason.",
                &["reason"],
            ),
            future: counter(
                "heddle_reception_future_times_total",
                "Channel events stamped over 10 minutes ahead of this node's clock, and taken as that.",
            ),
            tenants_refused: counter(
                "heddle_tenant_records_refused_total",
                "Tenants' records that are not as a node wrote them, and were refused.",
            ),
            limited: labelled(
                "heddle_contact_limited_total",
                "Turns and tool calls of contacts over a limit of their own, by limit.",
                &["limit"],
            ),
            audited: {
                let help = "Entries for the audit log, by outcome of the act; failed_to_write: they could not be written.";
                let audited = vec("heddle_audit_entries_total", help, "outcome", &[FAILED_TO_WRITE]);
                for outcome in Written::ALL {
                    audited.with_label_values(&[outcome.as_str()]);
                }
                audited
            },
            signals: vec(
                "heddle_security_sightings_total",
                "Security signals, by kind; below the threshold of a kind they are no incident.",
                "kind",
                &IncidentKind::ALL.map(IncidentKind::as_str),
            ),
            incidents: vec(
                "heddle_security_incidents_total",
                "Security incidents that began, by kind; one for each tenant until it has ended.",
                "kind",
                &IncidentKind::ALL.map(IncidentKind::as_str),
            ),
            violations: vec(
                "heddle_invariant_violations_total",
                "Violations of an invariant of the engine, each a defect of it.",
                "invariant",
                &Invariant::ALL.map(Invariant::as_str),
            ),
        }
    }

    /// Counts and logs a violation of an invariant, unless it `holds`. `what` names the place and the object.
    pub fn check(&self, invariant: Invariant, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.with_label_values(&[invariant.as_str()]).inc();
            let what = what();
            tracing::error!(
                invariant = invariant.as_str(),
                what,
                "an invariant is violated: this is a defect of heddle"
            );
        }
    }

    /// Counts records fetched from the log.
    pub fn taken(&self, topic: Topic, records: usize) {
        self.records.with_label_values(&[topic.as_str()]).inc_by(records as u64);
    }

    /// Changes the number of a topic's records in work.
    pub fn in_work(&self, topic: Topic, change: i64) {
        self.in_work.add(topic, change);
    }

    /// Counts records as in work until the returned guard is dropped.
    pub(crate) fn while_in_work(&self, topic: Topic, records: usize) -> InWork<'_> {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        self.in_work(topic, records);
        InWork { metrics: self, topic, records }
    }

    /// Returns a partition's share of the entities in memory.
    pub(crate) fn entities(&self, topic: Topic) -> GaugeShare {
        GaugeShare::of(self.entities.with_label_values(&[topic.as_str()]))
    }

    /// Counts a record from a fenced producer.
    pub fn fenced_record(&self) {
        self.fenced_records.inc();
    }

    /// Counts a complete erasure of a contact.
    pub fn forgotten(&self) {
        self.forgotten.inc();
    }

    /// Sets the number of erasures that are not complete, and the age of the oldest.
    pub fn erasures(&self, open: usize, oldest: Duration) {
        self.erasures_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.erasures_oldest.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }

    /// Sets the number of tenant deletions that are not complete, and the age of the oldest.
    pub fn removals(&self, open: usize, oldest: Duration) {
        self.removals_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.removals_oldest.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }

    /// Counts late records of a deleted tenant.
    pub fn of_deleted(&self, records: u64) {
        self.of_deleted.inc_by(records);
    }

    /// Counts a message or report that would have brought back erased data.
    pub fn resurrection(&self) {
        self.resurrections.inc();
    }

    /// Counts the rows that a sweep has read, and those of them that end earlier now.
    pub fn swept_rows(&self, looked_at: usize, shortened: usize) {
        self.swept_rows.with_label_values(&["looked_at"]).inc_by(looked_at as u64);
        self.swept_rows.with_label_values(&["shortened"]).inc_by(shortened as u64);
    }

    /// Returns the number of rows that sweeps have read.
    #[must_use]
    pub fn looked_at_by_sweeps(&self) -> u64 {
        self.swept_rows.with_label_values(&["looked_at"]).get()
    }

    /// Counts a complete sweep.
    pub fn swept(&self) {
        self.sweeps.inc();
    }

    /// Sets the number of partitions that lack some change of retention.
    pub fn sweeps_behind(&self, partitions: usize) {
        self.sweeps_behind.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    /// Counts a message that came too late to be answered.
    pub fn late(&self) {
        self.late.inc();
    }

    /// The loop guard stopped the agent in a conversation.
    pub fn loop_stopped(&self) {
        self.loops.inc();
    }

    /// Counts a turn that was set aside.
    pub fn set_aside(&self, reason: DeadReason) {
        self.set_aside.with_label_values(&[reason.as_str()]).inc();
    }

    /// Turns set aside until now.
    #[must_use]
    pub fn set_aside_total(&self) -> u64 {
        [DeadReason::Unreadable, DeadReason::TooLarge, DeadReason::Shape]
            .into_iter()
            .map(|reason| self.set_aside.with_label_values(&[reason.as_str()]).get())
            .sum()
    }

    /// Sets the number of owned partitions of a topic.
    pub fn owned(&self, topic: Topic, partitions: usize) {
        self.owned.with_label_values(&[topic.as_str()]).set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    /// Returns a partition's share of the agenda entries in memory.
    pub(crate) fn agenda(&self, topic: Topic) -> GaugeShare {
        GaugeShare::of(self.agenda.with_label_values(&[topic.as_str()]))
    }

    /// Returns a partition's share of its topic's lag.
    pub(crate) fn lag(&self, topic: Topic) -> GaugeShare {
        GaugeShare::of(self.lag.with_label_values(&[topic.as_str()]))
    }

    /// Changes the number of parked records of a topic.
    pub fn parked(&self, topic: Topic, change: i64) {
        self.parked.add(topic, change);
    }

    /// Returns the number of parked records.
    #[must_use]
    pub fn parked_records(&self) -> i64 {
        self.parked.inbound.get() + self.parked.outbound.get()
    }

    /// Counts a dead-lettered record.
    pub fn dead(&self, reason: DeadReason) {
        self.dead.with_label_values(&[reason.as_str()]).inc();
    }

    /// Counts a message that was seen before.
    pub fn duplicate(&self) {
        self.duplicates.inc();
    }

    /// Duplicates so far.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.duplicates.get()
    }

    /// Counts a reply that was published again.
    pub fn republished(&self) {
        self.republished.inc();
    }

    /// Counts a decided turn.
    pub fn turn(&self, outcome: &Lenient<Outcome>, seconds: f64) {
        match outcome {
            Lenient::Known(Outcome::Answered) => self.answered.inc(),
            Lenient::Known(Outcome::Silent) => self.silent.inc(),
            Lenient::Known(Outcome::Fallback) => self.fallback.inc(),
            // A node of the later build counts its own turns; this one only publishes it again.
            Lenient::Unknown(_) => {}
        }
        self.turn_seconds.observe(seconds);
    }

    /// Turns so far, of either outcome.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.answered.get() + self.fallback.get() + self.silent.get()
    }

    /// Counts a tool call that was done or refused.
    pub fn tool_called(&self, tool: &'static str, done: bool) {
        self.tools.with_label_values(&[tool, if done { "done" } else { "refused" }]).inc();
    }

    /// Counts a turn that was not answered as usual because this resource is spent.
    pub fn quota_refused(&self, resource: Resource) {
        self.quota_refused.with_label_values(&[resource.as_str()]).inc();
    }

    /// Counts a turn that has waited too long.
    pub fn turn_overdue(&self) {
        self.overdue.inc();
    }

    /// Counts a warning to a tenant.
    pub fn quota_warned(&self, resource: Resource) {
        self.quota_warned.with_label_values(&[resource.as_str()]).inc();
    }

    /// Counts a closed quota lease: messages and calls that count as spent though their outcome is unknown.
    pub fn quota_closed(&self, lost_messages: u64, interrupted: u64) {
        self.quota_lost.inc_by(lost_messages);
        self.quota_interrupted.inc_by(interrupted);
    }

    /// Counts an outside call that was repeated by policy.
    pub fn repeated_call(&self) {
        self.repeated_calls.inc();
    }

    /// Counts a call to a channel, with its duration.
    pub fn sent(&self, result: Result<(), FailureClass>, seconds: f64) {
        self.sends.with_label_values(&[send_result(result)]).inc();
        self.send_seconds.observe(seconds);
    }

    /// Counts an accepted statement about consent.
    pub fn consent(&self, says: Says, how: How) {
        self.consents.with_label_values(&[says.as_str(), how.as_str()]).inc();
    }

    /// Counts a message that was not sent.
    pub fn withheld(&self, why: Withheld) {
        self.withheld.with_label_values(&[why.as_str()]).inc();
    }

    /// Counts a send of unknown outcome.
    pub fn unknown(&self) {
        self.unknown.inc();
    }

    /// Counts a send that panicked.
    pub fn send_panicked(&self) {
        self.send_panics.inc();
    }

    /// Unknown sends so far.
    #[must_use]
    pub fn unknown_total(&self) -> u64 {
        self.unknown.get()
    }

    /// Counts a settled send of unknown outcome.
    pub fn resolved(&self, by: Resolution) {
        let label = match by {
            Resolution::Status => "status",
            Resolution::SentAgain => "sent_again",
            Resolution::GivenUp => "given_up",
        };
        self.resolved.with_label_values(&[label]).inc();
    }

    /// Changes the number of suspended accounts: suspended (1) or resumed (-1).
    pub fn stopped(&self, change: i64) {
        self.stopped.add(change);
    }

    /// Messages went into the backlog, or out of it.
    pub fn backlog(&self, change: i64) {
        self.backlog.add(change);
    }

    /// Counts a retry of a store operation.
    pub fn store_retried(&self, error: &StoreError) {
        let label = match error {
            StoreError::Full { .. } => "full",
            _ => "unavailable",
        };
        self.retries.with_label_values(&[label]).inc();
    }

    /// Counts an entry of the audit log that was written, or (`None`) could not be.
    pub fn audited(&self, outcome: Option<Written>) {
        let label = outcome.map_or(FAILED_TO_WRITE, Written::as_str);
        self.audited.with_label_values(&[label]).inc();
    }

    /// Something was seen with which an incident began, or not.
    pub fn security_signal(&self, kind: IncidentKind, began: bool) {
        self.signals.with_label_values(&[kind.as_str()]).inc();
        if began {
            self.incidents.with_label_values(&[kind.as_str()]).inc();
        }
    }

    /// Returns the number of tenants' records that were refused.
    #[must_use]
    pub fn tenants_refused(&self) -> u64 {
        self.tenants_refused.get()
    }

    /// Counts a tenant's record that was refused.
    pub fn tenant_refused(&self) {
        self.tenants_refused.inc();
    }

    /// Counts a turn or a tool call over a contact's limit.
    pub fn contact_limited(&self, limit: &'static str) {
        self.limited.with_label_values(&[limit]).inc();
    }

    /// Counts a channel's event whose time was too far ahead.
    pub fn future(&self) {
        self.future.inc();
    }

    /// Counts a change of who is who.
    pub fn identity(&self, change: &'static str) {
        self.identities.with_label_values(&[change]).inc();
    }

    /// Counts a channel's event that was not accepted.
    pub fn dropped(&self, reason: &'static str) {
        self.foreign.with_label_values(&[reason]).inc();
    }
}
