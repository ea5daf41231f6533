//! Retries of store operations: one way to wait, count and log.
//!
//! A full or unreachable store slows its callers down; it fails none of their turns.

use std::time::Duration;

use heddle_schemas::ports::state::StoreError;
use heddle_schemas::ports::update::Patience;
use heddle_schemas::retry::{Backoff, RetryPolicy};
use heddle_schemas::time::LogThrottle;

use crate::metrics::Metrics;

/// Policy of everything that waits for the store.
pub(crate) const STORE: RetryPolicy = RetryPolicy::endless(Duration::from_millis(10), Duration::from_secs(1));

/// A series of attempts at the store.
pub(crate) struct Retrying<'m> {
    metrics: &'m Metrics,
    backoff: Backoff,
    log: &'static LogThrottle,
    operation: &'static str,
}

impl<'m> Retrying<'m> {
    /// Attempts at an operation, named in the log line that `log` lets through.
    pub(crate) fn new(metrics: &'m Metrics, operation: &'static str, log: &'static LogThrottle) -> Self {
        Self { metrics, backoff: STORE.begin(), log, operation }
    }

    /// Counts, logs and waits after a failure of any kind.
    pub(crate) async fn wait(&mut self, error: &StoreError) {
        self.metrics.store_retried(error);
        let pause = self.backoff.failed().unwrap_or(STORE.longest);
        // A store that is away fails thousands of operations at once.
        if self.log.lets_through() {
            tracing::warn!(%error, operation = self.operation, "the store fails; retrying");
        } else {
            let pause_ms = pause.as_millis();
            tracing::debug!(%error, operation = self.operation, pause_ms, "the store fails; retrying");
        }
        tokio::time::sleep(pause).await;
    }
}

impl Patience for Retrying<'_> {
    /// Waits after a transient error; returns any other.
    async fn failed(&mut self, error: StoreError) -> Result<(), StoreError> {
        if !error.is_transient() {
            return Err(error);
        }
        self.wait(&error).await;
        Ok(())
    }

    async fn lost(&mut self) {
        // The faster writer may be writing again: nodes that contend for a row should take turns rather than write at
        // once.
        tokio::time::sleep(STORE.first / 2).await;
    }
}

/// Repeats a read until the store answers.
///
/// # Errors
/// Errors that a retry does not fix, as [`super::commit::commit`].
pub async fn read<T, F: Future<Output = Result<T, StoreError>>>(
    metrics: &Metrics,
    mut read: impl FnMut() -> F,
) -> Result<T, StoreError> {
    match read().await {
        // Rare, and in a box, so that the first attempt takes no more space than it needs.
        Err(error) if error.is_transient() => Box::pin(read_again(metrics, read, error)).await,
        done => done,
    }
}

async fn read_again<T, F: Future<Output = Result<T, StoreError>>>(
    metrics: &Metrics,
    mut read: impl FnMut() -> F,
    mut error: StoreError,
) -> Result<T, StoreError> {
    static LOG: LogThrottle = LogThrottle::new();
    let mut retrying = Retrying::new(metrics, "read", &LOG);
    loop {
        retrying.failed(error).await?;
        match read().await {
            Err(again) => error = again,
            done => return done,
        }
    }
}
