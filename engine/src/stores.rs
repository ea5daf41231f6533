//! Configured log and state stores: files of this process, or Kafka and CQL.

use std::sync::Arc;

use heddle_connectors::cluster::{self, Cluster};
use heddle_connectors::cql::{self, Cql};
use heddle_connectors::embedded::{self, Embedded};
use heddle_connectors::kafka::{self, Kafka};
use heddle_schemas::config::{Config, LogKind, StateKind};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::Log;
use heddle_schemas::ports::state::State;
use prometheus::Registry;

use crate::configuration;

/// Error of stores that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// The embedded store.
    #[error(transparent)]
    Embedded(#[from] embedded::OpenError),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] kafka::OpenError),
    /// The CQL database.
    #[error(transparent)]
    Cql(#[from] cql::OpenError),
}

/// Open stores.
pub enum Stores {
    /// Files of this process.
    Embedded(Arc<Embedded>),
    /// Kafka and CQL, shared with other nodes.
    Cluster(Arc<Cluster>),
}

impl Stores {
    /// Opens the configured stores.
    ///
    /// # Errors
    /// [`StoresError`].
    pub async fn open(
        config: &Config,
        clock: Arc<dyn Clock>,
        owner: String,
        registry: &Registry,
    ) -> Result<Self, StoresError> {
        // The configuration is validated: both kinds are embedded, or none is.
        if (config.log.kind, config.state.kind) == (LogKind::Embedded, StateKind::Embedded) {
            let options = embedded_options(config);
            let opening = tokio::task::spawn_blocking(move || Embedded::open(options, clock));
            let store =
                opening.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
            heddle_connectors::metrics::register_embedded(registry, &store);
            return Ok(Self::Embedded(store));
        }
        let cql = Cql::open(&configuration::cql(&config.state).0).await?;
        let kafka = Kafka::open(&configuration::kafka(config), clock.clone()).await?;
        let options = cluster::Options {
            owner,
            lease: config.node.lease,
            longest_call: config.engine.send_timeout,
            handover: configuration::handover(config),
        };
        let store = Cluster::new(options, Arc::new(kafka), cql, clock);
        heddle_connectors::metrics::register_cluster(registry, &store);
        Ok(Self::Cluster(store))
    }

    /// Returns the log.
    #[must_use]
    pub fn log(&self) -> Arc<dyn Log> {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Cluster(store) => store.clone(),
        }
    }

    /// Returns the state store.
    #[must_use]
    pub fn state(&self) -> Arc<dyn State> {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Cluster(store) => store.clone(),
        }
    }

    /// Returns the reason for which nothing is accepted now: a full disk, mostly. Servers of their own report theirs.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        match self {
            Self::Embedded(store) => store.fault(),
            Self::Cluster(_) => None,
        }
    }

    /// Closes the stores: everything is durable, and owned partitions are released.
    pub async fn close(&self) {
        match self {
            Self::Embedded(store) => store.close().await,
            Self::Cluster(store) => store.close().await,
        }
    }
}

fn embedded_options(config: &Config) -> embedded::Options {
    embedded::Options {
        partitions: config.log.partitions,
        segment_bytes: config.log.segment_bytes,
        retention: config.log.retention,
        max_bytes: config.log.max_bytes,
        cache_bytes: config.state.cache_bytes,
        checkpoint_bytes: config.state.checkpoint_bytes,
        compact_every: config.state.compact_every,
        ..embedded::Options::new(&config.data_dir)
    }
}
