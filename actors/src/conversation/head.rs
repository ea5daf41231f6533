//! Head of a conversation: its state between turns, and every decision that needs no call outside.
//!
//! The head is a pure state machine; the actor loads it, applies an input, performs its output and stores it with
//! everything else that the decision changes, in one batch.
//!
//! A message that asks for an answer is *open*. The first open message arms the agenda: the turn begins
//! when nothing has come for the settle time, and at the latest after [`SETTLE_LIMIT`] settle times. A
//! turn covers all messages that are open when it begins; it is named after the first. While it runs,
//! new messages stay open for the next. A decided turn is remembered as the *last*, until the next one
//! is decided: a redelivery finds it here and publishes the same replies again under the same ids.

use std::time::Duration;

use heddle_schemas::id::{ContactId, MessageKey, TurnId};
use heddle_schemas::ports::state::Write;
use heddle_schemas::record::encode;
use heddle_schemas::retention::{Kind, Retention};
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::contact_limits::ContactUsage;
use super::loop_guard::Rounds;

/// Number of settle times by which a burst may delay its answer.
pub const SETTLE_LIMIT: u32 = 5;

/// Message that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The message.
    pub key: MessageKey,
    /// Number of the history row that holds its current content.
    pub row: u64,
    /// True when it has text to answer; without text, the fallback is said.
    pub text: bool,
    /// Time of its acceptance.
    pub at: Timestamp,
}

/// The turn decided last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Id of the turn.
    pub turn: TurnId,
    /// Number of the history row that holds its replies.
    pub row: u64,
}

/// The state of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of this form.
    pub v: u16,
    /// Time of writing, from which its time to live counts; heads of earlier builds lack it, and have no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The next history row.
    pub next_row: u64,
    /// Time of the customer's last message, by the channel's clock: opens the customer-service window.
    pub customer_at: Timestamp,
    /// Address of the customer, sealed under the contact's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Sealed>,
    /// Correction of the name in `address`: a [`Corrected`], sealed as that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Sealed>,
    /// Messages that wait for their turn, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Open>,
    /// Not before then the next turn begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin_at: Option<Timestamp>,
    /// The due time of its agenda row, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agenda: Option<Timestamp>,
    /// The turn decided last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Decided>,
    /// Since when a human answers and the agent does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub human_since: Option<Timestamp>,
    /// Time since which the customer's messages are recorded and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restricted_since: Option<Timestamp>,
    /// Names that the person was known by before the one in `address`: a list of texts, sealed as that is. They are
    /// masked wherever texts leave for a provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_names: Option<Sealed>,
    /// Contacts that turned out to be this one: their conversations are read through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<ContactId>,
    /// Identical rounds, for the loop guard. The first of them is held in memory alone.
    #[serde(default, skip_serializing_if = "Rounds::is_unrepeated")]
    pub rounds: Rounds,
    /// Use of models and tools by the contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Box<ContactUsage>>,
}

/// Correction of the name that a channel shows.
///
/// A channel sends the name with every message, whether the person has changed it or not. So a correction holds for as
/// long as the channel shows the name from the time of the correction; another name is the person's own change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corrected {
    /// Name that the channel showed then; `None` where it had shown none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
}

impl Corrected {
    /// Returns the correction that still holds when the channel shows this name; `None` where the person has changed
    /// it.
    #[must_use]
    pub fn when_shown(&self, name: &str) -> Option<Self> {
        let same = self.shown.as_deref().is_none_or(|shown| shown == name);
        same.then(|| Self { shown: Some(name.to_owned()) })
    }
}

/// Action for a due agenda row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// Begin the turn over all open messages.
    Begin,
    /// Wake it again then.
    NotBefore(Timestamp),
    /// Delete the row: it is stale.
    Nothing,
    /// Nothing: the turn of the row runs already.
    Running,
}

impl Head {
    /// The version that this build writes.
    pub const VERSION: u16 = 1;

    /// Returns a new conversation.
    #[must_use]
    pub fn new() -> Self {
        Self { v: Self::VERSION, ..Self::default() }
    }

    /// Returns the use of models and tools by the contact.
    #[must_use]
    pub fn usage(&self) -> &ContactUsage {
        self.usage.as_deref().unwrap_or(ContactUsage::none())
    }

    /// Takes the number of the next history row.
    pub fn take_row(&mut self) -> u64 {
        let row = self.next_row;
        self.next_row += 1;
        row
    }

    /// Adds a message that asks for an answer. Returns the turn it will belong to.
    pub fn say(&mut self, message: Open, now: Timestamp, settle: Duration, running: usize) -> TurnId {
        let text_at = now.after(settle);
        let waiting = self.open.get(running);
        let latest = waiting.map_or(text_at, |first| first.at.after(settle * SETTLE_LIMIT));
        self.begin_at = Some(text_at.min(latest));
        let turn = TurnId(waiting.map_or(message.key, |first| first.key));
        self.open.push(message);
        turn
    }

    /// Replaces an open message that no turn has begun on by the content of a later row. Returns true if there was one.
    pub fn edit(&mut self, target: MessageKey, row: u64, text: bool, running: usize) -> bool {
        match self.open.iter_mut().skip(running).find(|open| open.key == target) {
            Some(open) => {
                (open.row, open.text) = (row, text);
                true
            }
            None => false,
        }
    }

    /// Removes an open message that no turn has begun on. Returns true if there was one.
    pub fn delete(&mut self, target: MessageKey, running: usize) -> bool {
        let found = self.open.iter().skip(running).position(|open| open.key == target);
        match found {
            Some(index) => {
                self.open.remove(running + index);
                true
            }
            None => false,
        }
    }

