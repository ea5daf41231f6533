//! Rows in ScyllaDB or Apache Cassandra, by the CQL that both share.
//!
//! Contract: what is written is on a quorum of the datacenter's replicas when a call returns, and reads ask
//! a quorum, so a read sees every write before it. Rows written together under one timestamp in one
//! partition are one step; over several partitions they are written in an order that loses no work in a
//! crash (see [`Cql::write`]). Conditional writes go through Paxos in the datacenter. Fences are not known
//! here: who calls gives each write a timestamp that is newer than those of any owner before.
//!
//! # Layout
//! - `place`: which CQL row a key is.
//! - `statements`: the prepared statements, and their execution.
//! - `rows`, `writes`, `conditional`, `walk`: reading, writing, writing on a condition, walking over all.
//! - `agenda`: the agenda's buckets.
//! - [`ownership`]: the owners of the log's partitions.
//! - [`schema`]: keyspace and tables, and their migrations.
//! - `tablets`: which keyspaces of ScyllaDB take conditional writes. `session`: the connection to the cluster.
//! - `fault`: the cluster's errors, as the store's.

mod agenda;
mod conditional;
mod fault;
pub mod ownership;
mod place;
mod rows;
pub mod schema;
mod session;
mod statements;
mod tablets;
mod walk;
mod writes;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::ports::log::StoreError;
use heddle_schemas::sealed::Secret;
use scylla::client::session::Session;
use scylla::errors::{ExecutionError, NewSessionError, PrepareError};
use scylla::policies::timestamp_generator::{MonotonicTimestampGenerator, TimestampGenerator as _};
use tokio::sync::Semaphore;

use self::agenda::Directory;
use self::conditional::Unsettled;
use self::ownership::OwnershipStatements;
use self::place::Stored;
use self::statements::{OfTable, Preparer, Profiles};

/// The largest value of a row. Cassandra refuses a request over 16 MiB, and a mutation over half a segment
/// of its commit log, 16 MiB too unless configured otherwise.
const MAX_VALUE: usize = 8 << 20;

/// Configuration of a cluster's use.
#[derive(Debug, Clone)]
pub struct Options {
    /// Some of its nodes, `host:port`.
    pub nodes: Vec<String>,
    /// The keyspace.
    pub keyspace: String,
    /// Datacenter whose replicas are queried; `None` if the cluster has only one.
    pub datacenter: Option<String>,
    /// User; empty for a cluster without authentication.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// `None`: requests go over the network as they are.
    pub tls: Option<Tls>,
    /// Timeout of a request; the wait for its turn may take as long again.
    pub timeout: Duration,
    /// Requests on their way at once; more wait.
    pub in_flight: NonZeroUsize,
}

/// Verification of nodes by TLS certificates.
#[derive(Debug, Clone)]
pub struct Tls {
    /// A file of certificates, PEM, one of which signed each node's. A node's own must name its address:
    /// nodes are found by address, and the driver compares that.
    pub ca: PathBuf,
    /// Certificate of this node, for clusters that require one of clients.
    pub client: Option<ClientCertificate>,
}

/// Certificate by which a cluster knows its client.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// A file with the certificate and those that it is signed with, PEM, its own first.
    pub certificate: PathBuf,
    /// A file with its private key, PEM.
    pub key: PathBuf,
}

