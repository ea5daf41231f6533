//! Topics, a keyspace and nodes of a test of its own.

use std::path::Path;

use futures::StreamExt as _;
use heddle_schemas::table::Table;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::Row;

use crate::process::Node;
use heddle_connectors_testing::services::Services;

/// Partitions of inbound and of outbound.
pub(crate) const PARTITIONS: usize = 6;

/// Nodes that share topics and a keyspace.
pub(crate) struct Site {
    pub(crate) nodes: Vec<Node>,
    /// Lines of each node's configuration about topics and tables.
    config: String,
    keyspace: String,
}

/// Rows in the database at the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Messages that were seen.
    pub(crate) markers: i64,
    /// Messages that were sent, by their journals.
    pub(crate) sends: i64,
    /// Messages of which a status has come.
    pub(crate) deliveries: i64,
    /// Pending rows, for a time or for an account.
    pub(crate) waiting: i64,
}

impl Site {
    /// Creates `nodes` nodes, named from `a` on, over fresh topics and tables that this build of `heddle` prepares;
    /// `more` adds to their configuration.
    pub(crate) fn new(folder: &Path, nodes: usize, name: &str, binary: &Path, more: &str) -> Self {
        let services = Services::get();
        let id = std::process::id();
        let keyspace = format!("{name}_{id}");
        let key = folder.join("master.key");
        // 32 bytes: the nodes of a cluster share one key.
        std::fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        let config = format!(
            "keys.master = \"file:{key}\"\nnode.lease = \"5s\"\n\
             log.kind = \"kafka\"\nlog.brokers = [\"{kafka}\"]\nlog.topic_prefix = \"{name}.{id}.\"\n\
             log.partitions = {PARTITIONS}\nlog.session_timeout = \"6s\"\n\
             state.kind = \"cql\"\nstate.nodes = [\"{cql}\"]\nstate.keyspace = \"{keyspace}\"\n\
             engine.send_timeout = \"2s\"\nengine.unknown_wait = \"10s\"\nengine.drain = \"30s\"\n",
            key = key.display(),
            kafka = services.kafka,
            cql = services.cql,
        );
        let mut nodes: Vec<_> = ('a'..='z')
            .take(nodes)
            .map(|name| Node::new(folder, &name.to_string(), &format!("{config}{more}")))
            .collect();
        nodes.iter_mut().for_each(|node| node.install(binary));
        nodes[0].command(&["topics", "apply"]);
        nodes[0].command(&["schema", "apply"]);
        Self { nodes, config, keyspace }
    }

    /// Writes a node's configuration anew.
    pub(crate) fn configure(&self, node: usize, more: &str) {
        self.nodes[node].configure(&format!("{}{more}", self.config));
    }

    /// Reads back, beside the engine, what it has left.
    pub(crate) async fn stored(&self) -> Stored {
        let session = SessionBuilder::new().known_node(&Services::get().cql).build().await.unwrap();
        let count = async |rows_of: String| rows(&session, &self.keyspace, &rows_of).await;
        let of_kind = |table: Table| format!("conversation WHERE kind = {} ALLOW FILTERING", table as i8);
        Stored {
            markers: count(of_kind(Table::Marker)).await,
            sends: count("send".into()).await,
            deliveries: count(of_kind(Table::Delivery)).await,
            waiting: count("agenda".into()).await + count("account".into()).await,
        }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }
}

async fn rows(session: &Session, keyspace: &str, rows_of: &str) -> i64 {
    let pager = session.query_iter(format!("SELECT * FROM {keyspace}.{rows_of}"), ()).await.unwrap();
    let rows = pager.rows_stream::<Row>().unwrap();
    i64::try_from(rows.map(Result::unwrap).count().await).unwrap()
}
