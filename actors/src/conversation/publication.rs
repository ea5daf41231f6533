//! Publication: the batch of a draft, and the records in it.

use bytes::Bytes;
use heddle_schemas::consent::Category;
use heddle_schemas::content::Address;
use heddle_schemas::id::{ConversationId, OutboundId, TurnId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::keys::Cipher;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, Fence, Write};
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::outbound::{
    OutboundCommand, OutboundRecord, Purpose, SealedMessage, SendCommand,
};
use heddle_schemas::record::{V, encode_for, log_aad};
use heddle_schemas::table::{Key, SpentBy};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};

use super::draft::Draft;
use super::head::Head;
use super::loaded::Loaded;
use super::machine::Change;
use super::request::Requested;
use super::thread::Tally;
use crate::context::Context;

/// Replies of a decided turn.
pub(super) struct Replies<'a> {
    pub(super) turn: TurnId,
    pub(super) texts: &'a [String],
    pub(super) to: &'a Address,
    pub(super) at: Timestamp,
    /// True when they may have been published before.
    pub(super) again: bool,
}

/// A message on its way to the account.
struct Sending<'a> {
    id: OutboundId,
    purpose: Purpose,
    category: Option<Category>,
    again: bool,
    to: &'a Address,
    content: OutgoingContent,
    at: Timestamp,
}

/// Target of a conversation's writes and outputs.
pub(super) struct Publication<'a> {
    pub(super) context: &'a Context,
    pub(super) id: &'a ConversationId,
    pub(super) fence: Fence,
    pub(super) loaded: &'a Loaded,
}

