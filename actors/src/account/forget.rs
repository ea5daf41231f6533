//! What an account still has to send to somebody who is being forgotten: it is given up, and what holds it goes.

use bytes::Bytes;
use heddle_schemas::id::{ConversationId, OutboundId};
use heddle_schemas::ports::state::{Batch, Scan, Write};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::record::{decode, encode};
use heddle_schemas::table::{BACKLOG_QUEUED, Key, Partition};
use heddle_schemas::topic::Offset;
use ractor::ActorProcessingErr;

use super::Account;
use super::backlog::backlog_row;
use super::send::{Item, Journal, Origin};
use super::state::AccountState;
use crate::partition::Receipt;
use crate::partition::commit::read;

/// Rows of the backlog that are looked through at once.
const PAGE: usize = 512;

impl Account {
    /// Gives up what was to be sent in a conversation before this record.
    pub(super) async fn forget(
        &self,
        state: &mut AccountState,
        record: OutboundRecord,
        receipt: Receipt,
    ) -> Result<(), ActorProcessingErr> {
        if state.backlog.writing.is_some() {
            // What is being written is neither in the rows yet nor in memory.
            state.forgetting.push((record, receipt));
            return Ok(());
        }
        let conversation = record.conversation;
        let before = receipt.record.offset;
        let is_of_it = |item: &Item| item.conversation == conversation && item.offset < before;
        let queued = state.queue.take(conversation.contact, is_of_it);
        let spilling: Vec<_> = state.backlog.spilling.extract_if(.., |item| is_of_it(item)).collect();
        let mut batch = Batch { consumed: vec![receipt.consumed()], ..Batch::default() };
        let mut left = 0;
        for item in queued.iter().chain(&spilling) {
            batch.writes.push(self.given_up(&item.command.id));
            item.take_out(&self.key, &mut batch);
            left += i64::from(matches!(item.origin, Origin::Backlog));
        }
        let rows_left = self.waiting_rows(&conversation, before).await?;
        for (row, id) in &rows_left {
            // In memory it is given up with the others, or is under way, and settles by itself.
            if !state.active.contains_key(id) {
                batch.writes.push(self.given_up(id));
                batch.after.push(Write::delete(row.clone()));
                left += 1;
            }
        }
        let unknown: Vec<_> = state
            .unknown
            .iter()
            .filter(|(_, unknown)| unknown.item.conversation == conversation)
            .map(|(id, _)| *id)
            .collect();
        for id in &unknown {
            batch.writes.push(self.given_up(id));
            batch.after.push(Write::delete(Key::unknown(&self.key, id)));
        }
        self.commit(batch).await?;
        self.rows_changed(state, -left);
        for item in queued {
            state.left(item.command.id);
        }
        for id in unknown {
            state.unknown.remove(&id);
            state.queue.free(conversation.contact, id, None);
        }
        Ok(())
    }

    /// What had to wait for rows that were being written.
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

    fn given_up(&self, id: &OutboundId) -> Write {
        let expires = self.context.ports.clock.now().after(self.context.options.marker_ttl);
        Write::put_until(Key::send(&self.key, id), encode(&Journal::GivenUp), expires)
    }

    /// The rows of the backlog that belong to a conversation and were asked for before.
    async fn waiting_rows(
        &self,
        conversation: &ConversationId,
        before: Offset,
    ) -> Result<Vec<(Key, OutboundId)>, ActorProcessingErr> {
        let ports = &self.context.ports;
        let mut found = Vec::new();
        let from = Bytes::from_static(&[BACKLOG_QUEUED]);
        let mut scan = Scan { from, ..Scan::first(Partition::backlog(&self.key), PAGE) };
        loop {
            let page = read(&ports.metrics, || ports.state.scan(&scan)).await?;
            let next = scan.next(&page);
            for (key, stored) in page {
                let Ok(record) = decode::<OutboundRecord>(&stored) else { continue };
                let is_before = backlog_row(&key).is_some_and(|offset| offset < before);
                if let OutboundCommand::Send(send) = record.command
                    && record.conversation == *conversation
                    && is_before
                {
                    found.push((key, send.id));
                }
            }
            let Some(next) = next else { return Ok(found) };
            scan = next;
        }
    }
}
