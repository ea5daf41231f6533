//! HTTP servers of a node, on two addresses: one that the world may reach, and one for administration.
//!
//! | address | paths |
//! |---|---|
//! | `http.listen` | `/webhooks/...`, `/healthz`, `/readyz` |
//! | `http.admin_listen` | `/v1/...`, `/` (the console), `/metrics`, `/healthz`, `/readyz` |
//!
//! # Layout
//! - [`listener`]: accepts connections within limits of time and number.
//! - [`webhooks`]: the ingress of channels; [`body`]: reads their bodies within limits of memory.
//! - [`admin`]: `/v1`, guarded by [`guard`], described by [`openapi`]; [`caller`]: the caller, [`problem`]: refusals.
//! - [`health`]: `/healthz`, `/readyz`, `/metrics`. [`proof`]: the node's proof that it knows the admin token.
//! - [`console`]: the page at `/`.

pub mod admin;
pub mod body;
pub mod caller;
pub mod console;
pub mod guard;
pub mod health;
pub mod listener;
pub mod openapi;
pub mod problem;
pub mod proof;
pub mod webhooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::response::Response;
use heddle_actors::intake::gate::IntakeGate;
use heddle_actors::intake::webhook::Reception;
use heddle_actors::tenant::configuration::Tenants;
use heddle_schemas::config;
use heddle_schemas::sealed::Secret;
use prometheus::Registry;
use tokio::sync::Semaphore;

pub use self::listener::{Limits, ListenError, Server, bind};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::operations::Operations;

/// State shared by the handlers.
pub struct Shared {
    node: Arc<Node>,
    tenants: Arc<Tenants>,
    reception: Arc<Reception>,
    intake_gate: Arc<IntakeGate>,
    operations: Operations,
    admin_token: Secret,
    metrics_token: Secret,
    open_metrics: bool,
    bodies: body::Bodies,
    registry: Registry,
    metrics: Arc<Metrics>,
    at_once: Semaphore,
    ready: AtomicBool,
}

impl Shared {
    /// Creates the state of a started node.
    #[must_use]
    pub fn new(node: Arc<Node>, system: &heddle_actors::system::System, admin_token: Secret) -> Arc<Self> {
        let http: &config::Http = &node.config.http;
        Arc::new(Self {
            tenants: system.tenants.clone(),
            reception: system.reception.clone(),
            intake_gate: system.intake_gate.clone(),
            operations: node.administration_of(system.tenants.clone()),
            admin_token,
            metrics_token: http.metrics_token.clone(),
            open_metrics: http.open_metrics,
            bodies: body::Bodies::new(http.body_bytes.get()),
            registry: node.registry.clone(),
            metrics: node.metrics.clone(),
            at_once: Semaphore::new(http.webhooks_at_once.get()),
            ready: AtomicBool::new(false),
            node,
        })
    }

    /// Opens or closes the intake of webhooks.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
        self.intake_gate.set_open(ready);
        self.metrics.ready(ready);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// Returns the paths of `http.listen`.
pub fn public(shared: Arc<Shared>) -> Router {
    Router::new().merge(webhooks::routes()).merge(health::public()).with_state(shared)
}

/// Returns the paths of `http.admin_listen`.
pub fn administration(shared: Arc<Shared>) -> Router {
    Router::new()
        .merge(health::administration())
        .merge(console::routes())
        .nest("/v1", admin::routes(shared.clone()))
        .layer(axum::middleware::map_response(harden))
        .with_state(shared)
}

/// Adds the headers that every answer to an operator has: browsers neither guess its type nor keep it.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The console has a policy of its own.
    headers.entry(axum::http::header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ));
    response
}
