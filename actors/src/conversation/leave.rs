//! End of a conversation with its tenant, or with its account: removes all of its rows, and settles late records.

use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord};
use heddle_schemas::time::Timestamp;

use super::entity::{Conversation, ConversationState};
use super::fault::Fault;
use crate::partition::Receipt;
use crate::privacy::tenant_deletion;

impl Conversation {
    /// Returns true when the tenant is being deleted, or has been.
    pub(super) async fn is_of_deleted(&self) -> Result<bool, Fault> {
        Ok(tenant_deletion::find(&self.context.ports, &self.id.tenant).await?.is_some())
    }

    /// Returns true when the conversations of its account are to be deleted, since it is disconnected.
    fn is_of_disconnected(&self) -> bool {
        let tenant = self.context.tenants.get(&self.id.tenant);
        tenant.is_some_and(|tenant| tenant.deletes_conversations_of(self.id.channel, &self.id.account))
    }

    /// Handles a record of an unknown tenant, or one that asks for the tenant's deletion.
    pub(super) async fn part(
        &self,
        state: &mut ConversationState,
        record: &InboundRecord,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        if record.event == InboundEvent::Leave && self.is_of_disconnected() {
            self.drop_turn(state);
            self.remove_rows(|table| table.tenant_deletion.removes()).await?;
            return self.acknowledge(receipt).await;
        }
        if !self.is_of_deleted().await? {
            let id = &self.id.tenant;
            if record.event == InboundEvent::Leave && self.context.tenants.get(id).is_some() {
                // The account was connected again meanwhile, or its messages are to be kept.
                return self.acknowledge(receipt).await;
            }
            if self.context.tenants.is_newer(id) {
                return Err(Fault::Newer(format!("a later build wrote the configuration of tenant {id}")));
            }
            let (reason, detail) = match self.context.tenants.check_region(id) {
                Err(elsewhere) => (DeadReason::Region, elsewhere.to_string()),
                Ok(()) => (DeadReason::UnknownTenant, format!("tenant {id} is not known")),
            };
            return Err(Fault::Dead { reason, detail });
        }
        if record.event == InboundEvent::Leave {
            self.drop_turn(state);
            self.remove_rows(|table| table.tenant_deletion.removes()).await?;
            return Ok(self.commit(Batch { consumed: vec![receipt.consumed()], ..Batch::default() }).await?);
        }
        self.refuse(receipt).await
    }

    /// Settles a record of a deleted tenant: it is neither applied nor kept.
    pub(super) async fn refuse(&self, receipt: &Receipt) -> Result<(), Fault> {
        self.context.ports.metrics.of_deleted(1);
        Ok(self.commit(Batch { consumed: vec![receipt.consumed()], ..Batch::default() }).await?)
    }

    /// Deletes a row of the agenda, where the tenant is deleted. Returns whether it is.
    pub(super) async fn disarm(&self, due: Timestamp) -> Result<bool, Fault> {
        let deleted = self.is_of_deleted().await?;
        if deleted {
            let writes = vec![Write::delete(self.agenda(due))];
            self.commit(Batch { writes, ..Batch::default() }).await?;
        }
        Ok(deleted)
    }
}
