//! Reserved amounts, given back unless they are settled.

use std::sync::Arc;

use super::amounts::Amounts;
use super::lease_cache::ChunkOf;
use super::{Account, lock};

/// Reservation of a turn. Dropped unsettled, it counts as spent.
#[must_use]
pub struct Hold {
    pub(super) account: Arc<Account>,
    pub(super) of: ChunkOf,
    pub(super) taken: Amounts,
    pub(super) settled: bool,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("of", &self.of).field("taken", &self.taken).finish()
    }
}

impl Hold {
    /// Returns the quota lease that it was taken from.
    #[must_use]
    pub fn chunk(&self) -> ChunkOf {
        self.of
    }

    /// Returns the reserved amounts.
    #[must_use]
    pub fn taken(&self) -> Amounts {
        self.taken
    }

    /// Settles the reservation: the turn is decided and durable, and has used this much.
    pub fn settle(mut self, used: Amounts) {
        self.settled = true;
        lock(&self.account.leases).settle(self.of, self.taken, used);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.settled {
            lock(&self.account.leases).abandon(self.of, self.taken.messages);
        }
    }
}
