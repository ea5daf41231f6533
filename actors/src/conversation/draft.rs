//! What applying something to a conversation changes, until it is durable.
//!
//! A draft is made and turned into a batch without waiting for anything, so that the actor holds one box
//! across its waits and not every part of a batch. The batch is built anew for each attempt, which almost
//! always is the only one, and never copied in case there is a second.

use bytes::Bytes;
use heddle_schemas::content::{Address, Content};
use heddle_schemas::id::{MessageKey, OutboundId, TurnId};
use heddle_schemas::ports::keys::Cipher;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::responder::{Answer, Usage};
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::event::{Event, EventRecord, Outcome};
use heddle_schemas::record::outbound::{
    OutboundCommand, OutboundRecord, Purpose, SealedMessage, SendCommand,
};
use heddle_schemas::record::{V, encode, encode_for, log_aad};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};

use super::head::Head;
use super::thread::{EntrySaid, Row, Tally};
use super::turn::Ended;
use super::{Conversation, Loaded};

/// Characters that one message of a channel takes at most (WhatsApp: 4,096 in a text body,
/// <https://developers.facebook.com/docs/whatsapp/cloud-api/messages/text-messages>).
const MESSAGE_CHARACTERS: usize = 4096;

/// What changes.
pub(super) struct Draft {
    /// When it is applied.
    pub(super) now: Timestamp,
    /// When the history row ends.
    pub(super) expires: Timestamp,
    /// The number of the history row.
    pub(super) number: u64,
    /// The history row.
    pub(super) row: Row,
    /// The head as it will be.
    pub(super) head: Head,
    /// The address as it will be, where it changes.
    pub(super) address: Option<Address>,
    /// The message that is seen with it, and the turn it belongs to.
    pub(super) seen: Option<(MessageKey, Option<TurnId>)>,
    /// The agenda row to write.
    pub(super) due: Option<Timestamp>,
    /// The agenda row to delete.
    pub(super) done: Option<Timestamp>,
    /// The turn that is decided with it; its replies are in the row.
    pub(super) decided: Option<(TurnId, Tally)>,
    /// What the turn before it may still owe, published before its own replies.
    pub(super) owed: Vec<NewRecord>,
}

impl Draft {
    /// A row on top of this head.
    pub(super) fn new(head: &Head, tenant: &Tenant, now: Timestamp) -> Self {
        let mut head = head.clone();
        let number = head.take_row();
        let expires = now.after(tenant.retention.messages);
        let (row, address, seen, due, done, decided) = (Row::default(), None, None, None, None, None);
        let owed = Vec::new();
        Self { now, expires, number, row, head, address, seen, due, done, decided, owed }
    }

    /// Takes in how a turn has ended. What the turn before it owes ([`Conversation::owed`]) goes first: the
    /// head remembers the last turn only.
    pub(super) fn decide(&mut self, tenant: &Tenant, ended: Ended, owed: Vec<NewRecord>) {
        self.owed = owed;
        let turn = TurnId(ended.covered[0]);
        self.head.decide(turn, &ended.covered, self.number);
        let outcome = if ended.answer.is_some() { Outcome::Answered } else { Outcome::Fallback };
        let nothing = Answer { text: None, sources: Vec::new(), usage: Usage::default() };
        let answer = ended.answer.unwrap_or(nothing);
        let tally = Tally {
            messages: u32::try_from(ended.covered.len()).unwrap_or(u32::MAX),
            outcome,
            attempts: ended.attempts,
            input_tokens: answer.usage.input_tokens,
            output_tokens: answer.usage.output_tokens,
        };
        let text = answer.text.unwrap_or_else(|| tenant.agent.fallback.clone());
        let texts = split(text, MESSAGE_CHARACTERS);
        self.row.entries.push(EntrySaid::Agent { turn, at: self.now, texts, sources: answer.sources, tally });
        self.decided = Some((turn, tally));
    }
}

