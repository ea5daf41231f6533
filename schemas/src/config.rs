//! `heddle.toml`: what an operator sets for a node. Every value has a default that works on one machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::network::Networks;
use crate::record::Versions;
use crate::retention;
use crate::sealed::Secret;
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

/// Format of the process's log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Level of detail of the process's log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The process's own log lines, on standard error. Whatever the level, none holds a message, a phone
/// number or a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Format of the lines.
    pub format: LogFormat,
    /// Highest level of Heddle's own lines; lines of libraries end at `warn`.
    pub level: LogLevel,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, level: LogLevel::Info }
    }
}

/// Kind of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// Files of this process.
    Embedded,
    /// Apache Kafka; goes with `state.kind = "cql"`.
    Kafka,
}

impl LogKind {
    /// Returns the name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kafka => "kafka",
        }
    }
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Kind of the log.
    pub kind: LogKind,
    /// Partitions of inbound, outbound and events. Fixed once the log exists.
    pub partitions: NonZeroU32,
    /// Bytes of a segment file of the embedded log.
    pub segment_bytes: NonZeroU64,
    /// Shortest time that records are kept; the embedded log keeps unprocessed ones for longer. Records are deleted a
    /// segment at a time, so within a quarter more ([`Log::oldest_record`]), which is under every tenant's
    /// `[retention]`.
    #[serde(with = "human")]
    pub retention: Duration,
    /// Addresses of Kafka's brokers.
    pub brokers: Vec<String>,
    /// Prefix of the names of Kafka's topics and of its consumer group.
    pub topic_prefix: String,
    /// Copies of each partition in Kafka. Under three, the loss of one disk may lose records.
    pub replication: NonZeroU32,
    /// Time without a heartbeat after which Kafka gives the node's partitions to others.
    #[serde(with = "human")]
    pub session_timeout: Duration,
    /// Bytes of the largest record that Kafka is given.
    pub max_record_bytes: NonZeroUsize,
    /// Settings of librdkafka, such as `"security.protocol" = "sasl_ssl"`: TLS, SASL, timeouts. A value may
    /// be `env:NAME` or `file:PATH`.
    pub client: BTreeMap<String, Secret>,
    /// Bytes the embedded log may take. Over it, processed records are deleted first; then nothing is accepted:
    /// webhooks get 503.
    pub max_bytes: NonZeroU64,
}

impl Log {
    /// Returns the greatest age of a processed record.
    #[must_use]
    pub fn oldest_record(&self) -> Duration {
        retention::oldest(self.retention)
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            kind: LogKind::Embedded,
            partitions: const { NonZeroU32::new(8).unwrap() },
            segment_bytes: const { NonZeroU64::new(64 << 20).unwrap() },
            retention: Duration::from_secs(86_400),
            brokers: vec!["127.0.0.1:19092".into()],
            topic_prefix: "heddle.".into(),
            replication: NonZeroU32::MIN,
            session_timeout: Duration::from_secs(30),
            max_record_bytes: const { NonZeroUsize::new(1_000_000).unwrap() },
            client: BTreeMap::new(),
            max_bytes: const { NonZeroU64::new(8 << 30).unwrap() },
        }
    }
}

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

/// The keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The key-encryption key, which wraps tenants' keys from now on: 32 bytes in base64, as `file:PATH` or `env:NAME`;
    /// or a key of Vault's transit engine, which stays there, as `vault:` and a [`VaultKey`]. Empty: `master.key` in
    /// the data folder, created at first start.
    pub master: String,
    /// Previous key-encryption keys, which still open what they wrapped, in the same form as `master`. `heddle keys
    /// rotate` wraps that with the current one; `heddle keys status` reports when a previous one is not needed any
    /// more.
    pub former: Vec<String>,
    /// The token for Vault, `env:NAME` or `file:PATH`; a file is read again for each call, so that an agent
    /// may renew it.
    pub token: Secret,
    /// The certificates, PEM, that Vault's is signed with, where the system does not know them.
    pub ca: PathBuf,
    /// Longest duration of a call of Vault.
    #[serde(with = "human")]
    pub timeout: Duration,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            master: String::new(),
            former: Vec::new(),
            token: Secret::default(),
            ca: PathBuf::new(),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Address of a key of Vault's transit engine: `https://HOST:PORT/MOUNT/keys/NAME`, such as
/// `https://vault.example.com:8200/transit/keys/heddle`. The mount may have several parts, a namespace first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultKey {
    /// Scheme, host and port.
    pub base: String,
    /// The mount of the engine, such as `transit`.
    pub mount: String,
    /// The key's name.
    pub name: String,
}

impl std::fmt::Display for VaultKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/keys/{}", self.base, self.mount, self.name)
    }
}

