//! Operations on the audit log, and the verification of the promises made to tenants.

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

/// Maximum number of audit log entries in one answer.
pub const ENTRIES: usize = 500;

operations! {
    /// Verifies each promise made to a tenant; without a tenant, the data that belongs to no tenant. Reads everything
    /// that is stored, so it can run for a long time.
    Prove: GET "/v1/audit" (NoParameters, OfChain, Nothing) -> 200 Proofs;
        Named, Admin, Before |input, contact| Some(What::Prove), within Duration::from_secs(6 * 3_600);

    /// Lists the audit log in order: who did what, when and why.
    ListAuditLog: GET "/v1/audit/log" (NoParameters, Entries, Nothing) -> 200 List<Entry>;
        Named, Admin, Never;

    /// Verifies that an audit log is unchanged since it was written, and reports each place where it is not.
    VerifyAuditLog: GET "/v1/audit/log/verification" (NoParameters, Chain, Nothing) -> 200 Verdict;
        Named, Admin, Never;

    /// Resumes an audit log after a break that blocks it; the break stays visible for ever.
    ResumeAuditLog: POST "/v1/audit/log/resumption" (NoParameters, OfChain, Nothing) -> 200 Entry;
        Named, Owner, Within |input, contact| Some(What::Resume);
}

/// Selector of an audit log.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfChain {
    /// Tenant of the audit log; without one, the log of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
}

impl Parameters for OfChain {
    fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }
}

/// Page of an audit log's entries.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entries {
    /// Tenant of the audit log; without one, the log of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Number of the first entry; the first of the log by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Maximum number of entries, 500 by default; 0 counts as 1, more than 500 as 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Parameters for Entries {
    fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }
}

/// Audit log to verify, and the entries that the caller knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Tenant of the audit log; without one, the log of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Entries noted earlier, as `number:hash` separated by commas: the log must contain them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted: Option<NotedEntries>,
}

impl Parameters for Chain {
    fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }
}

/// Entries that a caller noted earlier, written `number:hash` and separated by commas.
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
