//! Kafka and CQL as a store to run the suites on: topics and a keyspace of its own for each test.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use heddle_connectors::cluster::{Cluster, Options};
use heddle_connectors::cql::schema::{Schema, Wanted};
use heddle_connectors::cql::{self, Cql};
use heddle_connectors::kafka::{self, Connection, Kafka, topics};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::Log as _;
use heddle_schemas::sealed::Secret;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::conformance::stores::{Backend, Opened};
use heddle_connectors_testing::services::Services;

/// Making tables is the slowest part, so that few keyspaces are used in turn, emptied in between.
const KEYSPACES: usize = 3;

/// Topics and a keyspace.
pub(crate) struct ClusterBackend {
    place: Option<Place>,
    open: Option<Arc<Cluster>>,
}

struct Place {
    keyspace: Option<String>,
    prefix: String,
    _permit: OwnedSemaphorePermit,
}

impl ClusterBackend {
    pub(crate) fn new() -> Self {
        Self { place: None, open: None }
    }
}

#[async_trait]
impl Backend for ClusterBackend {
    async fn open(&mut self, clock: Arc<dyn Clock>) -> Opened {
        if let Some(before) = self.open.take() {
            before.close().await;
        }
        if self.place.is_none() {
            self.place = Some(Place::take().await);
        }
        let place = self.place.as_ref().unwrap();
        let kafka = Kafka::open(&place.kafka(), clock.clone()).await.unwrap();
        let cql = Cql::open(&place.cql()).await.unwrap();
        static INCARNATION: AtomicU64 = AtomicU64::new(0);
        let options = Options {
            owner: format!("a/{}", INCARNATION.fetch_add(1, Ordering::Relaxed)),
            lease: Duration::from_secs(10),
            longest_call: Duration::from_secs(1),
            handover: Duration::from_secs(5),
        };
        let cluster = Cluster::new(options, Arc::new(kafka), cql, clock);
        cluster.assignment(0).await.unwrap();
        self.open = Some(cluster.clone());
        Opened { log: cluster.clone(), state: cluster }
    }
}

impl Place {
    async fn take() -> Self {
        static PERMITS: OnceLock<Arc<Semaphore>> = OnceLock::new();
        let permits = PERMITS.get_or_init(|| Arc::new(Semaphore::new(KEYSPACES)));
        let permit = permits.clone().acquire_owned().await.unwrap();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut place = Self {
            keyspace: free().lock().unwrap().pop(),
            prefix: format!("conformance.{}.{number}.", std::process::id()),
            _permit: permit,
        };
        match &place.keyspace {
            Some(keyspace) => empty(keyspace).await,
            None => {
                sweep().await;
                place.keyspace = Some(format!("conformance_{}_{number}", std::process::id()));
                let schema = Schema::connect(&place.cql(), Wanted::Everywhere(NonZeroU32::MIN)).await;
                schema.unwrap().apply().await.unwrap();
            }
        }
        topics::apply(&place.kafka()).await.unwrap();
        place
    }

    fn kafka(&self) -> kafka::Options {
        kafka::Options {
            connection: Connection {
                brokers: vec![Services::get().kafka.clone()],
                node: "a".into(),
                client: BTreeMap::new(),
            },
            prefix: self.prefix.clone(),
            partitions: NonZeroU32::new(3).unwrap(),
            session_timeout: Duration::from_secs(6),
            handover: Duration::from_secs(5),
            max_record_bytes: 1_000_000,
            // The fixture's clock stands months ago, and brokers delete by the records' time.
            policy: topics::Policy { replication: 1, retention: Duration::from_secs(10 * 365 * 86_400) },
        }
    }

    fn cql(&self) -> cql::Options {
        cql::Options {
            nodes: vec![Services::get().cql.clone()],
            keyspace: self.keyspace.clone().unwrap(),
            datacenter: None,
            user: String::new(),
            password: Secret::default(),
            tls: None,
            timeout: Duration::from_secs(10),
            in_flight: NonZeroUsize::new(128).unwrap(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        heddle_connectors_testing::topics::delete(std::mem::take(&mut self.prefix));
        free().lock().unwrap().extend(self.keyspace.take());
    }
}

fn free() -> &'static Mutex<Vec<String>> {
    static FREE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    &FREE
}

/// Session of the calling test to make room with: another one would end with another test's runtime.
async fn session() -> Session {
    let session = SessionBuilder::new().known_node(&Services::get().cql);
    session.connection_timeout(Duration::from_secs(30)).build().await.unwrap()
}

/// Removes the leftovers of processes that have ended.
async fn sweep() {
    static SWEPT: AtomicBool = AtomicBool::new(false);
    if SWEPT.swap(true, Ordering::Relaxed) {
        return;
    }
    let session = session().await;
    for keyspace in names(&session, "SELECT keyspace_name FROM system_schema.keyspaces", &[]).await {
        let of = keyspace.strip_prefix("conformance_").and_then(|rest| rest.split('_').next());
        if of.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            session.query_unpaged(format!("DROP KEYSPACE {keyspace}"), &[]).await.unwrap();
        }
    }
}

async fn empty(keyspace: &str) {
    let session = session().await;
    let tables = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    for table in names(&session, tables, &[keyspace]).await {
        // Truncating makes the server flush and delete files, which takes longer than most tests do.
        let row = format!("SELECT * FROM {keyspace}.{table} LIMIT 1");
        let found = session.query_unpaged(row, &[]).await.unwrap().into_rows_result().unwrap();
        if table != "schema_version" && found.rows_num() > 0 {
            session.query_unpaged(format!("TRUNCATE {keyspace}.{table}"), &[]).await.unwrap();
        }
    }
}

async fn names(session: &Session, statement: &str, values: &[&str]) -> Vec<String> {
    let found = session.query_unpaged(statement, values).await.unwrap().into_rows_result().unwrap();
    found.rows::<(String,)>().unwrap().map(|row| row.unwrap().0).collect()
}