impl std::str::FromStr for VaultKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "takes https://HOST:PORT/MOUNT/keys/NAME, such as https://vault:8200/transit/keys/heddle";
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let (host, path) = rest.split_once('/').ok_or(FORM)?;
        let (mount, name) = path.rsplit_once("/keys/").ok_or(FORM)?;
        // What a path takes as it is; Vault's names of keys are of these too.
        let plain = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(is_host) || !mount.split('/').all(plain) || !plain(name) {
            return Err(FORM);
        }
        let here = ["127.0.0.1", "localhost", "[::1]"];
        let is_here =
            |at: &&str| host.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
        match scheme {
            "https" => {}
            "http" if here.iter().any(is_here) => {}
            "http" => return Err("takes https: tenants' keys pass through; http only within this machine"),
            _ => return Err(FORM),
        }
        Ok(Self { base: format!("{scheme}://{host}"), mount: mount.to_owned(), name: name.to_owned() })
    }
}

impl Keys {
    fn validate(&self, faults: &mut Vec<String>) {
        let all = std::iter::once(("keys.master", &self.master))
            .chain(self.former.iter().map(|previous| ("keys.former", previous)));
        let mut is_external = false;
        for (place, written) in all {
            if let Some(key) = written.strip_prefix("vault:") {
                is_external = true;
                if let Err(why) = key.parse::<VaultKey>() {
                    faults.push(format!("{place}: vault: {why}"));
                }
                continue;
            }
            let named =
                ["file:", "env:"].iter().any(|kind| written.len() > kind.len() && written.starts_with(kind));
            let is_default = written.is_empty() && place == "keys.master";
            if !(named || is_default) {
                faults.push(format!(
                    "{place}: takes file:PATH, env:NAME or vault:URL; the key itself does not belong into this file"
                ));
            }
        }
        for (i, previous) in self.former.iter().enumerate() {
            if *previous == self.master || self.former[..i].contains(previous) {
                // A key that was pasted into the file is not repeated.
                faults.push(format!("keys.former: the one at place {} is named twice", i + 1));
            }
        }
        let token = self.token.expose();
        match (is_external, token) {
            (true, "") => {
                faults.push("keys.token: is empty, and Vault asks for one; set env:NAME or file:PATH".into())
            }
            (_, "") => {}
            (_, token) if token.starts_with("env:") || token.starts_with("file:") => {}
            _ => faults.push(
                "keys.token: takes env:NAME or file:PATH; the token does not belong into this file".into(),
            ),
        }
        if self.timeout.is_zero() {
            faults.push("keys.timeout: is zero".to_owned());
        }
    }
}

/// Resources of this machine that the engine may use, and its policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Records of a partition that may be in work at once; more wait in the log.
    pub permits_per_partition: NonZeroUsize,
    /// Conversations kept in memory; over it, idle ones go first.
    pub max_conversations: NonZeroUsize,
    /// Time without work after which a conversation or account leaves memory.
    #[serde(with = "human")]
    pub passivate_after: Duration,
    /// The longest that a call to a channel may take.
    #[serde(with = "human")]
    pub send_timeout: Duration,
    /// Time that the engine waits for a status after an interrupted send, while webhooks are being accepted.
    #[serde(with = "human")]
    pub unknown_wait: Duration,
    /// Number of times that a reply is sent again when no status has come in that time. Then it is abandoned; a later
    /// status lifts that. A campaign's message is never sent again.
    pub unknown_repeats: u32,
    /// Turns of one tenant that may be in retrieval or with the responder at once.
    pub turns_per_tenant: NonZeroUsize,
    /// Longest wait of a turn for its tenant's share of this node before the agent's fallback is said. Time in which
    /// the node was down does not count.
    #[serde(with = "human")]
    pub answer_deadline: Duration,
    /// Turns and other waits of one tenant that may be resumed at once in a partition, when they are due. Raise it too
    /// where more turns than this number times the partitions shall wait for a responder at once (`turns_per_tenant`).
    pub woken_per_tenant: NonZeroUsize,
    /// Most rows that this node reads a second to apply a tenant's changed retention to stored data.
    pub sweep_rows_per_second: NonZeroU32,
    /// Longest wait of a shutdown for work in progress.
    #[serde(with = "human")]
    pub drain: Duration,
    /// Greatest age of a customer's message that is answered. An older one, from the dead-letter topic or after an
    /// outage, is only recorded. Channels with a reply window, such as WhatsApp with 24 hours, send nothing later.
    #[serde(with = "human")]
    pub answer_within: Duration,
    /// Version of records that this node writes. `previous`: the one that nodes of the build before this one read, for
    /// as long as a cluster is upgraded, and until it is sure that it will not be rolled back. `newest`: this build's
    /// own. By default `previous` with Kafka, where there may be other nodes, and `newest` embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_version: Option<WriteVersion>,
}

