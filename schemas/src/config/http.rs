//! Section `[http]`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::sealed::Secret;

/// The HTTP server: webhooks on one address, administration on another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address of webhooks, `/healthz` and `/readyz`.
    pub listen: SocketAddr,
    /// Address of the admin API, the console, `/metrics`, `/healthz` and `/readyz`. No proxy should publish it.
    /// Default: the loopback address, at the port after that of `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<SocketAddr>,
    /// The bearer token of the admin API, at least 16 bytes: a literal, `env:NAME` or `file:PATH`.
    /// Empty: `admin.token` in the data folder, created at first start.
    pub admin_token: Secret,
    /// The bearer token of `/metrics` alone, at least 16 bytes, in the same forms. The admin token opens it too.
    pub metrics_token: Secret,
    /// Serves `/metrics` without a token, to whoever reaches `admin_listen`.
    pub open_metrics: bool,
    /// Webhooks that are accepted at once; more wait, and after a while are refused with 503.
    pub webhooks_at_once: NonZeroUsize,
    /// Bytes of webhooks' bodies held in memory at once; over it webhooks are refused with 503.
    pub body_bytes: NonZeroUsize,
    /// Connections of `listen` at once; more wait. Default: half of the file descriptors that the store leaves, at
    /// most 4,096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<NonZeroUsize>,
    /// Connections of `listen` at once from one address; more are closed. Default: half of `connections`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_address: Option<NonZeroUsize>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: None,
            admin_token: Secret::default(),
            metrics_token: Secret::default(),
            open_metrics: false,
            webhooks_at_once: const { NonZeroUsize::new(256).unwrap() },
            body_bytes: const { NonZeroUsize::new(64 << 20).unwrap() },
            connections: None,
            connections_per_address: None,
        }
    }
}
