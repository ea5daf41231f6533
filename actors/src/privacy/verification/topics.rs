//! Verification of the log: the newest records of every topic but ingress, which may hold plain text for its hours.

use std::time::Duration;

use aho_corasick::AhoCorasick;
use heddle_schemas::id::ConversationId;
use heddle_schemas::ports::log::{FetchLimit, Record};
use heddle_schemas::promise::{Promise, Proof};
use heddle_schemas::record::dlq::DeadLetter;
use heddle_schemas::record::event::EventRecord;
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord};
use heddle_schemas::record::log_aad;
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::record::tenants::TenantRecord;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};

use super::form::{self, Reader, Wrong};
use super::times::due_by;
use super::{ProveError, Prover};
use crate::partition::commit::read;

/// Records that are read at once, and their bytes.
const PAGE: FetchLimit = FetchLimit { records: 500, bytes: 4 << 20 };
/// Allowed delay of a record's end.
const LATE: Duration = Duration::from_secs(3_600);
/// Records of the tenant that are opened.
const OPENED: u64 = 2_000;

/// Check of topics.
pub(super) struct Topics<'a> {
    pub(super) prover: &'a Prover,
    pub(super) tenant: &'a Tenant,
    pub(super) at: Timestamp,
    /// As [`super::times::Late::resumed`].
    pub(super) resumed: Option<Timestamp>,
    pub(super) probes: AhoCorasick,
}

/// Findings in the topics.
#[derive(Default)]
struct Seen {
    records: u64,
    of_tenant: u64,
    opened: u64,
}