/// Version of records that a node writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteVersion {
    /// The version before this build's.
    Previous,
    /// This build's.
    Newest,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            permits_per_partition: const { NonZeroUsize::new(1024).unwrap() },
            max_conversations: const { NonZeroUsize::new(200_000).unwrap() },
            passivate_after: Duration::from_secs(60),
            send_timeout: Duration::from_secs(15),
            unknown_wait: Duration::from_secs(60),
            unknown_repeats: 1,
            turns_per_tenant: const { NonZeroUsize::new(64).unwrap() },
            answer_deadline: Duration::from_secs(600),
            woken_per_tenant: const { NonZeroUsize::new(1024).unwrap() },
            sweep_rows_per_second: const { NonZeroU32::new(2_000).unwrap() },
            drain: Duration::from_secs(20),
            answer_within: Duration::from_secs(86_400),
            write_version: None,
        }
    }
}

/// Addresses that may be called, and thresholds from which on signs of an attack, or of a breach of personal data, are
/// an incident. An incident raises
/// `heddle_security_incidents_total` and a `security` event, one for each kind and tenant in a window. Each node counts
/// its own signals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Window in which signals count together; an incident that goes on is reported again once a window.
    #[serde(with = "human")]
    pub window: Duration,
    /// Ciphertexts of a tenant that do not open. There is no harmless one.
    pub failed_decryptions: NonZeroU64,
    /// Webhooks of a tenant's accounts with a wrong signature: some come whenever an app's secret is changed.
    pub signatures: NonZeroU64,
    /// Webhooks, ingress records and commands that name data of another tenant.
    pub cross_tenant: NonZeroU64,
    /// Exports of a tenant's contacts.
    pub exports: NonZeroU64,
    /// Records in exports of a tenant; that number is an incident also in a single export.
    pub export_records: NonZeroU64,
    /// Networks that tenants' configurations may make the node call beside the public internet, also over http: those of
    /// models and programs of one's own, such as `["10.20.0.0/16", "127.0.0.1"]`.
    pub private_addresses: Networks,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(600),
            failed_decryptions: NonZeroU64::MIN,
            signatures: const { NonZeroU64::new(20).unwrap() },
            cross_tenant: NonZeroU64::MIN,
            exports: const { NonZeroU64::new(20).unwrap() },
            export_records: const { NonZeroU64::new(50_000).unwrap() },
            private_addresses: Networks::default(),
        }
    }
}

impl Log {
    /// Settings of librdkafka that the engine's guarantees rest on; operators cannot set them.
    const OWN: [&str; 14] = [
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "client.id",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "group.id",
        "group.instance.id",
        "heartbeat.interval.ms",
        "isolation.level",
        "message.max.bytes",
        "partition.assignment.strategy",
        "session.timeout.ms",
    ];

