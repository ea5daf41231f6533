//! The configuration of a node that runs on real Kafka and CQL, with topics and tables of its own.

use std::path::Path;

use heddle_connectors::cql::schema::Schema;
use heddle_connectors::kafka::topics;
use heddle_engine::configuration;
use heddle_schemas::config::{Config, LogKind, StateKind};

use heddle_connectors_testing::services::Services;

/// A node's, whose topics and keyspace bear this name and are there.
pub(crate) async fn prepared(name: &str, folder: &Path) -> Config {
    let id = std::process::id();
    let mut config = Config { data_dir: folder.join("data"), ..Config::default() };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.security.private_addresses = heddle_schemas::network::Networks::loopback();
    config.log.kind = LogKind::Kafka;
    config.log.brokers = vec![Services::get().kafka.clone()];
    config.log.topic_prefix = format!("{name}.{id}.");
    config.log.partitions = 2.try_into().unwrap();
    config.state.kind = StateKind::Cql;
    config.state.nodes = vec![Services::get().cql.clone()];
    config.state.keyspace = format!("{name}_{id}");
    config.validate().unwrap();
    topics::apply(&configuration::kafka(&config)).await.unwrap();
    let (cql, replication) = configuration::cql(&config.state);
    Schema::connect(&cql, replication).await.unwrap().apply().await.unwrap();
    config
}
