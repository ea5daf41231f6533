//! Writes a batch until it is written.
//!
//! A full or unreachable store slows its callers down; it fails none of their turns. Whether an
//! unanswered write happened is not known, so the batch is built anew for each attempt and told that
//! its outputs may have been published before.

use std::time::Duration;

use heddle_schemas::ports::state::{Batch, State, StoreError};
use heddle_schemas::record::event::IncidentKind;
use heddle_schemas::table::{Key, Written};
use heddle_schemas::time::Seldom;

use crate::metrics::Metrics;

/// The first pause after a failure, and the longest.
pub(crate) const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Commits `build(again)` until the store has it; `again` is true from the second attempt on.
///
/// # Errors
/// What no repetition mends: [`StoreError::Fenced`], [`StoreError::Closed`], [`StoreError::Corrupt`],
/// [`StoreError::TooLarge`]. A batch that has rows or records of two tenants is refused as corrupt, an incident: it
/// is better not to go on than to mix them.
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
        metrics.sighted(IncidentKind::CrossTenant, true);
        let detail =
            format!("a batch of tenant {one} has something of tenant {other}; nothing of it was written");
        tracing::error!(detail, "tenants are kept apart");
        return Err(StoreError::Corrupt { detail });
    }
    match state.commit(batch).await {
        // Rare, and in a box, so that who waits for the first attempt holds no more than that.
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
    let mut pause = PAUSES.0;
    loop {
        metrics.store_retried(&error);
        // A store that is away fails thousands of commits at once.
        static TOLD: Seldom = Seldom::new();
        if TOLD.lets_through() {
            tracing::warn!(%error, "commits are tried again");
        } else {
            tracing::debug!(%error, pause_ms = pause.as_millis(), "a commit is tried again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
        match state.commit(build(true)).await {
            Err(again) if again.is_transient() => error = again,
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
                static TOLD: Seldom = Seldom::new();
                if TOLD.lets_through() {
                    tracing::warn!(%error, "what cannot be read now is read again");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
            done => return done,
        }
    }
}
