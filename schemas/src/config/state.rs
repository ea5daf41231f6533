//! Section `[state]`.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sealed::Secret;
use crate::time::human;

/// Kind of the state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateKind {
    /// Files of this process, of one piece with the embedded log.
    Embedded,
    /// ScyllaDB or Apache Cassandra.
    Cql,
}

impl StateKind {
    /// Returns the name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Cql => "cql",
        }
    }
}

/// The state store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Kind of the state store.
    pub kind: StateKind,
    /// Bytes that the embedded store's cache may take.
    pub cache_bytes: NonZeroU64,
    /// Bytes of changes held in memory before a checkpoint is written.
    pub checkpoint_bytes: NonZeroU64,
    /// Interval at which the files of the embedded store are rewritten, so that the bytes of deleted, overwritten and
    /// expired rows are gone: 1 minute to 7 days, well below the 30 days in which an erasure is done. A shutdown waits
    /// for it.
    #[serde(with = "human")]
    pub compact_every: Duration,
    /// Addresses of some nodes of the cluster, `host:port`; the others are found through them.
    pub nodes: Vec<String>,
    /// The keyspace: lower-case letters, digits and `_`.
    pub keyspace: String,
    /// Copies of each row in every datacenter. With one, the loss of a disk loses rows.
    pub replication: NonZeroU32,
    /// Copies in each of these datacenters and no other; it stands for `replication` where it is set.
    pub datacenters: BTreeMap<String, NonZeroU32>,
    /// The datacenter this node is in. Quorums are counted there, so it is asked for where there are several.
    pub datacenter: String,
    /// The user; empty for a cluster that asks for none.
    pub user: String,
    /// The user's password: a literal, `env:NAME` or `file:PATH`.
    pub password: Secret,
    /// The certificates, PEM, that those of the nodes are signed with; the nodes' own name their addresses.
    /// Empty: without TLS.
    pub ca: PathBuf,
    /// The certificate of this node, PEM, with those that it is signed with, for clusters that require one of clients.
    pub certificate: PathBuf,
    /// The private key of that certificate, PEM.
    pub certificate_key: PathBuf,
    /// Longest duration of a request, the wait for its turn included.
    #[serde(with = "human")]
    pub timeout: Duration,
    /// Requests on their way to the cluster at once; more wait.
    pub in_flight: NonZeroUsize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            kind: StateKind::Embedded,
            cache_bytes: const { NonZeroU64::new(64 << 20).unwrap() },
            checkpoint_bytes: const { NonZeroU64::new(64 << 20).unwrap() },
            compact_every: Duration::from_secs(86_400),
            nodes: vec!["127.0.0.1:19042".into()],
            keyspace: "heddle".into(),
            replication: NonZeroU32::MIN,
            datacenters: BTreeMap::new(),
            datacenter: String::new(),
            user: String::new(),
            password: Secret::default(),
            ca: PathBuf::new(),
            certificate: PathBuf::new(),
            certificate_key: PathBuf::new(),
            timeout: Duration::from_secs(5),
            in_flight: const { NonZeroUsize::new(512).unwrap() },
        }
    }
}

impl State {
    pub(super) fn validate_cql(&self, faults: &mut Vec<String>) {
        if self.nodes.is_empty() {
            faults.push("state.nodes: is empty; name one node of the cluster at least, host:port".to_owned());
        }
        for node in &self.nodes {
            let port = node.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                faults.push(format!("state.nodes: {node:?} is no host:port"));
            }
        }
        // What CQL takes unquoted, so that the name means the same in every tool.
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let starts = self.keyspace.starts_with(|c: char| c.is_ascii_lowercase());
        if !starts || self.keyspace.len() > 48 || !self.keyspace.chars().all(letters) {
            faults.push(
                "state.keyspace: takes up to 48 lower-case letters, digits and _, beginning with a-z"
                    .to_owned(),
            );
        }
        let quoted = |name: &String| name.is_empty() || name.contains(['\'', '"']);
        if self.datacenters.keys().any(quoted) || self.datacenter.contains(['\'', '"']) {
            faults.push("state.datacenters: a datacenter's name has no quotes and is not empty".to_owned());
        }
        if !self.datacenter.is_empty()
            && !self.datacenters.is_empty()
            && !self.datacenters.contains_key(&self.datacenter)
        {
            faults.push(format!(
                "state.datacenter: {:?} is none of state.datacenters, so it would hold nothing",
                self.datacenter
            ));
        }
        if self.user.is_empty() != self.password.is_empty() {
            faults.push("state.user, state.password: one of the two is empty; set both or none".to_owned());
        }
        if self.timeout.is_zero() {
            faults.push("state.timeout: is zero".to_owned());
        }
    }
}
