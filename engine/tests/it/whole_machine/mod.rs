//! Tests that load the whole machine, or kill the servers that others use: one at a time.
//!
//! Their module's name sorts last, so that the others are through, side by side, before these take turns.

mod cluster;
mod connector;
mod kill;
mod privacy;
mod rotation;

use tokio::sync::{Mutex, MutexGuard};

static MACHINE: Mutex<()> = Mutex::const_new(());

/// Waits until no other test has the machine, and keeps others waiting while what it returns lives.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}
