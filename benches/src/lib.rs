//! Scenarios against peers and raw limits.
//!
//! # Layout
//! - `bin`: the benchmarks, one program each.
//! - [`turn`]: the whole engine's turn, on whatever store; [`cluster`]: the one on Kafka and CQL.

pub mod cluster;
pub mod turn;
