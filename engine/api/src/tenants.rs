//! Operations on tenants: configuration, channels, usage, export, deletion.

use heddle_schemas::audit::What;
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, TenantId};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::tenant::changes::TenantChanges;
use heddle_schemas::tenant_deletion::DeletionRecord;
use heddle_schemas::zone::Month;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};

use crate::content::{Lines, List, Nothing};
use crate::operation::{NoParameters, Parameters, operations};
use crate::usage::Usage;

operations! {
    /// Lists every tenant by id; secrets read `[redacted]`.
    ListTenants: GET "/v1/tenants" (NoParameters, NoParameters, Nothing) -> 200 List<Tenant>;
        Installation, Member, Never;

    /// Shows one tenant; secrets read `[redacted]`.
    ShowTenant: GET "/v1/tenants/{tenant}" (OfTenant, NoParameters, Nothing) -> 200 Tenant;
        Tenant, Member, Never;

    /// Compares a configuration with the tenant's present one: the changes that applying it would make. Changes nothing
    /// and shows no secret.
    CompareTenant: POST "/v1/tenants/{tenant}/changes" (OfTenant, NoParameters, Configuration) -> 200 TenantChanges;
        Installation, Admin, Never;

    /// Applies a tenant's configuration. Secrets are literals here.
    ApplyTenant: PUT "/v1/tenants/{tenant}" (OfTenant, NoParameters, Configuration) -> 200 Tenant;
        Installation, Admin, Around |input, contact| Some(What::TenantApply);

    /// Deletes the tenant: stops it and destroys its key at once, then removes its rows. Idempotent; the id cannot be
    /// used again.
    DeleteTenant: DELETE "/v1/tenants/{tenant}" (OfTenant, NoParameters, Nothing) -> 202 DeletionRecord;
        Installation, Owner, Opened |input, contact| Some(What::TenantErase { tenant: input.path.tenant.clone() });

    /// Exports all data stored for the tenant, decrypted and without secrets, as a stream with a line of JSON for each
    /// item. An interruption closes the connection.
    ExportTenant: GET "/v1/tenants/{tenant}/export" (OfTenant, NoParameters, Nothing) -> 200 Lines;
        Tenant, Owner, Opened |input, contact| Some(What::TenantExport), within std::time::Duration::from_secs(24 * 3_600);

    /// Lists every tenant deletion by id.
    ListDeletions: GET "/v1/deletions" (NoParameters, NoParameters, Nothing) -> 200 List<DeletionRecord>;
        Installation, Member, Never;

    /// Shows the progress of a tenant deletion; once complete, it is the receipt.
    ShowDeletion: GET "/v1/deletions/{tenant}" (Deleted, NoParameters, Nothing) -> 200 DeletionRecord;
        Installation, Member, Never;

    /// Disconnects a channel account: erases its credentials, refuses its webhooks and withholds its pending sends.
    /// Idempotent.
    DisconnectChannel: DELETE "/v1/tenants/{tenant}/channels/{channel}/{account}"
        (OfAccount, NoParameters, Nothing) -> 200 Tenant;
        Tenant, Admin, Around |input, contact| Some(What::ChannelDisconnect {
            channel: input.path.channel,
            account: input.path.account.clone(),
        });

    /// Shows the tenant's usage of a month.
    ShowUsage: GET "/v1/tenants/{tenant}/usage" (OfTenant, OfMonth, Nothing) -> 200 Usage;
        Tenant, Member, Never;
}

/// Tenant named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfTenant {
    /// The tenant's id.
    pub tenant: TenantId,
}

impl Parameters for OfTenant {
    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }
}

/// Deleted tenant named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deleted {
    /// The tenant's id.
    pub tenant: TenantId,
}

impl Parameters for Deleted {}

/// Channel account named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfAccount {
    /// The tenant's id.
    pub tenant: TenantId,
    /// The kind of channel.
    pub channel: ChannelKind,
    /// The provider's id of the account; for WhatsApp the `phone_number_id`.
    pub account: AccountId,
}

impl Parameters for OfAccount {
    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }
}

impl OfAccount {
    /// Returns the account's key.
    #[must_use]
    pub fn key(&self) -> AccountKey {
        AccountKey { tenant: self.tenant.clone(), channel: self.channel, account: self.account.clone() }
    }
}

impl From<AccountKey> for OfAccount {
    fn from(AccountKey { tenant, channel, account }: AccountKey) -> Self {
        Self { tenant, channel, account }
    }
}

/// Month named in the query.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfMonth {
    /// The month, such as `2026-11`; the current one by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<Month>,
}

impl Parameters for OfMonth {}

/// Tenant configuration with its secrets, to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Configuration(pub Tenant);

impl Serialize for Configuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_json_exposed().serialize(serializer)
    }
}

impl JsonSchema for Configuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Tenant::schema_name()
    }
    fn schema_id() -> std::borrow::Cow<'static, str> {
        Tenant::schema_id()
    }
    fn json_schema(schemas: &mut SchemaGenerator) -> Schema {
        Tenant::json_schema(schemas)
    }
}
