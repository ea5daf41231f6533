//! Commit of a batch, repeated until the store has it.
//!
//! The outcome of an unanswered write is unknown, so the batch is built anew for each attempt, with the flag that its
//! outputs may have been published before. Beside it: [`super::retry`], the pauses between attempts; [`super::update`],
//! the change of a row by conditional update; [`super::pages`], the pages of a scan.

use std::time::Duration;

use heddle_schemas::ports::state::{Batch, State, StoreError};
use heddle_schemas::ports::update::Patience as _;
use heddle_schemas::record::event::IncidentKind;
use heddle_schemas::table::{Key, Written};
use heddle_schemas::time::LogThrottle;

pub use super::retry::read;
use super::retry::{self, Retrying};
use crate::metrics::Metrics;

/// The first pause after a failure, and the longest.
pub(crate) const PAUSES: (Duration, Duration) = (retry::STORE.first, retry::STORE.longest);

/// Commits `build(again)` until the store has it; `again` is true from the second attempt on.
///
/// # Errors
/// Errors that a retry does not fix: [`StoreError::Fenced`], [`StoreError::Closed`], [`StoreError::Corrupt`],
/// [`StoreError::TooLarge`]. A batch that has rows or records of two tenants is refused as corrupt, an incident: it is
/// better not to go on than to mix them.
pub async fn commit(
    state: &dyn State,
    metrics: &Metrics,
    build: impl Fn(bool) -> Batch,
) -> Result<(), StoreError> {
    let batch = build(false);
    debug_assert!(
        batch.writes.iter().chain(&batch.after).all(|write| is_in_batches(&write.key)),
        "a row that is written on a condition is in a batch"
    );
    if let Some((one, other)) = batch.mixes() {
        metrics.security_signal(IncidentKind::CrossTenant, true);
        let detail =
            format!("a batch of tenant {one} has something of tenant {other}; nothing of it was written");
        tracing::error!(detail, "tenants are kept apart");
        return Err(StoreError::Corrupt { detail });
    }
    match state.commit(batch).await {
        // Rare, and in a box, so that the first attempt takes no more space than it needs.
        Err(error) if error.is_transient() => Box::pin(commit_again(state, metrics, build, error)).await,
        done => done,
    }
}

/// Returns whether a row is written in batches, as its table says.
fn is_in_batches(key: &Key) -> bool {
    match key.table().descriptor().written {
        Written::Fenced | Written::Unfenced => true,
        Written::Versioned => !key.row().is_empty(),
        Written::Conditional => false,
    }
}

async fn commit_again(
    state: &dyn State,
    metrics: &Metrics,
    build: impl Fn(bool) -> Batch,
    mut error: StoreError,
) -> Result<(), StoreError> {
    static LOG: LogThrottle = LogThrottle::new();
    let mut retrying = Retrying::new(metrics, "commit", &LOG);
    loop {
        retrying.failed(error).await?;
        match state.commit(build(true)).await {
            Err(again) => error = again,
            done => return done,
        }
    }
}
