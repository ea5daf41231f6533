//! The time, injected.

use std::time::Duration;

use crate::time::Timestamp;

/// The current time. Sleeping is tokio's, which tests pause and advance together with their clock.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: stamps records. It may jump.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment, never going back and running on during suspension: leases and
    /// deadlines.
    fn elapsed(&self) -> Duration;
}
