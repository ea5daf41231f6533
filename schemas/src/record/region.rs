//! To which region stores belong, as it stands in them: in a row of the state store, and with Kafka in topic tenants as
//! well, under the key of no tenant ([`crate::id::TenantId::engine`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::V;
use crate::time::Timestamp;

/// What stores are bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegionRecord {
    /// Version.
    pub v: V,
    /// When it was written, microseconds since 1970.
    pub at: Timestamp,
    /// The region.
    pub region: String,
    /// The state store: `embedded`, or the keyspace.
    pub state: String,
    /// The log: `embedded`, or what the topics' names begin with.
    pub log: String,
}
