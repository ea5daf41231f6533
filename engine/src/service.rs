//! Serving node: a node, its actors and its HTTP server, started and stopped as one.
//!
//! The addresses are bound before anything is opened, and webhooks are accepted only when everything runs.
//! Stopping reverses the order: no more webhooks, then the requests in flight are answered, then the work in
//! flight is finished, then the stores are closed.

use std::net::SocketAddr;
use std::sync::Arc;

use heddle_actors::system::System;
use heddle_schemas::config::Config;
use heddle_schemas::sealed::Secret;

use crate::http::{self, ListenError, Server, Shared};
use crate::node::{self, Node, NodeError};
use crate::{admin_token, process};

/// Error of a node that cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The address cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The node cannot be opened or started.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The listener failed.
    #[error("the HTTP server cannot be started: {0}")]
    Server(#[from] std::io::Error),
}

/// Serving node.
pub struct Service {
    /// The node.
    pub node: Arc<Node>,
    /// Address of webhooks.
    pub address: SocketAddr,
    /// Address of the admin API, the console and metrics.
    pub admin_address: SocketAddr,
    /// Bearer token of the admin API.
    pub admin_token: Secret,
    shared: Arc<Shared>,
    system: System,
    servers: [Server; 2],
}

impl Service {
    /// Starts everything; when it returns, webhooks are accepted.
    ///
    /// # Errors
    /// [`ServiceError`]; everything opened is closed again.
    pub async fn start(config: Config) -> Result<Self, ServiceError> {
        let listener = http::bind("http.listen", config.http.listen).await?;
        let admin = http::bind("http.admin_listen", config.http.admin_address()).await?;
        let (limits, admin_limits) = process::limits(&config.http, process::descriptors());
        process::close_folder(&config.data_dir);
        let admin_token = admin_token::of_node(&config).map_err(NodeError::from)?;
        let node = Arc::new(Node::open(config).await?);
        let system = match node.start().await {
            Ok(system) => system,
            Err(error) => {
                node.close().await;
                return Err(error.into());
            }
        };
        let shared = Shared::new(node.clone(), &system, admin_token.clone());
        let metrics = node.metrics.clone();
        let server = Server::start(listener, http::public(shared.clone()), limits, metrics.clone())?;
        let admin = Server::start(admin, http::administration(shared.clone()), admin_limits, metrics)?;
        let (address, admin_address) = (server.address, admin.address);
        shared.set_ready(true);
        tracing::info!(%address, admin = %admin_address, node = node.config.node.name, "ready");
        let servers = [server, admin];
        Ok(Self { node, address, admin_address, admin_token, shared, system, servers })
    }

    /// Waits until the node cannot go on; the caller then calls [`Service::stop`].
    pub async fn over(&self) {
        self.system.over().await;
        self.shared.set_ready(false);
    }

    /// Stops everything in order. Returns whether all work in flight was finished in time.
    pub async fn stop(self) -> bool {
        let Self { node, shared, system, servers: [server, admin], .. } = self;
        tracing::info!("stopping: webhooks are refused");
        shared.set_ready(false);
        tokio::join!(server.stop(), admin.stop());
        let finished = node::shut_down(&node, system).await;
        tracing::info!(finished, "stopped");
        finished
    }
}
