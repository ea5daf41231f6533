//! Operations on tenants: configuration, channels, usage, export, deletion.

use heddle_schemas::audit::What;
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, TenantId};
use heddle_schemas::removal::Removal;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::zone::Month;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};

use crate::content::{Lines, List, Nothing};
use crate::operation::{NoParameters, Parameters, operations};
use crate::usage::Usage;

operations! {
    /// Every tenant, by id; secrets read `[redacted]`.
    ListTenants: GET "/v1/tenants" (NoParameters, NoParameters, Nothing) -> 200 List<Tenant>;
        Installation, Member, Never;

    /// One tenant; secrets read `[redacted]`.
    ShowTenant: GET "/v1/tenants/{tenant}" (OfTenant, NoParameters, Nothing) -> 200 Tenant;
        Tenant, Member, Never;

    /// Makes a configuration the tenant's own. Secrets are literals here.
    ApplyTenant: PUT "/v1/tenants/{tenant}" (OfTenant, NoParameters, Configuration) -> 200 Tenant;
        Installation, Admin, Around |input, contact| Some(What::TenantApply);

    /// Deletes the tenant: it stops and its key is destroyed at once, its rows follow. Asking twice does no harm; its
    /// id is not given out again.
    DeleteTenant: DELETE "/v1/tenants/{tenant}" (OfTenant, NoParameters, Nothing) -> 202 Removal;
        Installation, Owner, Opened |input, contact| Some(What::TenantErase { tenant: input.path.tenant.clone() });

    /// All that is kept of the tenant, opened, without secrets, a line of JSON for each thing, as it is read. One that
    /// breaks off ends its connection.
    ExportTenant: GET "/v1/tenants/{tenant}/export" (OfTenant, NoParameters, Nothing) -> 200 Lines;
        Tenant, Owner, Opened |input, contact| Some(What::TenantExport), within std::time::Duration::from_secs(24 * 3_600);

    /// Every deletion of a tenant, by id.
    ListDeletions: GET "/v1/deletions" (NoParameters, NoParameters, Nothing) -> 200 List<Removal>;
        Installation, Member, Never;

    /// Progress of the deletion of a tenant; complete, it is the receipt.
    ShowDeletion: GET "/v1/deletions/{tenant}" (Deleted, NoParameters, Nothing) -> 200 Removal;
        Installation, Member, Never;

    /// Disconnects a channel account: its credentials are erased, its webhooks refused, and what waits to be sent by it
    /// is withheld. Asking twice does no harm.
    DisconnectChannel: DELETE "/v1/tenants/{tenant}/channels/{channel}/{account}"
        (OfAccount, NoParameters, Nothing) -> 200 Tenant;
        Tenant, Admin, Around |input, contact| Some(What::ChannelDisconnect {
            channel: input.path.channel,
            account: input.path.account.clone(),
        });

    /// Usage of the tenant in a month.
    ShowUsage: GET "/v1/tenants/{tenant}/usage" (OfTenant, OfMonth, Nothing) -> 200 Usage;
        Tenant, Member, Never;
}

/// A tenant, named in the path.
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

/// A tenant that was deleted, named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deleted {
    /// The tenant's id.
    pub tenant: TenantId,
}

impl Parameters for Deleted {}

/// A channel account, named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfAccount {
    /// The tenant's id.
    pub tenant: TenantId,
    /// The kind of channel.
    pub channel: ChannelKind,
    /// The provider's id of the account; WhatsApp: the `phone_number_id`.
    pub account: AccountId,
}

impl Parameters for OfAccount {
    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }
}

impl OfAccount {
    /// The account's key.
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

/// A month.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfMonth {
    /// The month, such as `2026-11`; without one, the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<Month>,
}

impl Parameters for OfMonth {}

/// A tenant's configuration with its secrets, as it is applied.
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
