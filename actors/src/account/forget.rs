//! Erasure in an account: drops the waiting sends of a contact who is being erased, and the rows that hold them.
//!
//! A call that is under way is not interrupted, but it is neither repeated nor recorded: its outcome is dropped.

use std::sync::atomic::Ordering;

use heddle_schemas::id::OutboundId;
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::table::Key;
use ractor::ActorProcessingErr;

use super::Account;
use super::machine::Event;
use super::rows::rows;
use super::schedule::lanes::Message;
use super::send::Journal;
use super::sources::{Erasure, Origin, Rows, Source};
use super::state::AccountState;
use crate::partition::Receipt;

impl Account {
    /// Drops the messages of a conversation that were decided before this record.
    pub(super) async fn forget(
        &self,
        state: &mut AccountState,
        record: OutboundRecord,
        receipt: Receipt,
    ) -> Result<(), ActorProcessingErr> {
        if state.delivered.is_writing() {
            // A message that is being written is neither in the rows yet nor in memory.
            state.forgetting.push((record, receipt));
            return Ok(());
        }
        let conversation = record.conversation;
        let (contact, before) = (conversation.contact, receipt.record.offset);
        for (id, erased) in &state.under_way {
            if id.contact == contact {
                erased.store(true, Ordering::Release);
            }
        }
        let now = self.context.ports.clock.elapsed();
        let effects = state.machine.on(Event::Erased(contact), now);
        debug_assert!(effects.is_empty(), "its end has the effects");
        let (waiting, unknown) = state
            .machine
            .erase(contact, |item| item.conversation == conversation && item.origin.is_before(before));
        let mut batch = Batch { consumed: vec![receipt.consumed()], ..Batch::default() };
        let mut left = 0;
        for item in &waiting {
            batch.writes.push(self.abandoned(&item.id()));
            item.settle(&self.key, &mut batch);
            left += usize::from(matches!(item.origin, Origin::Backlog { .. }));
        }
        for id in &unknown {
            batch.writes.push(self.abandoned(id));
            batch.after.push(Write::delete(Key::unknown(&self.key, id)));
        }
        // A message in memory is dropped with the others, or is under way.
        let is_active = |id| waiting.iter().any(|item| item.id() == id) || state.machine.is_active(id);
        let erasure = Erasure { conversation: &conversation, before, is_active: &is_active };
        let mut rows_of = Rows { ports: &self.context.ports, account: &self.key, cursor: &mut state.cursor };
        for id in state.delivered.forget(&mut rows_of, &erasure, &mut batch).await? {
            batch.writes.push(self.abandoned(&id));
        }
        for id in state.unknowns.forget(&mut rows_of, &erasure, &mut batch).await? {
            batch.writes.push(self.abandoned(&id));
        }
        for id in state.backlog.forget(&mut rows_of, &erasure, &mut batch).await? {
            batch.writes.push(self.abandoned(&id));
            left += 1;
        }
        self.commit(batch).await?;
        self.rows_changed(state, -rows(left));
        Ok(())
    }

    /// Processes the records that waited for rows being written.
    pub(super) async fn forget_waiting(&self, state: &mut AccountState) -> Result<(), ActorProcessingErr> {
        for (record, receipt) in std::mem::take(&mut state.forgetting) {
            match &record.command {
                OutboundCommand::Leave(leave) => {
                    let leave = leave.clone();
                    self.leave(state, record, &leave, receipt).await?;
                }
                _ => self.forget(state, record, receipt).await?,
            }
        }
        Ok(())
    }

    fn abandoned(&self, id: &OutboundId) -> Write {
        self.journal(*id, &Journal::GivenUp)
    }
}
