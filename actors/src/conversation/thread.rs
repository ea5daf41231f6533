//! Rows of a thread: additions of one commit each, sealed under the contact's key.
//!
//! A row is written once, under the number that the head gave it, and never changed; an edit or a deletion is a row of
//! its own. So the history keeps every version with its time, and repeating a commit writes the same row.

use std::sync::Arc;

use bytes::Bytes;
use heddle_schemas::consent::Category;
use heddle_schemas::content::{Asks, Content};
use heddle_schemas::id::{ConversationId, MessageKey, TurnId};
use heddle_schemas::lenient::Lenient;
use heddle_schemas::money::Money;
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::keys::{Cipher, KeysError, aad};
use heddle_schemas::ports::responder::{Said, Sent, Speaker};
use heddle_schemas::ports::state::{Scan, State, StoreError, Write};
use heddle_schemas::record::encode_for;
use heddle_schemas::record::event::Outcome;
use heddle_schemas::record::inbound::{ActKind, Handler, SealedAct};
use heddle_schemas::retention::Kind;
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::head::Open;
use crate::tenant::quota::ChunkOf;
use crate::tenant::quota::amounts::Totals;

/// The column of a history row.
pub(crate) const COLUMN: &str = heddle_schemas::table::HISTORY_COLUMN;

/// Row of one commit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Time of writing, from which its time to live counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Entries, in order.
    pub entries: Vec<EntrySaid>,
}

/// Entry of a row: a message or another act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum EntrySaid {
    /// Act of the customer.
    Customer {
        /// The message.
        key: MessageKey,
        /// When, by the channel's clock.
        at: Timestamp,
        /// Kind of the act.
        kind: ActKind,
        /// Message that it changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<MessageKey>,
        /// Content from the channel.
        act: Box<SealedAct>,
    },
    /// Command of the tenant about the handler.
    Tenant {
        /// When.
        at: Timestamp,
        /// Handler from then on.
        handler: Handler,
    },
    /// Restriction of processing on the customer's request, or its end.
    Restricted {
        /// When.
        at: Timestamp,
        /// True when it is only recorded.
        restricted: bool,
    },
    /// Correction of the stored name on the customer's request. The names themselves are not in it.
    Corrected {
        /// When.
        at: Timestamp,
    },
    /// Decision of the agent.
    Agent {
        /// The turn that decided it.
        turn: TurnId,
        /// When.
        at: Timestamp,
        /// The messages sent, in order.
        texts: Vec<String>,
        /// The documents it rests on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sources: Vec<String>,
        /// Data sent to providers before.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sent: Vec<Sent>,
        /// Figures of the turn for events and usage.
        tally: Tally,
    },
    /// Message that the tenant sent outside of the agent's turns.
    Sent {
        /// Hash of the request's idempotency key.
        key: MessageKey,
        /// When.
        at: Timestamp,
        /// The purpose that needs the contact's consent.
        category: Category,
        /// The content.
        content: Box<OutgoingContent>,
    },
    /// What a later build wrote, as it came: this one writes it back unchanged and shows it to no responder.
    #[serde(untagged)]
    Unknown(serde_json::Map<String, serde_json::Value>),
}

/// Figures of a turn, kept with its replies so that they can be published again after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Number of customer messages that it answers.
    pub messages: u32,
    /// Outcome of the turn; that of a later build is kept by its name.
    pub outcome: Lenient<Outcome>,
    /// Calls to the outside that were made for it.
    #[serde(default)]
    pub attempts: u32,
    /// Tokens sent to a provider.
    #[serde(default)]
    pub input_tokens: u64,
    /// Tokens received.
    #[serde(default)]
    pub output_tokens: u64,
    /// Cost of the calls.
    #[serde(default)]
    pub money: Money,
    /// Place in the quota's journal that records its use; `None` where the quota was spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
}

/// Place in the quota's journal that records the use of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Quota lease that it used.
    pub chunk: ChunkOf,
    /// Its number among the attempts at the turn.
    pub number: u32,
}

impl Tally {
    /// Returns what it adds to the tenant's usage, with `texts` messages sent.
    #[must_use]
    pub fn totals(&self, texts: usize) -> Totals {
        Totals {
            turns: 1,
            messages: texts as u64,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            money: self.money.as_micros(),
            ..Totals::default()
        }
    }
}

