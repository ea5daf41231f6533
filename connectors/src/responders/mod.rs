//! What answers a turn.
//!
//! # Layout
//! - [`extractive`]: the best passage of the tenant's documents, without an LLM.

pub mod extractive;

pub use extractive::Extractive;