    /// Hands over to a human: no message waits for the agent any more. Messages that it was about to answer stay
    /// recorded. Returns true if that is new.
    pub fn hand_over(&mut self, now: Timestamp) -> bool {
        self.open.clear();
        let is_new = self.human_since.is_none();
        self.human_since.get_or_insert(now);
        is_new
    }

    /// Returns the conversation to the agent, which answers later messages. Returns true if that is new.
    pub fn give_back(&mut self) -> bool {
        self.human_since.take().is_some()
    }

    /// Returns true when the customer is answered: no human has the conversation, and its messages are not only
    /// recorded.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.human_since.is_none() && self.restricted_since.is_none()
    }

    /// Restricts processing, or ends the restriction: while restricted, messages are recorded and not used. Messages
    /// that were about to be answered stay recorded.
    pub fn restrict(&mut self, restricted: bool, now: Timestamp) {
        if restricted {
            self.open.clear();
            self.restricted_since.get_or_insert(now);
        } else {
            self.restricted_since = None;
        }
    }

    /// Returns the write of it at `now`. It ends with the tenant's messages, so that the person's number and name do; that
    /// of a person whose data is to be stored and not used stays until the restriction ends.
    #[must_use]
    pub fn write(&self, key: Key, retention: &Retention, now: Timestamp) -> Write {
        let value = encode(&Self { at: Some(now), ..self.clone() });
        match self.restricted_since {
            Some(_) => Write::put(key, value),
            None => Write::put_until(key, value, now.after(retention.of(Kind::Messages))),
        }
    }

    /// Returns the due time of the agenda row that must be written for the open messages, where one is needed.
    pub fn arm(&mut self) -> Option<Timestamp> {
        if self.agenda.is_some() || self.open.is_empty() {
            return None;
        }
        self.agenda = self.begin_at;
        self.agenda
    }

    /// The agenda row of this due time is about to be deleted: arms another for what is still open, never
    /// of the same name.
    pub fn rearm(&mut self, done: Timestamp) -> Option<Timestamp> {
        self.agenda = None;
        let next = self.arm()?;
        self.agenda = Some(next.max(done.after(Duration::from_micros(1))));
        self.agenda
    }

    /// Returns the action for the agenda row of this due time.
    #[must_use]
    pub fn wake(&self, due: Timestamp, now: Timestamp) -> Wake {
        if self.agenda != Some(due) || self.open.is_empty() {
            return Wake::Nothing;
        }
        match self.begin_at {
            Some(begin_at) if begin_at > now => Wake::NotBefore(begin_at),
            _ => Wake::Begin,
        }
    }

    /// Closes these messages: a turn over them is decided, its replies in `row`.
    pub fn decide(&mut self, turn: TurnId, covered: &[MessageKey], row: u64) {
        self.open.retain(|open| !covered.contains(&open.key));
        self.last = Some(Decided { turn, row });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(300);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    fn open(key: u8, millis: i64) -> Open {
        Open { key: MessageKey::from_bytes([key; 16]), row: key.into(), text: true, at: at(millis) }
    }

    fn keys(head: &Head) -> Vec<u8> {
        head.open.iter().map(|open| open.key.to_bytes()[0]).collect()
    }

    #[test]
    fn a_burst_is_one_turn_named_after_its_first_message() {
        let mut head = Head::new();
        let first = head.say(open(1, 0), at(0), SETTLE, 0);
        assert_eq!(head.arm(), Some(at(300)));
        let second = head.say(open(2, 200), at(200), SETTLE, 0);
        assert_eq!(head.arm(), None, "one agenda row is enough");
        assert_eq!(first, second);
        assert_eq!(head.wake(at(300), at(300)), Wake::NotBefore(at(500)));
        assert_eq!(head.wake(at(300), at(500)), Wake::Begin);
    }

    #[test]
    fn a_customer_that_never_stops_typing_is_still_answered() {
        let mut head = Head::new();
        for (key, millis) in (0..40).zip((0..).step_by(100)) {
            head.say(open(key, millis), at(millis), SETTLE, 0);
        }
        // Five settle times after the first message.
        assert_eq!(head.begin_at, Some(at(1500)));
    }

    #[test]
    fn messages_during_a_turn_wait_for_the_next() {
        let mut head = Head::new();
        let turn = head.say(open(1, 0), at(0), SETTLE, 0);
        head.arm();
        let next = head.say(open(2, 400), at(400), SETTLE, 1);
        assert_ne!(turn, next);
        assert_eq!(head.begin_at, Some(at(700)), "it settles anew");
        head.decide(turn, &[open(1, 0).key], 9);
        assert_eq!(keys(&head), [2]);
        assert_eq!(head.last.as_ref().map(|last| last.turn), Some(turn));
    }

    #[test]
    fn a_message_taken_back_before_its_turn_is_not_answered() {
        let mut head = Head::new();
        head.say(open(1, 0), at(0), SETTLE, 0);
        let due = head.arm().unwrap();
        assert!(head.delete(open(1, 0).key, 0));
        assert_eq!(head.wake(due, at(900)), Wake::Nothing);
        assert!(!head.delete(open(1, 0).key, 0), "once");
    }

    #[test]
    fn a_message_in_a_running_turn_is_neither_edited_nor_taken_back() {
        let mut head = Head::new();
        head.say(open(1, 0), at(0), SETTLE, 0);
        assert!(!head.edit(open(1, 0).key, 5, true, 1));
        assert!(!head.delete(open(1, 0).key, 1));
        assert_eq!(keys(&head), [1]);
    }

    #[test]
    fn a_row_that_is_not_the_armed_one_has_nothing_to_do() {
        let mut head = Head::new();
        head.say(open(1, 0), at(0), SETTLE, 0);
        head.arm();
        assert_eq!(head.wake(at(299), at(900)), Wake::Nothing);
    }
}
