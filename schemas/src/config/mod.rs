//! `heddle.toml`: what an operator sets for a node. Every value has a default that works on one machine.

mod engine;
mod http;
mod keys;
mod log;
mod security;
mod state;
mod telemetry;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::engine::{Engine, WriteVersion};
pub use self::http::Http;
pub use self::keys::{Keys, VaultKey};
pub use self::log::{Log, LogKind};
pub use self::security::Security;
pub use self::state::{State, StateKind};
pub use self::telemetry::{LogFormat, LogLevel, Telemetry};
use crate::record::Versions;
use crate::tenant::{Faults, default_region};
use crate::time::human;

/// The configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the embedded stores, indexes and the default master key.
    pub data_dir: PathBuf,
    /// The node's name, region and lease.
    pub node: Node,
    /// The HTTP server.
    pub http: Http,
    /// The log.
    pub log: Log,
    /// The state store.
    pub state: State,
    /// The keys.
    pub keys: Keys,
    /// Resources of this machine that the engine may use, and its policies.
    pub engine: Engine,
    /// Thresholds from which on signs of an attack are an incident.
    pub security: Security,
    /// Log lines on standard error.
    pub telemetry: Telemetry,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "heddle-data".into(),
            node: Node::default(),
            http: Http::default(),
            log: Log::default(),
            state: State::default(),
            keys: Keys::default(),
            engine: Engine::default(),
            security: Security::default(),
            telemetry: Telemetry::default(),
        }
    }
}

/// Identity of the node: name, region and lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Its name, stable across restarts: under it the node gets back the partitions it had.
    pub name: String,
    /// The region that its stores are in, as tenants name it. The stores remember it from the first start on: a node
    /// of another region does not start on them, and a tenant of another one is refused.
    pub region: String,
    /// Duration of the lease of a partition of a shared log. After a crash other nodes wait for its end before they
    /// take the partition over.
    #[serde(with = "human")]
    pub lease: Duration,
}

impl Default for Node {
    fn default() -> Self {
        Self { name: "a".into(), region: default_region(), lease: Duration::from_secs(10) }
    }
}

impl Http {
    /// Least bytes of a bearer token.
    pub const TOKEN_BYTES_MIN: usize = 16;
    /// Least of [`Http::body_bytes`]: the largest body of one webhook, four times.
    const BODY_BYTES_MIN: usize = 16 << 20;

    /// Returns the address of the admin API.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        let port = match self.listen.port() {
            // Any free port.
            0 => 0,
            port => port.wrapping_add(1),
        };
        self.admin_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn validate(&self, faults: &mut Vec<String>) {
        if self.admin_listen.is_none() && self.listen.port() == u16::MAX {
            faults
                .push("http.admin_listen: is not set, and there is no port after that of http.listen".into());
        }
        if self.listen.port() != 0 && self.admin_listen == Some(self.listen) {
            faults
                .push("http.admin_listen: is http.listen; the admin API needs an address of its own".into());
        }
        if self.body_bytes.get() < Self::BODY_BYTES_MIN {
            faults.push("http.body_bytes: is under 16 MiB (16777216)".into());
        }
        self.validate_tokens(faults);
    }

    fn validate_tokens(&self, faults: &mut Vec<String>) {
        for (place, token) in
            [("http.admin_token", &self.admin_token), ("http.metrics_token", &self.metrics_token)]
        {
            let is_named = token.expose().starts_with("env:") || token.expose().starts_with("file:");
            if !token.is_empty() && !is_named && token.expose().len() < Self::TOKEN_BYTES_MIN {
                faults.push(format!(
                    "{place}: has under {} bytes; take one such as `openssl rand -hex 32` prints",
                    Self::TOKEN_BYTES_MIN
                ));
            }
        }
    }
}

impl Config {
    /// Returns the versions of records that a node reads and writes.
    #[must_use]
    pub fn versions(&self) -> Versions {
        let by_default = match self.log.kind {
            LogKind::Embedded => WriteVersion::Newest,
            LogKind::Kafka => WriteVersion::Previous,
        };
        match self.engine.write_version.unwrap_or(by_default) {
            WriteVersion::Previous => Versions::writing_previous(),
            WriteVersion::Newest => Versions::default(),
        }
    }

    /// Checks what the types leave open. Called before secrets are read from where they are, and again after.
    ///
    /// # Errors
    /// Every fault, each with its key and what would do.
    pub fn validate(&self) -> Result<(), Faults> {
        let mut faults = Vec::new();
        if self.node.name.is_empty() || self.node.name.len() > 64 {
            faults.push("node.name: takes 1 to 64 characters".to_owned());
        }
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if !(1..=64).contains(&self.node.region.len()) || !self.node.region.chars().all(named) {
            faults.push(
                "node.region: takes 1 to 64 lower-case letters, digits, '-' and '_', such as \"eu\"".into(),
            );
        }
        if self.log.segment_bytes.get() < 1 << 20 {
            faults.push("log.segment_bytes: is under 1 MiB (1048576)".to_owned());
        }
        if self.log.max_bytes.get() < 4 * self.log.segment_bytes.get() {
            faults.push("log.max_bytes: is under four segments (log.segment_bytes)".to_owned());
        }
        if self.log.partitions.get() > 1024 {
            faults.push("log.partitions: is over 1024".to_owned());
        }
        let compact_every = Duration::from_secs(60)..=Duration::from_secs(7 * 86_400);
        if !compact_every.contains(&self.state.compact_every) {
            faults.push("state.compact_every: takes 1m to 7d".to_owned());
        }
        match (self.log.kind, self.state.kind) {
            (LogKind::Embedded, StateKind::Embedded) | (LogKind::Kafka, StateKind::Cql) => {}
            (log, state) => faults.push(format!(
                "state.kind: \"{}\" does not go with log.kind = \"{}\"; take embedded with embedded, or cql with \
                 kafka",
                state.as_str(),
                log.as_str()
            )),
        }
        if self.log.kind == LogKind::Kafka {
            self.log.validate_kafka(&mut faults);
        }
        if self.state.kind == StateKind::Cql {
            self.state.validate_cql(&mut faults);
        }
        if self.node.lease < Duration::from_secs(2) || self.node.lease > Duration::from_secs(60) {
            faults.push("node.lease: takes 2s to 60s".to_owned());
        }
        self.keys.validate(&mut faults);
        self.http.validate(&mut faults);
        if self.security.window.is_zero() || self.security.window > Duration::from_secs(86_400) {
            faults.push("security.window: takes up to 1d, and not nothing".to_owned());
        }
        if self.engine.send_timeout.is_zero() {
            faults.push("engine.send_timeout: is zero".to_owned());
        }
        if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
    }
}

#[cfg(test)]
mod tests;
