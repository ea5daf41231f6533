//! Names of the topics, and their numbers of partitions.

use heddle_schemas::topic::Topic;

/// The topics' names under a prefix, and their partitions.
#[derive(Debug, Clone)]
pub(super) struct Names {
    names: [String; Topic::ALL.len()],
    partitions: u32,
}

impl Names {
    pub(super) fn new(prefix: &str, partitions: u32) -> Self {
        Self { names: Topic::ALL.map(|topic| format!("{prefix}{topic}")), partitions }
    }

    pub(super) fn of(&self, topic: Topic) -> &str {
        let at = Topic::ALL.iter().position(|&one| one == topic);
        &self.names[at.expect("every topic is among all")]
    }

    pub(super) fn topic(&self, name: &str) -> Option<Topic> {
        self.names.iter().position(|one| one == name).map(|at| Topic::ALL[at])
    }

    pub(super) fn partitions(&self, topic: Topic) -> u32 {
        match topic {
            Topic::Ingress | Topic::Inbound | Topic::Outbound | Topic::Events => self.partitions,
            // One file of each is enough: tenants are read whole by every node, and letters are rare.
            Topic::Tenants | Topic::Dlq => 1,
        }
    }
}