/// Decision of a turn, as its row holds it.
#[derive(Debug, Clone)]
pub struct Decision<'a> {
    /// When.
    pub at: Timestamp,
    /// Replies.
    pub texts: &'a [String],
    /// Figures of the turn.
    pub tally: Tally,
}

impl Row {
    /// Returns the kind that decides the time to live: a row that refers to a file ends when the reference has to, and
    /// so does everything committed with it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let refers = self.entries.iter().any(|entry| match entry {
            EntrySaid::Customer { act, .. } => {
                act.content.as_ref().is_some_and(Content::may_refer_to_file) || act.context.referral.is_some()
            }
            EntrySaid::Tenant { .. }
            | EntrySaid::Restricted { .. }
            | EntrySaid::Corrected { .. }
            | EntrySaid::Agent { .. } => false,
            EntrySaid::Sent { content, .. } => !content.files().is_empty(),
            // It may, and what refers to a file lives no longer than other rows.
            EntrySaid::Unknown(_) => true,
        });
        if refers { Kind::Media } else { Kind::Messages }
    }

    /// Returns the time of writing; a row of an earlier build that did not note it is as old as its first entry.
    #[must_use]
    pub fn written(&self) -> Option<Timestamp> {
        let said = self.entries.iter().filter_map(|entry| match entry {
            EntrySaid::Customer { at, .. }
            | EntrySaid::Tenant { at, .. }
            | EntrySaid::Restricted { at, .. }
            | EntrySaid::Corrected { at }
            | EntrySaid::Agent { at, .. }
            | EntrySaid::Sent { at, .. } => Some(*at),
            EntrySaid::Unknown(fields) => fields.get("at")?.as_i64().map(Timestamp::from_micros),
        });
        self.at.or_else(|| said.min())
    }

    /// The content of a customer's message in this row.
    #[must_use]
    pub fn content_of(&self, message: MessageKey) -> Option<&Content> {
        self.entries.iter().find_map(|entry| match entry {
            EntrySaid::Customer { key, target, act, .. } if *key == message || *target == Some(message) => {
                act.content.as_ref()
            }
            _ => None,
        })
    }

    /// Returns the replies of a turn in this row, with its figures.
    #[must_use]
    pub fn replies_of(&self, decided: TurnId) -> Option<Decision<'_>> {
        self.entries.iter().find_map(|entry| match entry {
            EntrySaid::Agent { turn, at, texts, tally, .. } if *turn == decided => {
                Some(Decision { at: *at, texts, tally: tally.clone() })
            }
            _ => None,
        })
    }
}

/// Why a row could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contact's key, or a row that does not open.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The row is not as written.
    #[error("history row {row} of a conversation cannot be read: {detail}")]
    Row {
        /// Number of the row.
        row: u64,
        /// Reason.
        detail: String,
    },
}

/// The thread of one conversation.
#[derive(Debug)]
pub struct Thread {
    conversation: ConversationId,
    cipher: Arc<dyn Cipher>,
}

impl Thread {
    /// Returns the thread of this conversation, under its contact's key.
    #[must_use]
    pub fn new(conversation: ConversationId, cipher: Arc<dyn Cipher>) -> Self {
        Self { conversation, cipher }
    }

    /// The contact's cipher.
    #[must_use]
    pub fn cipher(&self) -> &dyn Cipher {
        &*self.cipher
    }

    /// The same, to be kept.
    #[must_use]
    pub fn shared_cipher(&self) -> Arc<dyn Cipher> {
        self.cipher.clone()
    }

    /// The write of a row.
    #[must_use]
    pub fn write(&self, number: u64, row: &Row, expires: Timestamp) -> Write {
        let key = Key::history(&self.conversation, number);
        let sealed = encode_for(row, |plain| self.cipher.seal(&aad(&key, COLUMN), plain));
        Write::put_until(key, sealed.into_bytes(), expires)
    }

    /// Opens a row.
    pub(crate) fn open(&self, key: &Key, number: u64, stored: Bytes) -> Result<Row, ThreadError> {
        let plain = self.cipher.open(&aad(key, COLUMN), &Sealed::from_bytes(stored))?;
        serde_json::from_slice(&plain)
            .map_err(|error| ThreadError::Row { row: number, detail: super::fault::unparsed(&error) })
    }

