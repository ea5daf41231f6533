//! Scenarios against peers and raw limits.
//!
//! # Layout
//! - `bin`: the benchmarks, one program each.
//! - [`turn`]: the whole engine's turn, on any store; [`cluster`]: a store on Kafka and CQL.

pub mod cluster;
pub mod turn;
