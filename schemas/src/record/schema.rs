//! JSON Schema of every record, generated from the types and checked in beside them.
//!
//! `UPDATE_SCHEMAS=1 cargo test -p heddle-schemas` writes the files anew; without it a test fails
//! when a file and its type have drifted apart.

use schemars::{Schema, schema_for};

use super::dlq::DeadLetter;
use super::event::EventRecord;
use super::inbound::InboundRecord;
use super::ingress::IngressRecord;
use super::outbound::OutboundRecord;
use super::tenants::TenantRecord;
use crate::topic::Topic;

/// The schema of a topic's records.
#[must_use]
pub fn of(topic: Topic) -> Schema {
    match topic {
        Topic::Ingress => schema_for!(IngressRecord),
        Topic::Inbound => schema_for!(InboundRecord),
        Topic::Outbound => schema_for!(OutboundRecord),
        Topic::Tenants => schema_for!(TenantRecord),
        Topic::Events => schema_for!(EventRecord),
        Topic::Dlq => schema_for!(DeadLetter),
    }
}
