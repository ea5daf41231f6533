//! Topic tenants: the configuration of each tenant, its secrets sealed. Compacted by tenant.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::version::{Step, after};
use super::{V, Versioned};
use crate::id::AccountKey;
use crate::retention::Former;
use crate::sealed::Sealed;
use crate::tenant::Tenant;
use crate::time::Timestamp;

/// Steps from each version of these records to the next.
const STEPS: &[Step] = &[];
/// The version that this build writes.
pub const VERSION: u16 = after(STEPS);

/// A record of topic tenants. An empty value deletes the tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TenantRecord {
    /// Version.
    pub v: V<{ VERSION }>,
    /// Time at which it was applied, microseconds since 1970.
    pub at: Timestamp,
    /// The configuration; its secrets read `[redacted]`.
    pub config: Tenant,
    /// Number of changes of `retention`.
    #[serde(default)]
    pub retentions: u64,
    /// Previous retentions, where rows may be left that were promised them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
    /// [`TenantSecrets`], bound to topic tenants and the tenant's id. In records from before channels had keys of
    /// their own, those of channels too.
    pub secrets: Sealed,
    /// The credentials of each channel account, [`TenantSecrets`] under a key of the account's own, bound to topic
    /// tenants and the account: where that key is gone, so is the account.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<AccountKey, Sealed>,
}

impl Versioned for TenantRecord {
    const STEPS: &'static [Step] = STEPS;
}

/// Plaintext of a ciphertext of a [`TenantRecord`]: each secret by its place in the configuration.
pub type TenantSecrets = BTreeMap<String, String>;
