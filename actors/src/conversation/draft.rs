//! What applying something to a conversation changes, until it is durable.
//!
//! A draft is made and turned into a batch without waiting for anything, so that the actor holds one box
//! across its waits and not every part of a batch. The batch is built anew for each attempt, which almost
//! always is the only one, and never copied in case there is a second.

use bytes::Bytes;
use heddle_schemas::content::{Address, Content};
use heddle_schemas::id::{ConversationId, MessageKey, OutboundId, TurnId};
use heddle_schemas::ports::keys::Cipher;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::event::{Event, EventRecord, HandOver};
use heddle_schemas::record::inbound::Handler;
use heddle_schemas::record::outbound::{
    OutboundCommand, OutboundRecord, Purpose, SealedMessage, SendCommand,
};
use heddle_schemas::record::{V, encode, encode_for, log_aad};
use heddle_schemas::table::{Key, SpentBy};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};

use super::head::{Corrected, Head};
use super::thread::{EntrySaid, Row, Spent, Tally};
use super::turn::Ended;
use super::{Conversation, Loaded};
use crate::tenant::quota::Hold;
use crate::tenant::quota::amounts::Amounts;

/// What changes.
pub(super) struct Draft {
    /// Of which conversation.
    conversation: ConversationId,
    /// When it is applied.
    pub(super) now: Timestamp,
    /// The number of the history row.
    pub(super) number: u64,
    /// The history row.
    pub(super) row: Row,
    /// The head as it will be.
    pub(super) head: Head,
    /// The address as it will be, where it changes.
    pub(super) address: Option<Address>,
    /// The correction of its name as it will be, where it changes.
    pub(super) corrected: Option<Option<Corrected>>,
    /// The message that is seen with it, and the turn it belongs to.
    pub(super) seen: Option<(MessageKey, Option<TurnId>)>,
    /// The agenda row to write.
    pub(super) due: Option<Timestamp>,
    /// The agenda row to delete.
    pub(super) done: Option<Timestamp>,
    /// The turn that is decided with it; its replies are in the row.
    pub(super) decided: Option<(TurnId, Tally)>,
    /// What the turn before it may still owe, published before its own replies.
    pub(super) owed: Owed,
    /// What the turn has taken of the quota, until it is durable.
    pub(super) hold: Option<Hold>,
    /// Who answers from now on, where that changes.
    pub(super) handled: Option<Event>,
}

/// What a turn that was decided before may still owe: a crash came before it was published.
#[derive(Default)]
pub(super) struct Owed {
    /// Its replies, and what is told of it.
    pub(super) outputs: Vec<NewRecord>,
    /// What it has spent.
    pub(super) spent: Option<Write>,
    /// What is held until that is written.
    pub(super) hold: Option<Hold>,
}

impl Draft {
    /// A row on top of this head.
    pub(super) fn new(conversation: &ConversationId, head: &Head, now: Timestamp) -> Self {
        let conversation = conversation.clone();
        let mut head = head.clone();
        let number = head.take_row();
        let row = Row { at: Some(now), ..Row::default() };
        let (address, seen, due, done, decided) = (None, None, None, None, None);
        let (owed, hold, handled) = (Owed::default(), None, None);
        Self {
            conversation,
            now,
            number,
            row,
            head,
            address,
            corrected: None,
            seen,
            due,
            done,
            decided,
            owed,
            hold,
            handled,
        }
    }

    /// Takes in how a turn has ended. What the turn before it owes ([`Conversation::owed`]) goes first: the
    /// head remembers the last turn only.
    pub(super) fn decide(&mut self, ended: Ended, owed: Owed) {
        self.owed = owed;
        let turn = TurnId(ended.covered[0]);
        self.head.decide(turn, &ended.covered, self.number);
        let spent = ended.hold.as_ref().map(|hold| Spent { chunk: hold.chunk(), number: ended.number });
        let tally = Tally {
            messages: u32::try_from(ended.covered.len()).unwrap_or(u32::MAX),
            outcome: ended.outcome,
            attempts: ended.attempts,
            input_tokens: ended.usage.input_tokens,
            output_tokens: ended.usage.output_tokens,
            money: ended.usage.money,
            spent,
        };
        let Ended { texts, sources, sent, hold, hand_over, .. } = ended;
        self.row.entries.push(EntrySaid::Agent { turn, at: self.now, texts, sources, sent, tally });
        self.decided = Some((turn, tally));
        self.hold = hold;
        if let Some(because) = hand_over {
            self.hand_over(because);
        }
    }

    /// A human answers from now on.
    fn hand_over(&mut self, because: HandOver) {
        if self.head.hand_over(self.now) {
            self.handled = Some(Event::HandedOver { conversation: self.conversation.clone(), because });
        }
    }

