//! Responders: they answer turns.
//!
//! # Layout
//! - [`extractive`]: the best passage of the tenant's documents, without an LLM.
//! - [`llm`]: a language model, called over HTTP.

pub mod extractive;
pub mod llm;

pub use extractive::Extractive;
pub use llm::Llm;