impl Conversation {
    /// The batch of a draft. `log` seals replies, `again` says that they may have been published before.
    pub(super) fn batch(
        &self,
        loaded: &Loaded,
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
            writes.push(Write::put_until(Key::marker(&self.id, message), marker, remember));
        }
        writes.push(loaded.thread.write(draft.number, &draft.row, draft.expires));
        writes.push(Write::put(Key::head(&self.id), encode(&draft.head)));
        let mut outputs = draft.owed.clone();
        if let (Some((turn, tally)), Some(log)) = (draft.decided, log) {
            let texts = draft.row.replies_of(turn).map_or(&[][..], |(texts, _)| texts);
            let address = draft.address.as_ref().unwrap_or(&loaded.address);
            outputs.extend(self.replies(loaded, turn, texts, address, log, draft.now, again));
            outputs.push(self.told(loaded, turn, tally, draft.now));
        }
        Batch {
            fence: Some(self.home.fence),
            writes,
            outputs,
            after: draft.done.map(|done| Write::delete(self.agenda(done))).into_iter().collect(),
            consumed: consumed.into_iter().collect(),
        }
    }

    /// The records that ask the account to send the replies of a turn, with room for one more.
    #[expect(clippy::too_many_arguments, reason = "a record has as many parts")]
    pub(super) fn replies(
        &self,
        loaded: &Loaded,
        turn: TurnId,
        texts: &[String],
        address: &Address,
        log: &dyn Cipher,
        now: Timestamp,
        again: bool,
    ) -> Vec<NewRecord> {
        let mut records = Vec::with_capacity(texts.len() + 1);
        for (index, text) in (0_u16..).zip(texts) {
            let id = OutboundId { contact: self.id.contact, turn, index };
            let content = Content::Text { body: text.clone() };
            let message = SealedMessage { to: address.clone(), content };
            let at = log_aad(Topic::Outbound, &id);
            let sealed = encode_for(&message, |plain| log.seal(&at, plain));
            let command = SendCommand { id, purpose: Purpose::Reply, again, sealed };
            let command = OutboundCommand::Send(command);
            let record = OutboundRecord { v: V, conversation: self.id.clone(), at: now, command };
            records.push(loaded.routes.outbound(&record));
        }
        records
    }

    /// The event that tells of a turn.
    pub(super) fn told(&self, loaded: &Loaded, turn: TurnId, tally: Tally, now: Timestamp) -> NewRecord {
        let Tally { messages, outcome, attempts, input_tokens, output_tokens } = tally;
        let conversation = self.id.clone();
        let event =
            Event::Turn { conversation, turn, messages, outcome, attempts, input_tokens, output_tokens };
        loaded.routes.event(&EventRecord { v: V, tenant: self.id.tenant.clone(), at: now, event })
    }
}

/// Cuts a text into pieces of at most `limit` characters, at white space where there is some.
fn split(text: String, limit: usize) -> Vec<String> {
    if !text.is_empty() && text.len() <= limit && text.trim().len() == text.len() {
        return vec![text];
    }
    let mut pieces = Vec::new();
    let mut rest = text.trim();
    while let Some((over, _)) = rest.char_indices().nth(limit) {
        let cut = rest[..over].rfind(char::is_whitespace).filter(|&cut| cut > over / 2).unwrap_or(over);
        pieces.push(rest[..cut].trim_end().to_owned());
        rest = rest[cut..].trim_start();
    }
    if !rest.is_empty() {
        pieces.push(rest.to_owned());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_fit_and_lose_only_white_space(text in "[a-zé ]{0,400}", limit in 1_usize..50) {
            let pieces = split(text.clone(), limit);
            prop_assert!(pieces.iter().all(|piece| piece.chars().count() <= limit && !piece.is_empty()));
            let dense = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(dense(&pieces.join(" ")), dense(&text));
        }
    }
}
