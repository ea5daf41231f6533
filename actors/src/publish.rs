//! Records on their way out: each kind in the partition that its topic is keyed by.

use bytes::Bytes;
use heddle_schemas::ports::log::{NewRecord, Record};
use heddle_schemas::record::dlq::{DeadLetter, DeadReason};
use heddle_schemas::record::event::EventRecord;
use heddle_schemas::record::inbound::InboundRecord;
use heddle_schemas::record::outbound::OutboundRecord;
use heddle_schemas::record::{V, encode};
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
        value: encode(record),
    }
}

/// The record in the partition of its account.
#[must_use]
pub fn outbound(ports: &Ports, record: &OutboundRecord) -> NewRecord {
    let account = record.conversation.account();
    NewRecord {
        partition: outbound_partition(&account, ports.log.partitions(Topic::Outbound)),
        key: Bytes::from(account.to_string()),
        value: encode(record),
    }
}

/// The record in the partition of its tenant.
#[must_use]
pub fn event(ports: &Ports, record: &EventRecord) -> NewRecord {
    let partitions = ports.log.partitions(Topic::Events);
    NewRecord {
        partition: tenant_partition(Topic::Events, &record.tenant, partitions),
        key: Bytes::copy_from_slice(record.tenant.as_str().as_bytes()),
        value: encode(record),
    }
}

/// What is left of a record that could not be processed, and counts it.
#[must_use]
pub fn dead_letter(
    ports: &Ports,
    record: &Record,
    reason: DeadReason,
    detail: String,
    attempts: u32,
) -> NewRecord {
    ports.metrics.dead(reason);
    tracing::warn!(
        from = %record.partition, offset = record.offset, reason = reason.as_str(), detail,
        "a record was given up"
    );
    let letter = DeadLetter {
        v: V,
        at: ports.clock.now(),
        from: record.partition,
        offset: record.offset,
        reason,
        detail,
        attempts,
        original: Sealed::from_bytes(record.value.clone()),
    };
    let partitions = ports.log.partitions(Topic::Dlq).max(1);
    NewRecord {
        partition: TopicPartition { topic: Topic::Dlq, partition: record.partition.partition % partitions },
        key: record.key.clone(),
        value: encode(&letter),
    }
}
