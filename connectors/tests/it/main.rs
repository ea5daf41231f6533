//! The connectors against the real thing or a stand-in on loopback.
//!
//! One binary, so that the crate's tests are linked once. Kafka and Cassandra are started by the first test that needs
//! them and end with the last process that does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod calendar;
mod conformance;
mod cql;
mod embedded;
mod grounded_answers;
mod kafka;
mod llm;
mod vault;
mod whatsapp;