    fn validate_kafka(&self, faults: &mut Vec<String>) {
        if self.brokers.is_empty() {
            faults.push("log.brokers: is empty; name at least one, as [\"host:9092\"]".to_owned());
        }
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !self.topic_prefix.chars().all(named) || self.topic_prefix.len() > 200 {
            faults.push("log.topic_prefix: takes letters, digits, '.', '_' and '-', at most 200".to_owned());
        }
        if self.session_timeout < Duration::from_secs(6) || self.session_timeout > Duration::from_secs(300) {
            faults.push("log.session_timeout: takes 6s to 5m, as brokers do".to_owned());
        }
        if self.retention < Duration::from_secs(3_600) {
            faults.push("log.retention: is under 1h, too short to come back from an outage".to_owned());
        }
        for key in self.client.keys().filter(|key| Self::OWN.contains(&key.as_str())) {
            faults.push(format!("log.client.{key}: is set by the engine and cannot be changed"));
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

impl State {
    fn validate_cql(&self, faults: &mut Vec<String>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_cql_store_is_reported() {
        let state = State {
            kind: StateKind::Cql,
            nodes: vec!["db1".into(), "db2:9042".into()],
            keyspace: "Heddle".into(),
            datacenters: BTreeMap::from([("dc1".to_owned(), NonZeroU32::MIN)]),
            datacenter: "dc2".into(),
            user: "heddle".into(),
            ..State::default()
        };
        let faults = Config { state, ..Config::default() }.validate().unwrap_err().to_string();
        for fault in ["\"db1\" is no host:port", "state.keyspace", "\"dc2\" is none of", "state.password"] {
            assert!(faults.contains(fault), "{fault}: {faults}");
        }
        assert!(!faults.contains("db2"), "{faults}");
        let state = State { kind: StateKind::Cql, ..State::default() };
        let log = Log { kind: LogKind::Kafka, ..Log::default() };
        Config { log, state, ..Config::default() }.validate().unwrap();
    }

    #[test]
    fn files_of_a_process_and_shared_services_do_not_mix() {
        let state = State { kind: StateKind::Cql, ..State::default() };
        let faults = Config { state, ..Config::default() }.validate().unwrap_err().to_string();
        assert!(faults.contains("\"cql\" does not go with log.kind = \"embedded\""), "{faults}");
        let log = Log { kind: LogKind::Kafka, ..Log::default() };
        let faults = Config { log, ..Config::default() }.validate().unwrap_err().to_string();
        assert!(faults.contains("\"embedded\" does not go with log.kind = \"kafka\""), "{faults}");
    }

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn the_admin_api_has_an_address_of_its_own_that_other_machines_do_not_reach() {
        assert_eq!(Http::default().admin_address(), SocketAddr::from(([127, 0, 0, 1], 8081)));
        let open = Http { listen: SocketAddr::from(([0, 0, 0, 0], 9000)), ..Http::default() };
        assert_eq!(open.admin_address(), SocketAddr::from(([127, 0, 0, 1], 9001)));
        let faults =
            |http: Http| Config { http, ..Config::default() }.validate().err().map(|e| e.to_string());
        assert_eq!(faults(open.clone()), None);
        let same = Http { admin_listen: Some(open.listen), ..open.clone() };
        assert!(faults(same).unwrap().contains("an address of its own"));
        let last = Http { listen: SocketAddr::from(([0, 0, 0, 0], 65_535)), ..open };
        assert!(faults(last).unwrap().contains("http.admin_listen: is not set"));
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused() {
        let faults = |admin: &str, metrics: &str| {
            let (admin_token, metrics_token) = (Secret::new(admin), Secret::new(metrics));
            let http = Http { admin_token, metrics_token, ..Http::default() };
            Config { http, ..Config::default() }.validate().err().map(|faults| faults.to_string())
        };
        assert_eq!(faults("env:TOKEN", "file:/t"), None);
        assert_eq!(faults("0123456789abcdef", ""), None);
        assert!(faults("0123456789abcde", "").unwrap().contains("http.admin_token: has under 16 bytes"));
        assert!(faults("", "short").unwrap().contains("http.metrics_token: has under 16 bytes"));
    }

    #[test]
    fn a_key_pasted_into_the_file_is_refused() {
        let keys = Keys {
            master: "AAAA".into(),
            former: vec!["BBBB".into(), "BBBB".into()],
            token: Secret::new("CCCC"),
            ..Keys::default()
        };
        let faults = Config { keys, ..Config::default() }.validate().unwrap_err().to_string();
        for fault in ["keys.master", "keys.former: takes", "place 2", "keys.token"] {
            assert!(faults.contains(fault), "{fault}: {faults}");
        }
        assert!(!["AAAA", "BBBB", "CCCC"].iter().any(|key| faults.contains(key)), "a key is not repeated");
    }

    #[test]
    fn a_key_in_vault_is_written_as_its_address_and_needs_a_token() {
        let faults = |master: &str, token: &str| {
            let keys = Keys { master: master.into(), token: Secret::new(token), ..Keys::default() };
            Config { keys, ..Config::default() }.validate().err().map(|faults| faults.to_string())
        };
        let good = "vault:https://vault.example.com:8200/team/transit/keys/heddle";
        assert_eq!(faults(good, "env:VAULT_TOKEN"), None);
        assert_eq!(faults("vault:http://127.0.0.1:8200/transit/keys/heddle", "file:/run/token"), None);
        let key: VaultKey = good["vault:".len()..].parse().unwrap();
        assert_eq!(
            (&*key.base, &*key.mount, &*key.name),
            ("https://vault.example.com:8200", "team/transit", "heddle")
        );
        assert_eq!(key.to_string(), good["vault:".len()..]);
        assert!(faults(good, "").unwrap().contains("keys.token"));
        for (wrong, why) in [
            ("vault:http://vault:8200/transit/keys/heddle", "takes https"),
            ("vault:http://127.0.0.1.example.com/transit/keys/heddle", "takes https"),
            ("vault:https://vault:8200/transit/heddle", "MOUNT/keys/NAME"),
            ("vault:https://vault:8200/transit/keys/", "MOUNT/keys/NAME"),
            ("vault:https://vault:8200/keys/heddle", "MOUNT/keys/NAME"),
            ("vault:https://vault:8200/transit/keys/a?b", "MOUNT/keys/NAME"),
            ("vault:https://vault:8200/../keys/a", "MOUNT/keys/NAME"),
            ("vault:https://user@vault/transit/keys/a", "MOUNT/keys/NAME"),
            ("vault:ftp://vault/transit/keys/a", "MOUNT/keys/NAME"),
            ("vault:", "MOUNT/keys/NAME"),
        ] {
            let reported = faults(wrong, "env:VAULT_TOKEN").unwrap_or_default();
            assert!(reported.contains("keys.master") && reported.contains(why), "{wrong}: {reported}");
        }
    }
}
