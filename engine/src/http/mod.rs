//! HTTP server: webhooks, the admin API, the console, metrics and health, on one address.
//!
//! # Layout
//! - [`webhooks`]: the ingress of channels.
//! - [`admin`]: `/v1`, guarded by [`guard`], described by [`openapi`]; [`caller`]: the caller, [`problem`]: refusals.
//! - [`health`]: `/healthz`, `/readyz`, `/metrics`.
//! - [`console`]: the page at `/`.

pub mod admin;
pub mod caller;
pub mod console;
pub mod guard;
pub mod health;
pub mod openapi;
pub mod problem;
pub mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use heddle_actors::intake::gate::IntakeGate;
use heddle_actors::intake::webhook::Reception;
use heddle_actors::tenant::configuration::Tenants;
use heddle_schemas::config;
use heddle_schemas::sealed::Secret;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::metrics::Metrics;
use crate::node::Node;
use crate::operations::Operations;

/// Error of a server that cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("http.listen = \"{address}\": {source}; stop the process that uses it, or set another address")]
pub struct ListenError {
    /// Requested address.
    pub address: SocketAddr,
    /// Error of the operating system.
    #[source]
    pub source: std::io::Error,
}

/// State shared by the handlers.
pub struct Shared {
    node: Arc<Node>,
    tenants: Arc<Tenants>,
    reception: Arc<Reception>,
    intake_gate: Arc<IntakeGate>,
    operations: Operations,
    admin_token: Secret,
    registry: Registry,
    metrics: Arc<Metrics>,
    at_once: Semaphore,
    ready: AtomicBool,
}

impl Shared {
    /// Creates the state of a started node.
    #[must_use]
    pub fn new(node: Arc<Node>, system: &heddle_actors::system::System) -> Arc<Self> {
        let http: &config::Http = &node.config.http;
        Arc::new(Self {
            tenants: system.tenants.clone(),
            reception: system.reception.clone(),
            intake_gate: system.intake_gate.clone(),
            operations: node.administration_of(system.tenants.clone()),
            admin_token: http.admin_token.clone(),
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

/// Running server.
pub struct Server {
    /// Listen address.
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

/// Binds the address, so that a conflict shows before anything has been started.
///
/// # Errors
/// [`ListenError`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

impl Server {
    /// Serves on a bound address.
    ///
    /// # Errors
    /// The operating system's, where the listener has no address.
    pub fn start(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let app = router(shared).into_make_service_with_connect_info::<SocketAddr>();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(async move {
            let stopped = async {
                // Also ends when the handle of the server is dropped.
                let _ = stopped.await;
            };
            axum::serve(listener, app).with_graceful_shutdown(stopped).await
        });
        Ok(Self { address, stop, ended })
    }

    /// Accepts no more connections, answers the requests in flight, and stops.
    pub async fn stop(self) {
        // The server may have ended by itself.
        let _ = self.stop.send(());
        // Idle connections are closed at once; a slow request has this long.
        drop(tokio::time::timeout(std::time::Duration::from_secs(5), self.ended).await);
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .merge(webhooks::routes())
        .merge(health::routes())
        .merge(console::routes())
        .nest("/v1", admin::routes(shared.clone()))
        .with_state(shared)
}
