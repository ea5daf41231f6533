//! Translation of the cluster's errors to the store's.
//!
//! Every failed request becomes `Unavailable`: after a timeout the outcome of a write is unknown, and a write that
//! is known to have failed may be retried as well. Only bytes that cannot be read are `Corrupt`. Details name the
//! statement and the server's message, never a value.

use std::fmt::Display;

use heddle_schemas::ports::log::StoreError;
use scylla::errors::ExecutionError;

/// A request that failed.
pub(super) fn unavailable(what: &str, error: &ExecutionError) -> StoreError {
    StoreError::Unavailable { detail: format!("{what}: {error}") }
}

/// An answer of another shape than the statement's.
pub(super) fn corrupt(what: &str, error: impl Display) -> StoreError {
    StoreError::Corrupt { detail: format!("{what}: {error}; check the schema with `heddle schema diff`") }
}
