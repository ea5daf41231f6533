//! Tenant deletion in an account: drops all that waits and removes all that it has stored.

use heddle_schemas::ports::state::{Batch, Scan, StoreError, Write};
use heddle_schemas::record::outbound::OutboundRecord;
use heddle_schemas::table::{Key, Partition};
use ractor::ActorProcessingErr;

use super::sources::unknown::Unknowns;
use super::state::AccountState;
use super::{Account, Leave};
use crate::partition::Receipt;
use crate::partition::commit::read;
use crate::privacy::tenant_deletion;

/// Rows that are removed at once.
const PAGE: usize = 512;

impl Account {
    /// Returns true when the tenant is being deleted, or has been.
    pub(super) async fn is_of_deleted(&self) -> Result<bool, StoreError> {
        Ok(tenant_deletion::find(&self.context.ports, &self.key.tenant).await?.is_some())
    }

    /// Settles a record of a deleted tenant: nothing is sent.
    pub(super) async fn refuse(&self, receipt: &Receipt) -> Result<(), StoreError> {
        self.context.ports.metrics.of_deleted(1);
        self.commit(Batch { consumed: vec![receipt.consumed()], ..Batch::default() }).await
    }

    /// Drops all that waits, and removes its rows and these entries of the journal. A call that is under way is not
    /// interrupted; a later record removes what it writes.
    pub(super) async fn leave(
        &self,
        state: &mut AccountState,
        record: OutboundRecord,
        leave: &Leave,
        receipt: Receipt,
    ) -> Result<(), ActorProcessingErr> {
        if !self.is_of_deleted().await? {
            tracing::error!(account = %self.key, "asked to remove its rows, but its tenant is not deleted");
            return Ok(self.refuse(&receipt).await?);
        }
        if state.delivered.is_writing() {
            // A message that is being written is neither in the rows yet nor in memory.
            state.forgetting.push((record, receipt));
            return Ok(());
        }
        let mut batch = Batch { consumed: vec![receipt.consumed()], ..Batch::default() };
        let waiting = state.machine.clear();
        let spilling = state.delivered.clear();
        for item in waiting.iter().chain(&spilling) {
            item.settle(&self.key, &mut batch);
        }
        for erased in state.under_way.values() {
            erased.store(true, std::sync::atomic::Ordering::Release);
        }
        batch.writes.extend(leave.sends.iter().map(|id| Write::delete(Key::send(&self.key, id))));
        self.remove_backlog().await?;
        self.commit(batch).await?;
        self.rows_changed(state, -state.cursor.rows);
        state.cursor.clear();
        state.unknowns = Unknowns::default();
        state.overdue.clear();
        Ok(())
    }

    async fn remove_backlog(&self) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        loop {
            let scan = Scan::first(Partition::backlog(&self.key), PAGE);
            let page = read(&ports.metrics, || ports.state.scan(&scan)).await?;
            let full = page.len() == PAGE;
            let writes: Vec<_> = page.into_iter().map(|(key, _)| Write::delete(key)).collect();
            if !writes.is_empty() {
                self.commit(Batch { writes, ..Batch::default() }).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }
}
