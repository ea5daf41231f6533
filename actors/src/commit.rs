//! Writes a batch until it is written.
//!
//! A full or unreachable store slows its callers down; it fails none of their turns. Whether an
//! unanswered write happened is not known, so the batch is built anew for each attempt and told that
//! its outputs may have been published before.

use std::time::Duration;

use heddle_schemas::ports::state::{Batch, State, StoreError};

use crate::metrics::Metrics;

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Commits `build(again)` until the store has it; `again` is true from the second attempt on.
///
/// # Errors
/// What no repetition mends: [`StoreError::Fenced`], [`StoreError::Closed`], [`StoreError::Corrupt`],
/// [`StoreError::TooLarge`].
pub async fn commit(
    state: &dyn State,
    metrics: &Metrics,
    build: impl Fn(bool) -> Batch,
) -> Result<(), StoreError> {
    let mut batch = build(false);
    let mut pause = PAUSES.0;
    loop {
        match state.commit(batch).await {
            Err(error) if error.is_transient() => {
                metrics.store_retried(&error);
                tracing::warn!(%error, pause_ms = pause.as_millis(), "a commit is tried again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                batch = build(true);
            }
            done => return done,
        }
    }
}

/// Repeats a read until the store answers.
///
/// # Errors
/// What no repetition mends, as [`commit`].
pub async fn read<T, F: Future<Output = Result<T, StoreError>>>(
    metrics: &Metrics,
    mut read: impl FnMut() -> F,
) -> Result<T, StoreError> {
    let mut pause = PAUSES.0;
    loop {
        match read().await {
            Err(error) if error.is_transient() => {
                metrics.store_retried(&error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
            done => return done,
        }
    }
}
