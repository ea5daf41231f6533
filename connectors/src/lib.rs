//! Connectors to the outside: logs, state stores, keys, knowledge, responders, calendars and channels.
//!
//! # Layout
//! - [`calendar`]: calendars that appointments are booked into.
//! - [`channels`]: messaging channels, a folder each.
//! - [`clock`]: the machine's clock.
//! - [`cluster`]: log and state of many nodes: Kafka, CQL and the ownership that binds them.
//! - [`cql`]: rows in ScyllaDB or Apache Cassandra.
//! - [`egress`]: addresses that tenants may make a node call.
//! - [`embedded`]: log and state of one process, in files.
//! - `http`: the shared parts of calls to external HTTP APIs.
//! - [`kafka`]: the log on Apache Kafka.
//! - [`keys`]: envelope encryption over any state store (crate `heddle-keys`), and Vault.
//! - [`knowledge`]: tenants' documents, searched with Tantivy.
//! - [`metrics`]: the metrics of the stores.
//! - [`responders`]: the responders, a file each.
//! - `words`: the words of a text, for the index and the responders.
//!
//! Crates of their own, for what links little: `heddle-keys` (keys/) and `heddle-memory` (memory/), every port in memory.

pub mod calendar;
pub mod channels;
pub mod clock;
pub mod cluster;
pub mod cql;
pub mod egress;
pub mod embedded;
#[cfg(test)]
mod fixtures;
mod http;
pub mod kafka;
pub mod keys;
pub mod knowledge;
pub mod metrics;
pub mod responders;
mod words;