impl Publication<'_> {
    /// Returns the batch of a draft. `log` seals replies, `again` is true when they may have been published before. It
    /// is built anew for each attempt to write it, which is almost always the only one.
    pub(super) fn batch(
        &self,
        tenant: &Tenant,
        draft: &Draft,
        log: Option<&dyn Cipher>,
        consumed: Option<(TopicPartition, Offset)>,
        again: bool,
    ) -> Batch {
        let mut writes = Vec::with_capacity(4);
        if let Some(due) = draft.due {
            writes.push(Write::put(self.agenda(due), Bytes::new()));
        }
        if let Some((message, turn)) = draft.seen {
            let marker = turn.map_or_else(Bytes::new, |turn| Bytes::copy_from_slice(&turn.0.to_bytes()));
            let remember = draft.now.after(self.context.options.marker_ttl);
            writes.push(Write::put_until(Key::marker(self.id, message), marker, remember));
        }
        let expires = draft.now.after(tenant.retention.of(draft.row.kind()));
        let head = &draft.machine.head;
        writes.push(self.loaded.thread.write(draft.number, &draft.row, expires));
        writes.push(head.write(Key::head(self.id), &tenant.retention, draft.now));
        let mut outputs = Vec::new();
        let mut after = Vec::new();
        if let (Some((turn, tally)), Some(log)) = (draft.decided.clone(), log) {
            let texts = draft.row.replies_of(turn).map_or(&[][..], |decided| decided.texts);
            let to = draft.address.as_ref().unwrap_or(&self.loaded.address);
            outputs.extend(self.replies(head, Replies { turn, texts, to, at: draft.now, again }, log));
            outputs.push(self.turn(turn, tally.clone(), draft.now));
            after.extend(tally.spent.map(|spent| {
                let by = self.spent_by(turn, spent.number);
                let quotas = &self.context.quotas;
                quotas.settled(tenant, spent.chunk, &by, draft.now, tally.totals(texts.len()))
            }));
        }
        if let (Some(requested), Some(log)) = (&draft.requested, log) {
            let to = draft.address.as_ref().unwrap_or(&self.loaded.address);
            outputs.push(self.request(head, requested, to, draft.now, log));
            after.extend(requested.spent().map(|(chunk, number, totals)| {
                let by = self.spent_by(requested.turn(), number);
                self.context.quotas.settled(tenant, chunk, &by, draft.now, totals)
            }));
        }
        outputs.extend(draft.changes.iter().map(|change| self.change(*change, draft.now)));
        after.extend(draft.done.map(|done| Write::delete(self.agenda(done))));
        let consumed = consumed.into_iter().collect();
        Batch { fence: Some(self.fence), writes, outputs, after, consumed }
    }

    fn agenda(&self, due: Timestamp) -> Key {
        Key::agenda(self.fence.partition, due, self.id.to_string().as_bytes())
    }

    /// The records that ask the account to send replies, one for each text in order, with room for one record more.
    pub(super) fn replies(&self, head: &Head, replies: Replies<'_>, log: &dyn Cipher) -> Vec<NewRecord> {
        let Replies { turn, texts, to, at, again } = replies;
        let mut records = Vec::with_capacity(texts.len() + 1);
        for (index, text) in (0_u16..).zip(texts) {
            let id = OutboundId::of_turn(self.id.contact, turn, index);
            let content = OutgoingContent::text(text);
            let sending = Sending { id, purpose: Purpose::Reply, category: None, again, to, content, at };
            records.push(self.sends(head, sending, log));
        }
        records
    }

    /// The record that asks the account to send the message of a request.
    pub(super) fn request(
        &self,
        head: &Head,
        requested: &Requested,
        to: &Address,
        at: Timestamp,
        log: &dyn Cipher,
    ) -> NewRecord {
        let sending = Sending {
            id: requested.outbound(self.id.contact),
            purpose: Purpose::Notice,
            category: Some(requested.category),
            again: requested.again,
            to,
            content: requested.content.clone(),
            at,
        };
        self.sends(head, sending, log)
    }

    fn sends(&self, head: &Head, sending: Sending<'_>, log: &dyn Cipher) -> NewRecord {
        let Sending { id, purpose, category, again, to, content, at } = sending;
        let kind = content.kind();
        let profile = self.context.ports.profile(self.id.channel);
        let window = profile.and_then(|profile| profile.reply_window).filter(|_| kind.is_free_form());
        let message = SealedMessage { to: to.clone(), content };
        let place = log_aad(Topic::Outbound, &id);
        let command = SendCommand {
            id,
            purpose,
            again,
            fence: Some(self.fence),
            window_until: window.map(|window| head.customer_at.after(window)),
            kind,
            category,
            sealed: encode_for(&message, |plain| log.seal(&place, plain)),
        };
        let command = OutboundCommand::Send(command);
        let record = OutboundRecord { v: V, conversation: self.id.clone(), at, command };
        self.loaded.routes.outbound(&record)
    }

    /// The event of a decided turn.
    pub(super) fn turn(&self, turn: TurnId, tally: Tally, at: Timestamp) -> NewRecord {
        let Tally { messages, outcome, attempts, input_tokens, output_tokens, money, .. } = tally;
        let conversation = self.id.clone();
        let event = Event::Turn {
            conversation,
            turn,
            messages,
            outcome,
            attempts,
            input_tokens,
            output_tokens,
            money,
        };
        self.event(event, at)
    }

    fn change(&self, change: Change, at: Timestamp) -> NewRecord {
        let conversation = self.id.clone();
        let event = match change {
            Change::HandedOver(because) => Event::HandedOver { conversation, because: because.into() },
            Change::GivenBack => Event::GivenBack { conversation },
            Change::LoopStopped { rounds } => Event::LoopStopped { conversation, rounds },
        };
        self.event(event, at)
    }

    fn event(&self, event: Event, at: Timestamp) -> NewRecord {
        self.loaded.routes.event(&EventRecord { v: V, tenant: self.id.tenant.clone(), at, event })
    }

    /// Returns the name of a turn in the journal of a quota lease.
    pub(super) fn spent_by(&self, turn: TurnId, number: u32) -> SpentBy {
        SpentBy::new(self.id.contact, turn, number)
    }
}
