//! Section `[security]`.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::network::Networks;
use crate::time::human;

/// Addresses that may be called, and thresholds from which on signs of an attack, or of a breach of personal data, are
/// an incident. An incident raises
/// `heddle_security_incidents_total` and a `security` event, one for each kind and tenant in a window. Each node counts
/// its own signals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Window in which signals count together; an incident that goes on is reported again once a window.
    #[serde(with = "human")]
    pub window: Duration,
    /// Ciphertexts of a tenant that do not open. There is no harmless one.
    pub failed_decryptions: NonZeroU64,
    /// Webhooks of a tenant's accounts with a wrong signature: some come whenever an app's secret is changed.
    pub signatures: NonZeroU64,
    /// Webhooks, ingress records and commands that name data of another tenant.
    pub cross_tenant: NonZeroU64,
    /// Exports of a tenant's contacts.
    pub exports: NonZeroU64,
    /// Records in exports of a tenant; that number is an incident also in a single export.
    pub export_records: NonZeroU64,
    /// Networks that tenants' configurations may make the node call beside the public internet, also over http: those of
    /// models and programs of one's own, such as `["10.20.0.0/16", "127.0.0.1"]`.
    pub private_addresses: Networks,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(600),
            failed_decryptions: NonZeroU64::MIN,
            signatures: const { NonZeroU64::new(20).unwrap() },
            cross_tenant: NonZeroU64::MIN,
            exports: const { NonZeroU64::new(20).unwrap() },
            export_records: const { NonZeroU64::new(50_000).unwrap() },
            private_addresses: Networks::default(),
        }
    }
}
