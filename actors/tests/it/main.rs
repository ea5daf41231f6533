//! The actors over ports in memory, under paused time.
//!
//! One binary, so that the crate's tests are linked once. The seeded simulation of the whole is [`simulation`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod audience;
mod audit;
mod consent;
mod disconnection;
mod fairness;
mod forget;
mod identity;
mod ingress;
mod log_lines;
mod partition;
mod promises;
mod quota;
mod requests;
mod retention;
mod sender;
mod simulation;
mod tables;
mod tenant_deletion;
mod tenant_records;
mod tools;
mod turns;
mod versions;
