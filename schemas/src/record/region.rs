//! Region of the stores, as they record it: in a row of the state store, and with Kafka in topic tenants as well, under
//! the key of no tenant ([`crate::id::TenantId::engine`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::version::{Step, after};
use super::{V, Versioned};
use crate::time::Timestamp;

/// Steps from each version of these records to the next.
const STEPS: &[Step] = &[];
/// The version that this build writes.
pub const VERSION: u16 = after(STEPS);

/// Binding of a store to its region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegionRecord {
    /// Version.
    pub v: V<{ VERSION }>,
    /// Time at which it was written, microseconds since 1970.
    pub at: Timestamp,
    /// The region.
    pub region: String,
    /// The state store: `embedded`, or the keyspace.
    pub state: String,
    /// The log: `embedded`, or what the topics' names begin with.
    pub log: String,
}

impl Versioned for RegionRecord {
    const STEPS: &'static [Step] = STEPS;
}
