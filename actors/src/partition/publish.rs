//! Records on their way out: each kind in the partition that its topic is keyed by.

use bytes::Bytes;
use heddle_schemas::id::{ConversationId, TenantId};
use heddle_schemas::ports::keys::Cipher;
use heddle_schemas::ports::log::{Log, NewRecord, Record};
use heddle_schemas::record::dlq::{DeadLetter, DeadReason};
use heddle_schemas::record::event::EventRecord;
use heddle_schemas::record::inbound::InboundRecord;
use heddle_schemas::record::outbound::OutboundRecord;
use heddle_schemas::record::{V, decode, encode, encode_as};
use heddle_schemas::sealed::Sealed;
use heddle_schemas::topic::{Topic, TopicPartition, inbound_partition, outbound_partition, tenant_partition};

use crate::ports::Ports;

/// The record in the partition of its conversation.
#[must_use]
pub fn inbound(ports: &Ports, record: &InboundRecord) -> NewRecord {
    let partitions = ports.log.partitions(Topic::Inbound);
    NewRecord {
        partition: inbound_partition(&record.conversation, partitions),
        key: Bytes::from(record.conversation.to_string()),
        value: encode_as(record, ports.versions.writes(Topic::Inbound)),
    }
}

/// The record in the partition of its account.
#[must_use]
pub fn outbound(ports: &Ports, record: &OutboundRecord) -> NewRecord {
    let (partition, key) = of_account(ports, &record.conversation);
    NewRecord { partition, key, value: encode_as(record, ports.versions.writes(Topic::Outbound)) }
}

/// The record in the partition of its tenant.
#[must_use]
pub fn event(ports: &Ports, record: &EventRecord) -> NewRecord {
    event_into(&*ports.log, record)
}

/// The same, for callers that have the log alone.
#[must_use]
pub fn event_into(log: &dyn Log, record: &EventRecord) -> NewRecord {
    let (partition, key) = of_tenant(log, &record.tenant);
    NewRecord { partition, key, value: encode(record) }
}

/// Where a conversation publishes to. It never changes, and finding it takes two hashes.
#[derive(Debug)]
pub struct Routes {
    account: (TopicPartition, Bytes),
    tenant: (TopicPartition, Bytes),
    outbound_version: u16,
}

impl Routes {
    /// Of this conversation.
    #[must_use]
    pub fn of(ports: &Ports, conversation: &ConversationId) -> Self {
        Self {
            account: of_account(ports, conversation),
            tenant: of_tenant(&*ports.log, &conversation.tenant),
            outbound_version: ports.versions.writes(Topic::Outbound),
        }
    }

    /// As [`outbound`].
    #[must_use]
    pub fn outbound(&self, record: &OutboundRecord) -> NewRecord {
        let (partition, key) = self.account.clone();
        NewRecord { partition, key, value: encode_as(record, self.outbound_version) }
    }

    /// As [`event`].
    #[must_use]
    pub fn event(&self, record: &EventRecord) -> NewRecord {
        let (partition, key) = self.tenant.clone();
        NewRecord { partition, key, value: encode(record) }
    }
}

fn of_account(ports: &Ports, conversation: &ConversationId) -> (TopicPartition, Bytes) {
    let account = conversation.account();
    let partition = outbound_partition(&account, ports.log.partitions(Topic::Outbound));
    (partition, Bytes::from(account.to_string()))
}

fn of_tenant(log: &dyn Log, tenant: &TenantId) -> (TopicPartition, Bytes) {
    let partition = tenant_partition(Topic::Events, tenant, log.partitions(Topic::Events));
    (partition, Bytes::copy_from_slice(tenant.as_str().as_bytes()))
}

/// Returns the dead letter of a record of the engine's own that could not be processed, and counts it.
#[must_use]
pub fn dead_letter(
    ports: &Ports,
    record: &Record,
    reason: DeadReason,
    detail: String,
    attempts: u32,
) -> NewRecord {
    let original = Some(Sealed::from_bytes(record.value.clone()));
    letter(ports, record, record.key.clone(), (reason, detail, attempts), (None, original))
}

/// Returns the same dead letter without its original record.
#[must_use]
pub(crate) fn without_original(letter: &NewRecord) -> NewRecord {
    let value = decode::<DeadLetter>(&letter.value)
        .map_or_else(|_| letter.value.clone(), |letter| encode(&DeadLetter { original: None, ..letter }));
    NewRecord { value, ..letter.clone() }
}

/// Returns the dead letter of a record of ingress that could not be accepted, and counts it. `detail` must repeat
/// nothing of it. It is kept under the key of its tenant, or, without one, not at all.
#[must_use]
pub fn dead_plaintext(
    ports: &Ports,
    record: &Record,
    reason: DeadReason,
    detail: String,
    keep: Option<(&TenantId, &dyn Cipher)>,
) -> NewRecord {
    let original = keep.map(|(tenant, cipher)| {
        (tenant.clone(), cipher.seal(&DeadLetter::aad(record.partition, record.offset), &record.value))
    });
    // The record's own key may be a phone number.
    let key = Bytes::from(format!("{}/{}", record.partition, record.offset));
    letter(ports, record, key, (reason, detail, 1), original.unzip())
}

fn letter(
    ports: &Ports,
    record: &Record,
    key: Bytes,
    (reason, detail, attempts): (DeadReason, String, u32),
    (tenant, original): (Option<TenantId>, Option<Sealed>),
) -> NewRecord {
    ports.metrics.dead(reason);
    tracing::warn!(
        from = %record.partition, offset = record.offset, reason = reason.as_str(), detail,
        "a record is dead-lettered"
    );
    let letter = DeadLetter {
        v: V,
        at: ports.clock.now(),
        from: record.partition,
        offset: record.offset,
        reason: reason.into(),
        detail,
        attempts,
        bytes: record.value.len() as u64,
        tenant,
        original,
    };
    let partitions = ports.log.partitions(Topic::Dlq).max(1);
    NewRecord {
        partition: TopicPartition { topic: Topic::Dlq, partition: record.partition.partition % partitions },
        key,
        value: encode(&letter),
    }
}