    /// The customer has what is kept restricted, or no more.
    pub(super) fn restrict(&mut self, restricted: bool) {
        self.row.entries.push(EntrySaid::Restricted { at: self.now, restricted });
        self.head.restrict(restricted, self.now);
    }

    /// Somebody of the tenant says who answers.
    pub(super) fn handle(&mut self, by: Handler) {
        self.row.entries.push(EntrySaid::Tenant { at: self.now, handler: by });
        match by {
            Handler::Human => self.hand_over(HandOver::Human),
            Handler::Agent if self.head.give_back() => {
                self.handled = Some(Event::GivenBack { conversation: self.conversation.clone() });
            }
            Handler::Agent => {}
        }
    }

    /// It is durable: what was not spent of what it took is free again.
    pub(super) fn settle(&mut self) {
        if let (Some(hold), Some((_, tally))) = (self.hold.take(), self.decided) {
            hold.settle(tally.totals(self.texts()).amounts());
        }
        if let Some(hold) = self.owed.hold.take() {
            hold.settle(Amounts::NONE);
        }
    }

    fn texts(&self) -> usize {
        self.decided.and_then(|(turn, _)| self.row.replies_of(turn)).map_or(0, |decided| decided.texts.len())
    }
}

impl Conversation {
    /// The batch of a draft. `log` seals replies, `again` says that they may have been published before.
    pub(super) fn batch(
        &self,
        tenant: &Tenant,
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
        let expires = draft.now.after(tenant.retention.of(draft.row.kind()));
        writes.push(loaded.thread.write(draft.number, &draft.row, expires));
        writes.push(Write::put(Key::head(&self.id), encode(&draft.head)));
        let mut outputs = draft.owed.outputs.clone();
        let mut after: Vec<_> = draft.owed.spent.iter().cloned().collect();
        if let (Some((turn, tally)), Some(log)) = (draft.decided, log) {
            let texts = draft.row.replies_of(turn).map_or(&[][..], |decided| decided.texts);
            let address = draft.address.as_ref().unwrap_or(&loaded.address);
            outputs.extend(self.replies(loaded, &draft.head, turn, texts, address, log, draft.now, again));
            outputs.push(self.told(loaded, turn, tally, draft.now));
            after.extend(tally.spent.map(|spent| {
                let by = self.spent_by(turn, spent.number);
                let quotas = &self.context.quotas;
                quotas.settled(tenant, spent.chunk, &by, draft.now, tally.totals(texts.len()))
            }));
        }
        outputs.extend(draft.handled.clone().map(|handled| self.event(loaded, draft.now, handled)));
        after.extend(draft.done.map(|done| Write::delete(self.agenda(done))));
        Batch {
            fence: Some(self.home.fence),
            writes,
            outputs,
            after,
            consumed: consumed.into_iter().collect(),
        }
    }

    /// The records that ask the account to send the replies of a turn, with room for one more.
    #[expect(clippy::too_many_arguments, reason = "a record has as many parts")]
    pub(super) fn replies(
        &self,
        loaded: &Loaded,
        head: &Head,
        turn: TurnId,
        texts: &[String],
        address: &Address,
        log: &dyn Cipher,
        now: Timestamp,
        again: bool,
    ) -> Vec<NewRecord> {
        let mut records = Vec::with_capacity(texts.len() + 1);
        let profile = self.context.ports.profile(self.id.channel);
        let window = profile.and_then(|profile| profile.reply_window);
        let window_until = window.map(|window| head.customer_at.after(window));
        for (index, text) in (0_u16..).zip(texts) {
            let id = OutboundId { contact: self.id.contact, turn, index };
            let content = Content::Text { body: text.clone() };
            let message = SealedMessage { to: address.clone(), content };
            let at = log_aad(Topic::Outbound, &id);
            let sealed = encode_for(&message, |plain| log.seal(&at, plain));
            let fence = Some(self.home.fence);
            let command = SendCommand {
                id,
                purpose: Purpose::Reply,
                again,
                fence,
                window_until,
                category: None,
                sealed,
            };
            let command = OutboundCommand::Send(command);
            let record = OutboundRecord { v: V, conversation: self.id.clone(), at: now, command };
            records.push(loaded.routes.outbound(&record));
        }
        records
    }

    /// The event that tells of a turn.
    pub(super) fn told(&self, loaded: &Loaded, turn: TurnId, tally: Tally, now: Timestamp) -> NewRecord {
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
        self.event(loaded, now, event)
    }

    fn event(&self, loaded: &Loaded, at: Timestamp, event: Event) -> NewRecord {
        loaded.routes.event(&EventRecord { v: V, tenant: self.id.tenant.clone(), at, event })
    }

    /// Under which name a turn of it is written down in the journal of a chunk.
    pub(super) fn spent_by(&self, turn: TurnId, number: u32) -> SpentBy {
        SpentBy::new(self.id.contact, turn, number)
    }
}
