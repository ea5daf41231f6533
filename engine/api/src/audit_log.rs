//! Operations on the audit log, and the verification of what tenants are promised.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use heddle_schemas::audit::chain::{Noted, Verdict};
use heddle_schemas::audit::{Entry, What};
use heddle_schemas::id::TenantId;
use heddle_schemas::promise::Proofs;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::content::{List, Nothing};
use crate::operation::{NoParameters, Parameters, operations};

/// Entries of the audit log of one answer at most.
pub const ENTRIES: usize = 500;

operations! {
    /// Verifies everything that a tenant is promised, promise by promise; without a tenant, what is no tenant's. It reads
    /// all that is stored, and takes as long.
    Prove: GET "/v1/audit" (NoParameters, OfChain, Nothing) -> 200 Proofs;
        Named, Admin, Before |input, contact| Some(What::Prove), within Duration::from_secs(6 * 3_600);

    /// The audit log: who did what, when and why, in order.
    ListAuditLog: GET "/v1/audit/log" (NoParameters, Entries, Nothing) -> 200 List<Entry>;
        Named, Admin, Never;

    /// Verifies that an audit log is as it was written, and says where it is not.
    VerifyAuditLog: GET "/v1/audit/log/verification" (NoParameters, Chain, Nothing) -> 200 Verdict;
        Named, Admin, Never;

    /// Begins an audit log anew behind a break that keeps it from going on; the break shows for ever.
    ResumeAuditLog: POST "/v1/audit/log/resumption" (NoParameters, OfChain, Nothing) -> 200 Entry;
        Named, Owner, Within |input, contact| Some(What::Resume);
}

/// An audit log.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfChain {
    /// The tenant's; without one, that of what is no tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
}

impl Parameters for OfChain {
    fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }
}

/// Entries of an audit log.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entries {
    /// The tenant's; without one, that of what is no tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Those from this number on; without it, from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Entries at most, 500 by default; 0 counts as 1, more than 500 as 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Parameters for Entries {
    fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }
}

/// An audit log, and what is known of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The tenant's; without one, that of what is no tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Entries that were noted before, as `number:hash`, with commas between them: they must be in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted: Option<NotedEntries>,
}

impl Parameters for Chain {
    fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }
}

/// Entries that somebody noted, written `number:hash` with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedEntries(pub Vec<Noted>);

impl fmt::Display for NotedEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl FromStr for NotedEntries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for NotedEntries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NotedEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for NotedEntries {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NotedEntries".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]{1,19}:[0-9a-f]{64}(,[0-9]{1,19}:[0-9a-f]{64})*$",
        })
    }
}
