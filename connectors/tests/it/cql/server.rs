//! A keyspace on a real server.
//!
//! Each test process has a keyspace of its own. Nothing runs after the last test of a process, so its
//! keyspace is dropped by the next process that starts after it has ended.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::time::Duration;

use heddle_connectors::cql::Options;
use heddle_connectors::cql::schema::{Schema, Wanted};
use heddle_schemas::sealed::Secret;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::OnceCell;

use heddle_connectors_testing::services::Services;

const PREFIX: &str = "heddle_test_";

/// Returns the server's address, `host:port`.
pub(crate) async fn address() -> String {
    tokio::task::spawn_blocking(|| Services::get().cql.clone()).await.unwrap()
}

/// Returns the options of this process's keyspace; it need not exist.
pub(crate) async fn options(keyspace: &str) -> Options {
    Options {
        nodes: vec![address().await],
        keyspace: keyspace.to_owned(),
        datacenter: None,
        user: String::new(),
        password: Secret::default(),
        tls: None,
        timeout: Duration::from_secs(20),
        in_flight: const { NonZeroUsize::new(512).unwrap() },
    }
}

/// A keyspace with every table, the same for all tests of this process.
pub(crate) async fn keyspace() -> Options {
    static KEYSPACE: OnceCell<Options> = OnceCell::const_new();
    KEYSPACE
        .get_or_init(|| async {
            drop_leftovers().await;
            let options = options(&name("rows")).await;
            apply(&options).await;
            options
        })
        .await
        .clone()
}

/// A name for a keyspace of this process.
pub(crate) fn name(of: &str) -> String {
    format!("{PREFIX}{}_{of}", std::process::id())
}

/// Makes a keyspace and its tables.
pub(crate) async fn apply(options: &Options) {
    let wanted = Wanted::Everywhere(NonZeroU32::MIN);
    Schema::connect(options, wanted).await.unwrap().apply().await.unwrap();
}

/// A session without any of the store's settings.
pub(crate) async fn session() -> Session {
    SessionBuilder::new().known_node(address().await).build().await.unwrap()
}

async fn drop_leftovers() {
    let session = session().await;
    let names = session.query_unpaged("SELECT keyspace_name FROM system_schema.keyspaces", ()).await.unwrap();
    let names = names.into_rows_result().unwrap();
    for row in names.rows::<(String,)>().unwrap() {
        let (name,) = row.unwrap();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another process may drop it at the same time.
            let _ = session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {name}"), ()).await;
        }
    }
}
