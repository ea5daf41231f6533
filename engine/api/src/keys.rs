//! Operations on master keys: which wraps what, and rotation to the present one.

use heddle_schemas::audit::What;
use heddle_schemas::id::TenantId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::Nothing;
use crate::operation::{NoParameters, operations};

operations! {
    /// Master keys, and the number of tenants whose keys each wraps.
    ShowKeys: GET "/v1/keys" (NoParameters, NoParameters, Nothing) -> 200 KeysStatus;
        Installation, Admin, Never;

    /// Wraps the keys of a page of tenants by the present master key. Doing it twice does no harm.
    RotateKeys: POST "/v1/keys/rotate" (NoParameters, NoParameters, Rotate) -> 200 Rotated;
        Installation, Owner, Around |input, contact| Some(What::KeysRotate);
}

/// Tenants whose keys are rewrapped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// Only tenants whose ids come after this one: where the request before said to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<TenantId>,
    /// Tenants at most; 1 to 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// First make a new version of the master key, where it is kept in Vault.
    pub new_version: bool,
}

/// Result of a rotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rotated {
    /// Tenants whose keys are wrapped by the present master key now.
    pub rewrapped: u64,
    /// Tenants whose keys were before.
    pub already: u64,
    /// Tenants that have been erased.
    pub erased: u64,
    /// Tenants that have no key yet.
    pub missing: u64,
    /// Tenants whose keys are as they were.
    pub failed: Vec<Failed>,
    /// The tenant after which to go on; absent when all had their turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<TenantId>,
    /// True once everything is wrapped by the present master key: former ones are not needed any more.
    pub complete: bool,
}

/// A tenant whose key could not be dealt with.
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
    /// It wraps from now on.
    Present,
    /// It opens what it wrapped before.
    Former,
    /// This node does not have it: what it wrapped cannot be read.
    Unknown,
}

impl Role {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Former => "former",
            Self::Unknown => "unknown",
        }
    }
}

/// A master key, or a version of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MasterStatus {
    /// Its id, as messages name it.
    pub id: String,
    /// The version, where it is kept in Vault and wraps something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Its role.
    pub role: Role,
    /// The place where it is kept; absent where this node does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// Tenants whose keys it wraps.
    pub tenants: u64,
    /// True where the store knows its master key by this one.
    pub store: bool,
}

impl MasterStatus {
    /// Returns whether it is in the configuration and not needed.
    #[must_use]
    pub fn can_go(&self) -> bool {
        self.role == Role::Former && self.tenants == 0 && !self.store
    }
}

/// Master keys and what they wrap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeysStatus {
    /// The present one first, then former ones, then those that are not known.
    pub masters: Vec<MasterStatus>,
    /// Tenants that have been erased.
    pub erased: u64,
    /// Tenants that have no key yet.
    pub missing: u64,
    /// Tenants whose rows cannot be read.
    pub failed: Vec<Failed>,
}
