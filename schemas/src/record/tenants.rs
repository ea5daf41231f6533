//! Topic tenants: the configuration of each tenant, its secrets sealed. Compacted by tenant.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::V;
use crate::retention::Former;
use crate::sealed::Sealed;
use crate::tenant::Tenant;
use crate::time::Timestamp;

/// A record of topic tenants. An empty value removes the tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TenantRecord {
    /// Version.
    pub v: V,
    /// When it was applied, microseconds since 1970.
    pub at: Timestamp,
    /// The configuration; its secrets read `[redacted]`.
    pub config: Tenant,
    /// How often `retention` has been changed.
    #[serde(default)]
    pub retentions: u64,
    /// What it was before, where rows may be left that were promised it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
    /// [`TenantSecrets`], bound to topic tenants and the tenant's id.
    pub secrets: Sealed,
}

/// What is inside the ciphertext of a [`TenantRecord`]: each secret by its place in the configuration.
pub type TenantSecrets = BTreeMap<String, String>;
