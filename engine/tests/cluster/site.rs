//! Topics, a keyspace and nodes of a test of its own.

use std::path::Path;

use crate::process::Node;
use crate::services::Services;

/// Partitions of inbound and of outbound.
pub(crate) const PARTITIONS: usize = 6;

/// Nodes that share topics and a keyspace.
pub(crate) struct Site {
    pub(crate) nodes: Vec<Node>,
}

impl Site {
    /// So many nodes, named from `a` on, over fresh topics and tables.
    pub(crate) fn new(folder: &Path, nodes: usize) -> Self {
        let services = Services::get();
        let id = std::process::id();
        let key = folder.join("master.key");
        // 32 bytes: the nodes of a cluster share one key.
        std::fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        let config = format!(
            "keys.master = \"file:{key}\"\nnode.lease = \"5s\"\n\
             log.kind = \"kafka\"\nlog.brokers = [\"{kafka}\"]\nlog.topic_prefix = \"cluster.{id}.\"\n\
             log.partitions = {PARTITIONS}\nlog.session_timeout = \"6s\"\n\
             state.kind = \"cql\"\nstate.nodes = [\"{cql}\"]\nstate.keyspace = \"cluster_{id}\"\n\
             engine.send_timeout = \"2s\"\nengine.unknown_wait = \"10s\"\nengine.drain = \"30s\"\n",
            key = key.display(),
            kafka = services.kafka,
            cql = services.cql,
        );
        let nodes: Vec<_> =
            ('a'..='z').take(nodes).map(|name| Node::new(folder, &name.to_string(), &config)).collect();
        nodes[0].command(&["topics", "apply"]);
        nodes[0].command(&["schema", "apply"]);
        Self { nodes }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }
}
