//! A serving node: a node, its actors and its HTTP server, started and stopped as one.
//!
//! The address is bound before anything is opened, and webhooks are taken in only when everything runs.
//! Stopping turns that around: no more webhooks, then what was asked is answered, then what was taken up is
//! finished, then the stores are closed.

use std::net::SocketAddr;
use std::sync::Arc;

use heddle_actors::system::System;
use heddle_schemas::config::Config;

use crate::http::{self, ListenError, Server, Shared};
use crate::node::{self, Node, NodeError};

/// Why a node does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What is behind it.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The listener broke.
    #[error("the HTTP server cannot be started: {0}")]
    Server(#[from] std::io::Error),
}

/// A serving node.
pub struct Service {
    /// The node.
    pub node: Arc<Node>,
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    system: System,
    server: Server,
}

impl Service {
    /// Starts everything; when it returns, webhooks are taken in.
    ///
    /// # Errors
    /// [`ServiceError`]; what had been opened is closed again.
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

    /// Waits until the node cannot go on; then [`Service::stop`] it.
    pub async fn over(&self) {
        self.system.over().await;
        self.shared.set_ready(false);
    }

    /// Stops everything in order. Returns whether all that was taken up was finished in time.
    pub async fn stop(self) -> bool {
        let Self { node, shared, system, server, .. } = self;
        tracing::info!("stopping: no more webhooks are taken in");
        shared.set_ready(false);
        server.stop().await;
        let finished = node::shut_down(&node, system).await;
        tracing::info!(finished, "stopped");
        finished
    }
}
