//! Faults of the memory store's operations, decided by the test.
//!
//! The store requests a fault before every step, in the order of the calls; a simulation answers from its own
//! seeded generator. A call that is dropped or whose store crashes while it waits `before` has
//! changed nothing; while it waits `after`, it has changed everything. So a crash cuts an operation
//! wholly or not at all.

use std::time::Duration;

/// A step of the memory store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the calls of the ports")]
pub enum Operation {
    Append,
    Fetch,
    Position,
    Acknowledge,
    End,
    Assignment,
    Snapshot,
    Epoch,
    Get,
    Scan,
    CompareAndSet,
    /// The whole batch, where log and state commit in one step.
    Commit,
    /// A split store's first step: the rows.
    CommitWrites,
    /// A split store's second step: the records, each batch of them all or none.
    CommitOutputs,
    /// A split store's third step: the rows that go after the records.
    CommitAfter,
    /// A split store's fourth step: the acknowledged offsets.
    CommitConsumed,
}

/// End of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    #[default]
    Works,
    /// `Unavailable`, and nothing happened.
    FailsBefore,
    /// `Unavailable`, though it happened.
    FailsAfter,
    /// `Full`, and nothing happened. Reads and acknowledgements need no room and work.
    Full,
}

/// Fault of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    /// Time until it takes effect.
    pub before: Duration,
    /// Time from there until the caller gets the answer.
    pub after: Duration,
    /// End of the step.
    pub outcome: Outcome,
}

impl Fault {
    /// No fault: the step works at once.
    pub const NONE: Self = Self { before: Duration::ZERO, after: Duration::ZERO, outcome: Outcome::Works };

    /// Returns a fault with this outcome, at once.
    #[must_use]
    pub const fn outcome(outcome: Outcome) -> Self {
        Self { outcome, ..Self::NONE }
    }

    /// Returns a step that works, and takes effect after `before`.
    #[must_use]
    pub const fn delay(before: Duration) -> Self {
        Self { before, ..Self::NONE }
    }
}

/// Source of each step's fault. A closure `Fn(Operation) -> Fault` is one.
pub trait Faults: Send + Sync + 'static {
    /// Returns the fault of this step.
    fn next(&self, operation: Operation) -> Fault;
}

impl<F: Fn(Operation) -> Fault + Send + Sync + 'static> Faults for F {
    fn next(&self, operation: Operation) -> Fault {
        self(operation)
    }
}

/// Waits unless the duration is zero: a sleep of zero would still yield to the timer.
pub(super) async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}