impl Topics<'_> {
    /// Checks the topics. Returns the findings about credentials and about the retention of records.
    pub(super) async fn prove(
        &self,
        reader: &mut Reader,
        encryption: &mut Proof,
        isolation: &mut Proof,
    ) -> Result<(Proof, Proof), ProveError> {
        let mut kept = Proof::new(Promise::Topics);
        let mut credentials = Proof::new(Promise::Credentials);
        let mut seen = Seen::default();
        for topic in Topic::ALL {
            let mut oldest: Option<Timestamp> = None;
            for partition in 0..self.prover.ports.log.partitions(topic) {
                let partition = TopicPartition { topic, partition };
                if !topic.is_compacted() {
                    oldest = oldest.into_iter().chain(self.oldest(partition).await?).min();
                }
                // Third parties publish plain text by their choice, and it ends with its hours.
                if topic != Topic::Ingress {
                    let found = (&mut *encryption, &mut *isolation, &mut credentials);
                    self.read(partition, reader, &mut seen, found).await?;
                }
            }
            self.is_kept_too_long(topic, oldest, &mut kept);
        }
        let oldest = self.prover.oldest_record;
        let held = humantime::format_duration(oldest);
        kept.saw(format!("as configured, records are gone when they are {held} old"));
        for topic in Topic::ALL {
            if let Some((kind, promised)) = self.tenant.retention.shortest_in(topic)
                && oldest > promised
            {
                let promised = humantime::format_duration(promised);
                kept.fault(format!(
                    "{topic} holds records for {held}, and {kind} are to be gone after {promised}"
                ));
            }
        }
        encryption.count(seen.of_tenant);
        isolation.count(seen.of_tenant);
        let searched_for = match self.probes.patterns_len() {
            0 => "customers have written nothing to look for".to_owned(),
            texts => format!("searched for {texts} things that customers wrote"),
        };
        encryption.saw(format!(
            "{} records of topics, {} of them the tenant's: {searched_for}",
            seen.records, seen.of_tenant,
        ));
        Ok((credentials, kept))
    }

    /// Returns the time at which the oldest existing record was appended.
    async fn oldest(&self, partition: TopicPartition) -> Result<Option<Timestamp>, ProveError> {
        let log = &self.prover.ports.log;
        let first = FetchLimit { records: 1, bytes: 1 };
        Ok(read(&self.prover.ports.metrics, || log.look(partition, 0, first))
            .await?
            .first()
            .map(|record| record.at))
    }

    fn is_kept_too_long(&self, topic: Topic, oldest: Option<Timestamp>, kept: &mut Proof) {
        let Some(oldest) = oldest else { return };
        let age = self.at.since(oldest);
        kept.count(1);
        kept.saw(format!(
            "{topic} begins {} ago",
            humantime::format_duration(Duration::from_secs(age.as_secs()))
        ));
        // Brokers check at intervals, and a record that is not settled yet stays until it is.
        let bound = self.prover.oldest_record + LATE;
        if let Some(by) = due_by(self.resumed, oldest.after(bound), LATE, self.at) {
            kept.saw(format!("{topic}: a record of {oldest} was due while nothing ran; it is gone by {by}"));
        } else if age > bound {
            let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
            kept.fault(format!("{topic}: a record of {oldest} is still there, after {age}"));
        }
    }

    /// Reads the newest records of a partition.
    async fn read(
        &self,
        partition: TopicPartition,
        reader: &mut Reader,
        seen: &mut Seen,
        (encryption, isolation, credentials): (&mut Proof, &mut Proof, &mut Proof),
    ) -> Result<(), ProveError> {
        let ports = &self.prover.ports;
        let end: Offset = read(&ports.metrics, || ports.log.end(partition)).await?;
        let mut from = end.saturating_sub(self.prover.records);
        while from < end {
            let page = read(&ports.metrics, || ports.log.look(partition, from, PAGE)).await?;
            let Some(last) = page.last() else { break };
            from = last.offset + 1;
            for record in &page {
                seen.records += 1;
                let place = || format!("{partition} at {}", record.offset);
                if self.probes.is_match(&record.value) || self.probes.is_match(&record.key) {
                    encryption.fault(format!("{}: what a customer wrote stands there in the clear", place()));
                }
                if partition.topic == Topic::Tenants {
                    self.credentials(record, credentials, &place);
                    continue;
                }
                let Some(of) = self.of_tenant(record) else { continue };
                seen.of_tenant += 1;
                if let Some(conversation) = &of.conversation
                    && let Some(owner) =
                        self.prover.tenants.by_account(conversation.channel, &conversation.account)
                    && owner.id != self.tenant.id
                {
                    isolation.fault(format!("{}: its account is tenant {}'s", place(), owner.id));
                }
                if let Err(detail) = of.form {
                    encryption.fault(format!("{}: {detail}", place()));
                }
                for (aad, sealed) in of.sealed {
                    if seen.opened >= OPENED {
                        break;
                    }
                    seen.opened += 1;
                    match reader.open_logged(&aad, &sealed).await? {
                        Ok(()) | Err(Wrong::Gone(_)) => {}
                        Err(Wrong::Form(detail)) => encryption.fault(format!("{}: {detail}", place())),
                        Err(Wrong::Foreign(detail)) => isolation.fault(format!("{}: {detail}", place())),
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the content of a record of this tenant; `None` for others'.
    fn of_tenant(&self, record: &Record) -> Option<OfTenant> {
        let whose: Whose = serde_json::from_slice(&record.value).ok()?;
        let tenant = whose.tenant.or_else(|| Some(whose.conversation.as_ref()?.tenant.to_string()))?;
        if tenant != self.tenant.id.as_str() {
            return None;
        }
        let mut sealed = Vec::new();
        let form = match record.partition.topic {
            Topic::Inbound => form::record::<InboundRecord>(&record.value).map(|record| {
                if let InboundEvent::Customer(act) = record.event {
                    sealed.push((log_aad(Topic::Inbound, &act.key), act.sealed));
                }
            }),
            Topic::Outbound => form::record::<OutboundRecord>(&record.value).map(|record| {
                if let OutboundCommand::Send(send) = record.command {
                    sealed.push((log_aad(Topic::Outbound, &send.id), send.sealed));
                }
            }),
            Topic::Events => form::record::<EventRecord>(&record.value).map(drop),
            Topic::Dlq => form::record::<DeadLetter>(&record.value).map(|dead| {
                if let (Some(_), Some(original)) = (dead.tenant, dead.original) {
                    sealed.push((DeadLetter::aad(dead.from, dead.offset), original));
                }
            }),
            Topic::Ingress | Topic::Tenants => Ok(()),
        };
        Some(OfTenant { conversation: whose.conversation, form, sealed })
    }

    /// Checks that no secret of the tenant is in its record.
    fn credentials(&self, record: &Record, proof: &mut Proof, place: &dyn Fn() -> String) {
        if record.key != self.tenant.id.as_str().as_bytes() || record.value.is_empty() {
            return;
        }
        let mut tenant = self.tenant.clone();
        let secrets = tenant.secrets_mut();
        // Secrets of only a few characters are found in any text.
        let secrets = secrets.iter().filter(|(_, secret)| secret.expose().len() >= 8);
        let mut looked_for = 0_u64;
        for (name, secret) in secrets {
            looked_for += 1;
            let written = serde_json::to_string(secret.expose()).unwrap_or_default();
            let text = written.trim_matches('"').as_bytes();
            if record.value.windows(text.len()).any(|window| window == text) {
                proof.fault(format!("{}: {name} stands there in the clear", place()));
            }
        }
        match form::record::<TenantRecord>(&record.value) {
            Ok(_) => {
                proof.count(looked_for);
                proof.saw(format!("{}: {looked_for} secrets looked for", place()));
            }
            Err(detail) => proof.fault(format!("{}: {detail}", place())),
        }
    }
}

/// Record of the tenant.
struct OfTenant {
    conversation: Option<ConversationId>,
    form: Result<(), String>,
    sealed: Vec<(Vec<u8>, heddle_schemas::sealed::Sealed)>,
}

/// Fields that identify a record's tenant.
#[derive(serde::Deserialize)]
struct Whose {
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    conversation: Option<ConversationId>,
}
