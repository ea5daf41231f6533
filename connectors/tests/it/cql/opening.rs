//! Connecting, and the schema.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use heddle_connectors::cql::schema::{Change, Schema, Wanted};
use heddle_connectors::cql::{Cql, OpenError, Options};

use crate::cql::server;

const ONE: Wanted = Wanted::Everywhere(NonZeroU32::MIN);

async fn drop_keyspace(name: &str) {
    server::session().await.query_unpaged(format!("DROP KEYSPACE IF EXISTS {name}"), ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_is_reported_at_once() {
    let options = Options {
        nodes: vec!["127.0.0.1:1".into()],
        timeout: Duration::from_secs(2),
        ..server::options("heddle").await
    };
    let error =
        tokio::time::timeout(Duration::from_secs(10), Cql::open(&options)).await.unwrap().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_made_once_and_found_whole() {
    let options = server::options(&server::name("schema")).await;
    let error = Cql::open(&options).await.unwrap_err();
    assert!(matches!(error, OpenError::Schema { .. }), "{error}");
    assert!(error.to_string().contains("run `heddle schema apply`"), "{error}");

    let schema = Schema::connect(&options, ONE).await.unwrap();
    let missing = schema.diff().await.unwrap();
    assert!(matches!(missing[0], Change::Keyspace { .. }), "{missing:?}");
    assert_eq!(schema.apply().await.unwrap(), missing);
    assert_eq!(schema.diff().await.unwrap(), []);
    assert_eq!(schema.apply().await.unwrap(), []);
    let store = Cql::open(&options).await.unwrap();
    let replication = store.replication().await.unwrap();
    assert_eq!(replication.class, "NetworkTopologyStrategy");
    assert_eq!(replication.factors.values().collect::<Vec<_>>(), [&1]);

    // A dropped table is noticed, and is created again.
    let session = server::session().await;
    session.query_unpaged(format!("DROP TABLE {}.send", options.keyspace), ()).await.unwrap();
    let missing = schema.diff().await.unwrap();
    assert!(matches!(missing[..], [Change::Table { name: "send", .. }]), "{missing:?}");
    let error = Cql::open(&options).await.unwrap_err().to_string();
    assert!(error.contains("lacks the table send"), "{error}");
    schema.apply().await.unwrap();

    // A later build's migration.
    let later = format!("INSERT INTO {}.schema_version (version) VALUES (999)", options.keyspace);
    session.query_unpaged(later, ()).await.unwrap();
    let error = Cql::open(&options).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 999, .. }), "{error}");
    drop_keyspace(&options.keyspace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_apply_at_once_both_succeed() {
    let options = server::options(&server::name("twice")).await;
    let (one, other) =
        (Schema::connect(&options, ONE).await.unwrap(), Schema::connect(&options, ONE).await.unwrap());
    let (first, second) = tokio::join!(one.apply(), other.apply());
    first.unwrap();
    second.unwrap();
    assert_eq!(one.diff().await.unwrap(), []);
    Cql::open(&options).await.unwrap();
    drop_keyspace(&options.keyspace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replication_is_reported_and_changed() {
    let options = server::options(&server::name("replication")).await;
    let simple = format!(
        "CREATE KEYSPACE {} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
        options.keyspace
    );
    server::session().await.query_unpaged(simple, ()).await.unwrap();
    let schema = Schema::connect(&options, ONE).await.unwrap();
    let missing = schema.diff().await.unwrap();
    let Change::Replication { found, .. } = &missing[0] else { panic!("{missing:?}") };
    assert_eq!(found.class, "SimpleStrategy");
    let applied = schema.apply().await.unwrap();
    assert_eq!(applied.len(), missing.len());
    assert!(matches!(applied.last(), Some(Change::Replication { .. })), "{applied:?}");
    assert_eq!(schema.diff().await.unwrap(), []);

    let three = Wanted::Everywhere(NonZeroU32::new(3).unwrap());
    let missing = Schema::connect(&options, three).await.unwrap().diff().await.unwrap();
    let [Change::Replication { found, cql }] = &missing[..] else { panic!("{missing:?}") };
    assert!(found.factors.values().all(|&factor| factor == 1));
    assert!(cql.starts_with("ALTER KEYSPACE") && cql.contains("'replication_factor': 3"), "{cql}");

    let datacenter = found.factors.keys().next().unwrap().clone();
    let named = Wanted::Exactly(BTreeMap::from([(datacenter, NonZeroU32::MIN)]));
    assert_eq!(Schema::connect(&options, named).await.unwrap().diff().await.unwrap(), []);
    let elsewhere = Wanted::Exactly(BTreeMap::from([("elsewhere".to_owned(), NonZeroU32::MIN)]));
    assert_eq!(Schema::connect(&options, elsewhere).await.unwrap().diff().await.unwrap().len(), 1);
    drop_keyspace(&options.keyspace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_datacenter_is_reported() {
    let options = Options { datacenter: Some("nowhere".into()), ..server::options("heddle").await };
    let error = Cql::open(&options).await.unwrap_err();
    assert!(matches!(error, OpenError::Datacenter { .. }), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}
