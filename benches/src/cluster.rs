//! A store on Kafka and CQL, with topics and a keyspace of its own.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use heddle_connectors::clock::SystemClock;
use heddle_connectors::cluster::{self, Cluster};
use heddle_connectors::cql::schema::{Schema, Wanted};
use heddle_connectors::cql::{self, Cql};
use heddle_connectors::kafka::{self, Connection, Kafka, topics};
use heddle_schemas::ports::log::Log as _;
use heddle_schemas::sealed::Secret;

/// Addresses of the servers.
#[derive(Debug, Clone, Args)]
pub struct Servers {
    /// A Kafka broker.
    #[arg(long, default_value = "127.0.0.1:19092")]
    pub kafka: String,
    /// A node that speaks CQL.
    #[arg(long, default_value = "127.0.0.1:19042")]
    pub cql: String,
}

/// Store whose every partition this process owns.
pub struct Opened {
    /// The store.
    pub store: Arc<Cluster>,
    /// Prefix of its topics' names.
    pub prefix: String,
    /// Its keyspace.
    pub keyspace: String,
}

impl Servers {
    /// Creates topics and a keyspace, and waits until all of it is owned.
    ///
    /// # Errors
    /// If a server cannot be reached or refuses.
    pub async fn open(&self, partitions: NonZeroU32) -> anyhow::Result<Opened> {
        let id = std::process::id();
        let of_cql = cql::Options {
            nodes: vec![self.cql.clone()],
            keyspace: format!("bench_{id}"),
            datacenter: None,
            user: String::new(),
            password: Secret::default(),
            tls: None,
            timeout: Duration::from_secs(20),
            in_flight: const { NonZeroUsize::new(512).unwrap() },
        };
        let of_kafka = kafka::Options {
            connection: Connection {
                brokers: vec![self.kafka.clone()],
                node: "bench".into(),
                client: BTreeMap::new(),
            },
            prefix: format!("bench.{id}."),
            partitions,
            session_timeout: Duration::from_secs(30),
            handover: Duration::from_secs(5),
            max_record_bytes: 1_000_000,
            policy: topics::Policy { replication: 1, retention: Duration::from_secs(86_400) },
        };
        Schema::connect(&of_cql, Wanted::Everywhere(NonZeroU32::MIN)).await?.apply().await?;
        topics::apply(&of_kafka).await?;
        let clock = Arc::new(SystemClock);
        let kafka = Kafka::open(&of_kafka, clock.clone()).await?;
        let options = cluster::Options {
            owner: format!("bench/{id}"),
            lease: Duration::from_secs(10),
            longest_call: Duration::from_secs(1),
            handover: Duration::from_secs(5),
        };
        let store = Cluster::new(options, Arc::new(kafka), Cql::open(&of_cql).await?, clock);
        let mut seen = 0;
        loop {
            let assignment = store.assignment(seen).await?;
            seen = assignment.generation;
            if assignment.partitions.len() >= 2 * partitions.get() as usize {
                break;
            }
        }
        Ok(Opened { store, prefix: of_kafka.prefix, keyspace: of_cql.keyspace })
    }
}
