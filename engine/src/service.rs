//! Serving node: a node, its actors and its HTTP server, started and stopped as one.
//!
//! The address is bound before anything is opened, and webhooks are accepted only when everything runs.
//! Stopping reverses the order: no more webhooks, then the requests in flight are answered, then the work in
//! flight is finished, then the stores are closed.

use std::net::SocketAddr;
use std::sync::Arc;

use heddle_actors::system::System;
use heddle_schemas::config::Config;

use crate::http::{self, ListenError, Server, Shared};
use crate::node::{self, Node, NodeError};

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
    /// Listen address.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    system: System,
    server: Server,
}

impl Service {
    /// Starts everything; when it returns, webhooks are accepted.
    ///
    /// # Errors
    /// [`ServiceError`]; everything opened is closed again.
    pub async fn start(config: Config) -> Result<Self, ServiceError> {
        let listener = http::bind(config.http.listen).await?;
        let node = Arc::new(Node::open(config).await?);
        let system = match node.start().await {
            Ok(system) => system,
            Err(error) => {
                node.close().await;
                return Err(error.into());
            }
        };
        let shared = Shared::new(node.clone(), &system);
        let server = Server::start(listener, shared.clone())?;
        let address = server.address;
        shared.set_ready(true);
        tracing::info!(%address, node = node.config.node.name, "ready");
        Ok(Self { node, address, shared, system, server })
    }

    /// Waits until the node cannot go on; the caller then calls [`Service::stop`].
    pub async fn over(&self) {
        self.system.over().await;
        self.shared.set_ready(false);
    }

    /// Stops everything in order. Returns whether all work in flight was finished in time.
    pub async fn stop(self) -> bool {
        let Self { node, shared, system, server, .. } = self;
        tracing::info!("stopping: webhooks are refused");
        shared.set_ready(false);
        server.stop().await;
        let finished = node::shut_down(&node, system).await;
        tracing::info!(finished, "stopped");
        finished
    }
}