    /// Reads a row; `None` when its time is over.
    ///
    /// # Errors
    /// [`ThreadError`].
    pub async fn read(&self, state: &dyn State, number: u64) -> Result<Option<Row>, ThreadError> {
        let key = Key::history(&self.conversation, number);
        match state.get(&key).await? {
            Some(stored) => self.open(&key, number, stored).map(Some),
            None => Ok(None),
        }
    }

    /// Rows from this number on, in order, with their numbers.
    ///
    /// # Errors
    /// [`ThreadError`].
    pub async fn from(
        &self,
        state: &dyn State,
        first: u64,
        rows: usize,
    ) -> Result<Vec<(u64, Row)>, ThreadError> {
        let from = Bytes::copy_from_slice(&first.to_be_bytes());
        let scan = Scan { from, ..Scan::first(Partition::history(&self.conversation), rows) };
        let mut found = Vec::new();
        for (key, stored) in state.scan(&scan).await? {
            let number = key.row().try_into().map_or(0, u64::from_be_bytes);
            found.push((number, self.open(&key, number, stored)?));
        }
        Ok(found)
    }

    /// Returns the last rows, in order.
    ///
    /// # Errors
    /// [`ThreadError`].
    pub(crate) async fn last(&self, state: &dyn State, rows: usize) -> Result<Vec<Row>, ThreadError> {
        let scan = Scan::last(Partition::history(&self.conversation), rows);
        let found = state.scan(&scan).await?;
        found.into_iter().rev().map(|(key, stored)| self.open(&key, 0, stored)).collect()
    }
}

/// Recent texts, with the message of each text of the customer, and the names that the customer showed.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    said: Vec<(Option<MessageKey>, Said)>,
    /// Each once, in the order they were shown.
    pub(crate) names: Vec<String>,
}

impl Recent {
    /// Returns the texts of these rows after all edits and deletions, without the messages of `except`.
    ///
    /// An edit or a deletion comes after the message that it changes, so the last rows of a thread miss none.
    pub(crate) fn of(rows: Vec<Row>, except: &[Open]) -> Self {
        let mut recent = Self::default();
        rows.into_iter().for_each(|row| recent.add(row));
        recent.said.retain(|(key, _)| !except.iter().any(|open| Some(open.key) == *key));
        recent
    }

    /// The texts, in order.
    pub(crate) fn said(self) -> Vec<Said> {
        self.said.into_iter().map(|(_, said)| said).collect()
    }

    fn add(&mut self, row: Row) {
        for entry in row.entries {
            match entry {
                EntrySaid::Customer { key, kind, target, act, .. } => self.act(key, kind, target, &act),
                EntrySaid::Agent { texts, .. } => {
                    self.said.extend(texts.into_iter().map(|text| (None, Said { by: Speaker::Agent, text })));
                }
                EntrySaid::Sent { content, .. } => {
                    self.said.push((None, Said { by: Speaker::Agent, text: content.in_words() }));
                }
                EntrySaid::Tenant { .. }
                | EntrySaid::Restricted { .. }
                | EntrySaid::Corrected { .. }
                | EntrySaid::Unknown(_) => {}
            }
        }
    }

