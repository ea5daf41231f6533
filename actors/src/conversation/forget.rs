//! Forgetting a contact: the key first, then every row of the conversation.
//!
//! It is a record of the conversation's own topic, so it has one order with the customer's messages. Repeated after a
//! crash it finds the key destroyed and goes on with the rows. Later messages begin a new conversation, under another
//! key, which remembers the time of the erasure: acts that the channel stamped before it are refused.

use heddle_schemas::ports::keys::{KeysError, Missing};
use heddle_schemas::ports::state::{Batch, Scan, StoreError, Write};
use heddle_schemas::record::V;
use heddle_schemas::record::inbound::{DeliveryReport, Forget};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::table::{ContactErasure, Descriptor, Key, Partition, Table, Written};

use super::entity::{Conversation, ConversationState};
use super::fault::Fault;
use super::head::Head;
use super::turns::UnderWay;
use crate::partition::commit::read;
use crate::partition::pages::Pages;
use crate::partition::publish;
use crate::partition::{PartitionMessage, Receipt};
use crate::privacy::erasure;

/// Rows that are removed at once.
const PAGE: usize = 512;

impl Conversation {
    /// Erases everything from before.
    pub(super) async fn forget(
        &self,
        state: &mut ConversationState,
        forget: &Forget,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        let ports = &self.context.ports;
        let consumed = vec![receipt.consumed()];
        let stored = erasure::find(ports, &self.id.tenant, forget.erasure).await?;
        let part = stored.as_ref().and_then(|stored| stored.part(&self.id));
        if part.is_none_or(|part| part.done.is_some()) {
            // Data that is here by now came later than the erasure.
            return Ok(self.commit(Batch { consumed, ..Batch::default() }).await?);
        }
        ports.keys.erase_contact(&self.id.tenant, self.id.contact, forget.at).await?;
        self.drop_turn(state);
        let rows = self.remove_rows(|table| table.contact_erasure == ContactErasure::Removed).await?;
        let now = ports.clock.now();
        let command =
            OutboundRecord { v: V, conversation: self.id.clone(), at: now, command: OutboundCommand::Forget };
        let outputs = vec![publish::outbound(ports, &command)];
        self.commit(Batch { outputs, ..Batch::default() }).await?;
        if let Some(complete) = erasure::done(ports, &self.id, forget.erasure, rows).await? {
            erasure::close(ports, &self.id.tenant, &complete).await?;
        }
        Ok(self.commit(Batch { consumed, ..Batch::default() }).await?)
    }

    /// Drops the turn under way, which answers messages that are being erased.
    pub(super) fn drop_turn(&self, state: &mut ConversationState) {
        state.tasks.abort_all();
        let under_way = self.drop_under_way(state);
        // A row that is set aside is answered already, and finds nothing when it is woken.
        if let Some(entry) = under_way.and_then(UnderWay::awaited) {
            self.home.tell(PartitionMessage::Woken { entry, again: None });
        }
        state.texts.clear();
        state.loaded = None;
    }

    /// Removes the conversation's rows in every table for which `goes` is true, and returns their number.
    pub(super) async fn remove_rows(&self, goes: impl Fn(&Descriptor) -> bool) -> Result<u64, Fault> {
        let ports = &self.context.ports;
        let head = Key::head(&self.id);
        let stored = read(&ports.metrics, || ports.state.get(&head)).await?;
        let mut removed = 0;
        for partition in Partition::of_conversation(&self.id) {
            let table = partition.table();
            if table == Table::Head || !goes(table.descriptor()) {
                continue;
            }
            removed += match table.descriptor().written {
                Written::Conditional => self.remove_conditional(partition).await?,
                Written::Fenced | Written::Unfenced | Written::Versioned => {
                    self.remove_fenced(partition).await?
                }
            };
        }
        // The head last: it names the row of the agenda.
        if let Some(stored) = stored.filter(|_| goes(Table::Head.descriptor())) {
            let agenda = serde_json::from_slice::<Head>(&stored).ok().and_then(|head| head.agenda);
            let writes = agenda.map(|due| Write::delete(self.agenda(due)));
            let writes = writes.into_iter().chain([Write::delete(head)]).collect::<Vec<_>>();
            removed += 1;
            self.commit(Batch { writes, ..Batch::default() }).await?;
        }
        Ok(removed)
    }

    /// Removes the rows of a partition in batches under the conversation's fence.
    async fn remove_fenced(&self, partition: Partition) -> Result<u64, Fault> {
        let mut pages = Pages::new(&self.context.ports, Scan::first(partition, PAGE));
        let mut removed = 0;
        while let Some(page) = pages.next().await? {
            removed += page.len() as u64;
            let writes = page.into_iter().map(|(key, _)| Write::delete(key)).collect::<Vec<_>>();
            if !writes.is_empty() {
                self.commit(Batch { writes, ..Batch::default() }).await?;
            }
        }
        Ok(removed)
    }

    /// Removes the rows of a partition one by one: conditionally written rows are removed conditionally.
    async fn remove_conditional(&self, partition: Partition) -> Result<u64, StoreError> {
        let ports = &self.context.ports;
        let mut pages = Pages::new(ports, Scan::first(partition, PAGE));
        let mut removed = 0;
        while let Some(page) = pages.next().await? {
            for (key, stored) in page {
                ports.state.compare_and_set(&key, Some(stored), None, None).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Returns true when a report is about a message to a contact that has been erased since.
    pub(super) async fn is_of_forgotten(&self, report: &DeliveryReport) -> Result<bool, Fault> {
        let keys = &self.context.ports.keys;
        match keys.contact(&self.id.tenant, self.id.contact, Missing::Fail).await {
            Ok(key) => Ok(key.erased_at().is_some_and(|erased_at| report.at <= erased_at)),
            Err(KeysError::Gone { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
