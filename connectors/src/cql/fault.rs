//! What the cluster answers, as the store's faults.
//!
//! Whatever a request ended with, the store says `Unavailable`: after a timeout nobody knows whether a
//! write took place, and what is known not to have happened may be tried again as well. Only bytes that
//! cannot be read are `Corrupt`. Details name the statement and what the server said, never a value.

use std::fmt::Display;

use heddle_schemas::ports::log::StoreError;
use scylla::errors::ExecutionError;

/// A request that failed.
pub(super) fn unavailable(what: &str, error: &ExecutionError) -> StoreError {
    StoreError::Unavailable { detail: format!("{what}: {error}") }
}

/// An answer that is not what the statement asks for.
pub(super) fn corrupt(what: &str, error: impl Display) -> StoreError {
    StoreError::Corrupt { detail: format!("{what}: {error}; check the schema with `heddle schema diff`") }
}
