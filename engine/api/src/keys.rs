//! Operations on key-encryption keys (master keys): their status, and rotation to the current one.

use heddle_schemas::audit::What;
use heddle_schemas::id::TenantId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::Nothing;
use crate::operation::{NoParameters, operations};

operations! {
    /// Shows the master keys, with the number of tenants whose keys each wraps.
    ShowKeys: GET "/v1/keys" (NoParameters, NoParameters, Nothing) -> 200 KeysStatus;
        Installation, Admin, Never;

    /// Wraps the keys of a page of tenants with the current master key. Idempotent.
    RotateKeys: POST "/v1/keys/rotate" (NoParameters, NoParameters, Rotate) -> 200 Rotated;
        Installation, Owner, Around |input, contact| Some(What::KeysRotate);
}

/// Page of tenants whose keys to rewrap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// Only tenants whose ids come after this one: the `next` of the previous answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<TenantId>,
    /// Maximum number of tenants, 1 to 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// First create a new version of the master key; Vault only.
    pub new_version: bool,
}

/// Result of a rotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rotated {
    /// Tenants whose keys this request wrapped with the current master key.
    pub rewrapped: u64,
    /// Tenants whose keys it wrapped already.
    pub already: u64,
    /// Tenants that have been erased.
    pub erased: u64,
    /// Tenants that have no key yet.
    pub missing: u64,
    /// Tenants whose keys could not be rewrapped and are unchanged.
    pub failed: Vec<Failed>,
    /// Cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<TenantId>,
    /// True once the current master key wraps every key: previous master keys are not needed any more.
    pub complete: bool,
}

/// Tenant whose key could not be read or rewrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The tenant.
    pub tenant: TenantId,
    /// The reason.
    pub why: String,
}

/// Role of a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Wraps new keys.
    Present,
    /// Previous key: unwraps what it wrapped before.
    Former,
    /// Not in this node's configuration: what it wrapped cannot be read.
    Unknown,
}

impl Role {
    /// Returns the name of the role.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Former => "former",
            Self::Unknown => "unknown",
        }
    }
}

/// Status of a master key, or of a version of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MasterStatus {
    /// Its id, as error texts name it.
    pub id: String,
    /// The version of a key in Vault that wraps at least one key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Its role.
    pub role: Role,
    /// Its location; absent where this node does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// Number of tenants whose keys it wraps.
    pub tenants: u64,
    /// True where it wraps the store's own key check.
    pub store: bool,
}

impl MasterStatus {
    /// Returns whether it is configured but not needed any more.
    #[must_use]
    pub fn can_go(&self) -> bool {
        self.role == Role::Former && self.tenants == 0 && !self.store
    }
}

/// Status of all master keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeysStatus {
    /// The current one first, then previous ones, then unknown ones.
    pub masters: Vec<MasterStatus>,
    /// Tenants that have been erased.
    pub erased: u64,
    /// Tenants that have no key yet.
    pub missing: u64,
    /// Tenants whose rows cannot be read.
    pub failed: Vec<Failed>,
}
