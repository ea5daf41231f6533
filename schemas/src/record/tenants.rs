//! Topic tenants: the configuration of each tenant, its secrets sealed. Compacted by tenant.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::version::{Step, after};
use super::{V, Versioned};
use crate::id::{AccountKey, MessageKey};
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
    /// MAC of the record under a key derived from the tenant's, hexadecimal: of all its bytes before the comma that
    /// precedes this field, which is the last. Records of builds before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MessageKey>,
}

/// Domain of the hash that is the MAC of a record.
pub const MAC_DOMAIN: &str = "tenant record";

/// Place in [`TenantSecrets`] of no secret, which says that the record around it has a MAC: without, what was sealed with
/// one would pass for a record of a build before, beside another configuration.
pub const AUTHENTICATED: &str = "record.authenticated";

/// Adds the MAC to a record's bytes, which `hash` makes of them.
///
/// # Panics
/// Never: a record is a JSON object.
#[must_use]
pub fn authenticate(record: &[u8], hash: impl FnOnce(&[u8]) -> MessageKey) -> Bytes {
    let body = record.strip_suffix(b"}").expect("a record is a JSON object");
    let end = mac_field(&hash(body));
    [body, end.as_bytes()].concat().into()
}

/// Returns whether the last field of a record's bytes is this MAC, and `hash` makes it of those before.
#[must_use]
pub fn is_authentic(record: &[u8], mac: &MessageKey, hash: impl FnOnce(&[u8]) -> MessageKey) -> bool {
    record.strip_suffix(mac_field(mac).as_bytes()).is_some_and(|body| hash(body) == *mac)
}

fn mac_field(mac: &MessageKey) -> String {
    format!(",\"mac\":\"{mac}\"}}")
}

impl Versioned for TenantRecord {
    const STEPS: &'static [Step] = STEPS;
}

/// Plaintext of a ciphertext of a [`TenantRecord`]: each secret by its place in the configuration.
pub type TenantSecrets = BTreeMap<String, String>;