/// Error of opening a cluster.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No node answers, or none takes the user.
    #[error("no node of {nodes} can be used: {source}")]
    Connect {
        /// The nodes that were tried.
        nodes: String,
        /// Driver's error.
        source: Box<NewSessionError>,
    },
    /// The certificates cannot be read.
    #[error("the certificates in {} cannot be used: {why}", .path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        why: String,
    },
    /// Quorums would be counted in the datacenter of the node that is contacted first.
    #[error(
        "the cluster has the datacenters {}; set state.datacenter to the one of this node (it is {})",
        .there.join(", "), if .asked.is_empty() { "empty" } else { .asked }
    )]
    Datacenter {
        /// Datacenter that is configured.
        asked: String,
        /// Datacenters of the cluster.
        there: Vec<String>,
    },
    /// The keyspace or its tables do not match this build.
    #[error("the keyspace {keyspace} lacks {missing}; run `heddle schema apply`")]
    Schema {
        /// The keyspace.
        keyspace: String,
        /// Missing parts.
        missing: String,
    },
    /// No conditional write would work.
    #[error(
        "the keyspace {keyspace} has tablets, and ScyllaDB {version} takes no conditional writes with them; make a \
         keyspace without them (`heddle schema apply` does, with an empty state.keyspace), or upgrade to 2025.4"
    )]
    Tablets {
        /// The keyspace.
        keyspace: String,
        /// Version of the cluster.
        version: String,
    },
    /// The keyspace was made by a later build.
    #[error(
        "the keyspace {keyspace} is of schema version {found}, this build knows {known}; start a newer build"
    )]
    Newer {
        /// The keyspace.
        keyspace: String,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// A statement is not taken.
    #[error("a statement cannot be prepared: {0}")]
    Prepare(Box<PrepareError>),
    /// A request failed.
    #[error(transparent)]
    Request(#[from] StoreError),
}

impl From<PrepareError> for OpenError {
    fn from(error: PrepareError) -> Self {
        Self::Prepare(error.into())
    }
}

/// Replication of a keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// The strategy, without its Java package.
    pub class: String,
    /// Copies in each datacenter; under `replication_factor` for strategies without datacenters.
    pub factors: BTreeMap<String, u32>,
}

/// Rows in a cluster.
pub struct Cql {
    session: Session,
    keyspace: String,
    timeout: Duration,
    in_flight: Semaphore,
    tables: Vec<OfTable>,
    directory: Directory,
    ownership: OwnershipStatements,
    unsettled: Unsettled,
    profiles: Profiles,
    timestamps: MonotonicTimestampGenerator,
}

impl fmt::Debug for Cql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cql").field("keyspace", &self.keyspace).finish_non_exhaustive()
    }
}

impl Cql {
    /// Connects, checks that the schema is this build's, and prepares every statement.
    ///
    /// # Errors
    /// [`OpenError`], which names the remedy.
    pub async fn open(options: &Options) -> Result<Arc<Self>, OpenError> {
        let profiles = Profiles::new(options);
        let session = session::connect(options, &profiles).await?;
        schema::check(&session, &options.keyspace).await?;
        let preparer = Preparer { session: &session, keyspace: &options.keyspace, profiles: &profiles };
        let tables = OfTable::prepare_all(preparer).await?;
        let directory = Directory::prepare(preparer).await?;
        let ownership = OwnershipStatements::prepare(preparer).await?;
        Ok(Arc::new(Self {
            keyspace: options.keyspace.clone(),
            timeout: options.timeout,
            in_flight: Semaphore::new(options.in_flight.get().min(Semaphore::MAX_PERMITS)),
            tables,
            directory,
            ownership,
            unsettled: Unsettled::default(),
            profiles,
            timestamps: MonotonicTimestampGenerator::new().without_warnings(),
            session,
        }))
    }

    /// Reads the current replication of the keyspace.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn replication(&self) -> Result<Replication, StoreError> {
        let found = schema::replication(&self.session, &self.keyspace).await?;
        found.ok_or_else(|| fault::corrupt("read replication", format!("no keyspace {}", self.keyspace)))
    }

    /// The largest value that a row may have; a larger one is [`StoreError::TooLarge`].
    #[must_use]
    pub fn max_value_bytes(&self) -> usize {
        MAX_VALUE
    }

    fn table(&self, stored: Stored) -> &OfTable {
        &self.tables[stored as usize]
    }

    /// Sends a request when it is its turn.
    async fn run<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, ExecutionError>>,
    ) -> Result<T, StoreError> {
        // A timer only where there is something to wait for.
        let _turn = match self.in_flight.try_acquire() {
            Ok(turn) => turn,
            Err(_) => match tokio::time::timeout(self.timeout, self.in_flight.acquire()).await {
                Ok(Ok(turn)) => turn,
                _ => {
                    let detail = format!("{what}: not sent within {:?}, the cluster is behind", self.timeout);
                    return Err(StoreError::Unavailable { detail });
                }
            },
        };
        request.await.map_err(|error| fault::unavailable(what, &error))
    }

    fn next_timestamp(&self) -> i64 {
        self.timestamps.next_timestamp()
    }
}
