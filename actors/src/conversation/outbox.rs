//! Outbox of the turn decided last: outputs that a crash between its decision and its publication may have left
//! unpublished.
//!
//! A decision is stored before it is published. After a restart or an ownership change it is unknown whether the
//! publication happened, until it is repeated or a delivery report shows that a reply left. The outbox is checked when
//! a message of that turn comes again, when its agenda row is still there, and before another turn is decided: after
//! that there would be no further check.

use heddle_schemas::id::{OutboundId, TurnId};
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;

use super::entity::{Conversation, ConversationState};
use super::fault::Fault;
use super::publication::Replies;
use super::thread::Decision;
use crate::partition::Receipt;
use crate::tenant::quota::Hold;
use crate::tenant::quota::amounts::Amounts;

/// Outputs of the last decided turn that may not be published.
#[derive(Default)]
pub(super) struct Outbox {
    /// Its replies and its event.
    pub(super) outputs: Vec<NewRecord>,
    /// Write of its quota use.
    pub(super) spent: Option<Write>,
    /// Reservation that is held until that write is durable.
    pub(super) hold: Option<Hold>,
}

impl Conversation {
    /// Handles a message that was seen before: it changes nothing, but a crash may have hidden its replies.
    pub(super) async fn duplicate(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
        turn: Option<TurnId>,
        receipt: &Receipt,
    ) -> Result<(), Fault> {
        self.context.ports.metrics.duplicate();
        let last = state.loaded.as_ref().and_then(|loaded| loaded.head.last.as_ref()).map(|last| last.turn);
        let outbox = match last == turn {
            true => self.outbox(state, tenant).await?,
            false => Outbox::default(),
        };
        let Outbox { outputs, spent, hold } = outbox;
        let after = spent.into_iter().collect();
        self.commit(Batch { outputs, after, consumed: vec![receipt.consumed()], ..Batch::default() }).await?;
        if let Some(hold) = hold {
            hold.settle(Amounts::NONE);
        }
        if let Some(loaded) = state.loaded.as_mut().filter(|_| last == turn) {
            loaded.published = true;
        }
        Ok(())
    }

    /// Publishes the outbox of the turn decided last, before another turn takes its place in the head.
    pub(super) async fn publish_last(
        &self,
        state: &mut ConversationState,
        tenant: &Tenant,
    ) -> Result<(), Fault> {
        let Outbox { outputs, spent, hold } = self.outbox(state, tenant).await?;
        if !outputs.is_empty() || spent.is_some() {
            let after = spent.into_iter().collect();
            self.commit(Batch { outputs, after, ..Batch::default() }).await?;
        }
        if let Some(hold) = hold {
            hold.settle(Amounts::NONE);
        }
        if let Some(loaded) = &mut state.loaded {
            loaded.published = true;
        }
        Ok(())
    }

    /// The outbox of the turn decided last; empty where it is known to be published.
    pub(super) async fn outbox(&self, state: &ConversationState, tenant: &Tenant) -> Result<Outbox, Fault> {
        let mut outbox = Outbox::default();
        let Some(loaded) = state.loaded.as_ref().filter(|loaded| !loaded.published) else {
            return Ok(outbox);
        };
        let Some(last) = &loaded.head.last else { return Ok(outbox) };
        let ports = &self.context.ports;
        let row = loaded.thread.read(&*ports.state, last.row).await?;
        let Some(decision) = row.as_ref().and_then(|row| row.replies_of(last.turn)) else {
            return Ok(outbox);
        };
        let publication = self.publication(loaded);
        if let Some(spent) = decision.tally.spent {
            let by = publication.spent_by(last.turn, spent.number);
            let totals = decision.tally.totals(decision.texts.len());
            let (quotas, fence) = (&self.context.quotas, self.home.fence);
            let again = quotas.again(tenant, fence, spent.chunk, &by, decision.at, totals).await?;
            if let Some((write, hold)) = again {
                outbox.spent = Some(write);
                outbox.hold = hold;
            }
        }
        if self.has_left(last.turn, &decision).await? {
            return Ok(outbox);
        }
        ports.metrics.republished();
        let now = ports.clock.now();
        let log = ports.keys.log(&self.id.tenant, now.day()).await?;
        let (turn, texts, to) = (last.turn, decision.texts, &loaded.address);
        let replies = Replies { turn, texts, to, at: now, again: true };
        outbox.outputs = publication.replies(&loaded.head, replies, &*log);
        outbox.outputs.push(publication.turn(turn, decision.tally, now));
        Ok(outbox)
    }

    /// Returns true when a report shows for every reply that it has left. All replies are published again otherwise:
    /// the account knows those that it has sent, and they leave in order.
    async fn has_left(&self, turn: TurnId, decision: &Decision<'_>) -> Result<bool, Fault> {
        let count = u16::try_from(decision.texts.len()).unwrap_or(u16::MAX);
        for index in (0..count.max(1)).rev() {
            let outbound = OutboundId::of_turn(self.id.contact, turn, index);
            let key = Key::delivery(&self.id, &outbound);
            if self.context.ports.state.get(&key).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