    fn act(&mut self, key: MessageKey, kind: ActKind, target: Option<MessageKey>, act: &SealedAct) {
        if let Some(name) = act.from.name.as_ref().filter(|name| !self.names.contains(name)) {
            self.names.push(name.clone());
        }
        let text = match act.content.as_ref().map(Content::asks) {
            Some(Asks::Answer(text)) => Some(text.to_owned()),
            _ => None,
        };
        let edited = self.said.iter().position(|(said, _)| said.is_some() && *said == target);
        match (kind, edited, text) {
            (ActKind::Say, _, Some(text)) => {
                self.said.push((Some(key), Said { by: Speaker::Customer, text }));
            }
            (ActKind::Edit, Some(at), Some(text)) => self.said[at].1.text = text,
            // Edited into something without text.
            (ActKind::Edit, Some(at), None) | (ActKind::Delete, Some(at), _) => {
                self.said.remove(at);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use heddle_schemas::content::{Address, Context};

    use super::*;

    fn said(content: &str, context: Context) -> Row {
        let content = serde_json::from_str(content).unwrap();
        let act = SealedAct { id: "1".into(), from: Default::default(), content, emoji: None, context };
        let key = MessageKey::from_bytes([1; 16]);
        let entry = EntrySaid::Customer {
            key,
            at: Timestamp::EPOCH,
            kind: ActKind::Say,
            target: None,
            act: Box::new(act),
        };
        Row { at: None, entries: vec![entry] }
    }

    fn act(key: u8, kind: ActKind, target: Option<u8>, text: &str, name: &str) -> Row {
        let message = |key| MessageKey::from_bytes([key; 16]);
        let content = (kind != ActKind::Delete).then(|| Content::Text { body: text.into() });
        let from = Address { name: Some(name.into()), ..Address::default() };
        let act = SealedAct { id: "1".into(), from, content, emoji: None, context: Context::default() };
        let (key, target) = (message(key), target.map(message));
        let entry = EntrySaid::Customer { key, at: Timestamp::EPOCH, kind, target, act: Box::new(act) };
        Row { at: None, entries: vec![entry] }
    }

    #[test]
    fn a_turn_with_an_outcome_of_a_later_build_is_read_with_its_replies_and_written_back() {
        let stored = serde_json::json!({
            "by": "agent", "turn": "02020202020202020202020202020202", "at": 7, "texts": ["hello"],
            "tally": { "messages": 1, "outcome": "deferred", "attempts": 1 },
        });
        let entry: EntrySaid = serde_json::from_value(stored).unwrap();
        let EntrySaid::Agent { tally, texts, .. } = &entry else { panic!("{entry:?}") };
        assert_eq!((texts.len(), tally.outcome.name(|_| "known")), (1, "deferred"));
        assert_eq!(serde_json::to_value(&entry).unwrap()["tally"]["outcome"], "deferred");
    }

    #[test]
    fn history_shows_edited_texts_as_they_are_now_and_deleted_ones_not_at_all() {
        let mut recent = Recent::default();
        for row in [
            act(1, ActKind::Say, None, "my pin is 1234", "Ann"),
            act(2, ActKind::Say, None, "at four", "Ann"),
            act(3, ActKind::Delete, Some(1), "", "Ann"),
            act(4, ActKind::Edit, Some(2), "at five", "Ann Miller"),
            act(5, ActKind::Edit, Some(9), "of a message that is not shown", "Ann"),
            act(6, ActKind::Say, None, "thanks", "Ann"),
        ] {
            recent.add(row);
        }
        assert_eq!(recent.names, ["Ann", "Ann Miller"]);
        let texts: Vec<_> = recent.said().into_iter().map(|said| said.text).collect();
        assert_eq!(texts, ["at five", "thanks"]);
    }

    #[test]
    fn an_entry_of_a_later_build_is_kept_as_it_came() {
        let stored = r#"{"at":7,"entries":[{"by":"tenant","at":1,"handler":"human"},{"at":2,"by":"campaign","id":[1]}]}"#;
        let row: Row = serde_json::from_str(stored).unwrap();
        assert!(matches!(row.entries[..], [EntrySaid::Tenant { .. }, EntrySaid::Unknown(_)]));
        assert_eq!(serde_json::to_string(&row).unwrap(), stored);
        assert_eq!(row.written(), Some(Timestamp::from_micros(7)));
        let mut recent = Recent::default();
        recent.add(row);
        assert!(recent.said().is_empty());
        // A variant inside a known entry may be a later one as well.
        let later = r#"{"entries":[{"at":3,"by":"tenant","handler":"supervisor"}]}"#;
        let row: Row = serde_json::from_str(later).unwrap();
        assert_eq!(serde_json::to_string(&row).unwrap(), later);
        assert_eq!(row.written(), Some(Timestamp::from_micros(3)));
    }

    #[test]
    fn a_row_that_refers_to_a_file_or_may_lives_as_media() {
        let plain = Context::default;
        let text = r#"{"type":"text","body":"b"}"#;
        assert_eq!(said(text, plain()).kind(), Kind::Messages);
        let picture = r#"{"type":"media","kind":"image","id":"7"}"#;
        assert_eq!(said(picture, plain()).kind(), Kind::Media);
        let new = r#"{"type":"unknown","kind":"hologram","raw":{"id":"7"}}"#;
        assert_eq!(said(new, plain()).kind(), Kind::Media);
        // An advertisement's picture is named by its address.
        let referral = Some(serde_json::json!({ "image_url": "https://scontent.xx.fbcdn.net/7" }));
        assert_eq!(said(text, Context { referral, ..plain() }).kind(), Kind::Media);
    }
}
