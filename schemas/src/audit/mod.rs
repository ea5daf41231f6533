//! The audit log: who did what, when and why, as a chain that shows where it was changed or cut.
//!
//! There is one chain a tenant, and one for what is no tenant's. Entries are numbered from 1. Each holds the
//! hash of the one before, so that its own hash stands for all that came before it:
//!
//! ```text
//! hash(n) = SHA-256("heddle/audit/1" 00 tenant 00 body(n))      body(n) names hash(n - 1), as previous
//! mark(n) = HMAC-SHA-256 of hash(n), 128 bits, under the tenant's key for the domain "audit"
//! ```
//!
//! The hash needs no key: whoever has noted one can check the chain up to it for ever, also after the tenant's
//! key was erased. The mark does: whoever can write into the database but has no key can compute every hash
//! anew and not a single mark. The newest entry stands once more in the chain's head, with a mark of another
//! domain: rows alone do not tell what a former head looked like, so the end cannot be cut by going back to
//! one. Who has kept a whole former head can do that; the heads in topic events show it
//! ([`crate::record::event::Event::Audited`]).
//!
//! An entry names ids and never what was said, a phone number or a secret.
//!
//! # Layout
//! - here: what an entry says; [`chain`]: how entries are chained, written and verified.

pub mod chain;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{AccountId, ChannelKind, ContactId, ConversationId, MessageKey, TenantId};
use crate::record::V;
use crate::time::Timestamp;

/// Characters of a [`Note`] at most.
const NOTE: usize = 256;
/// Digits in a row that are taken for a phone number. National numbers have from eight or nine on, a date
/// written together has eight.
const PHONE_DIGITS: usize = 9;

/// Digits behind a plus, with what people write between them, that are taken for a phone number.
const INTERNATIONAL_DIGITS: usize = 7;

/// Why a text is no [`Note`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNote {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is long.
    #[error("it is over {NOTE} characters; name a ticket that says the rest")]
    Long,
    /// Its bytes are no text of one line.
    #[error("it holds control characters; write one line of text")]
    Control,
    /// An entry stays for as long as the audit log does, whatever is erased.
    #[error(
        "it holds what looks like a phone number ({PHONE_DIGITS} digits in a row, or + and digits); the audit log \
         outlives an erasure, so name the contact's id, or a ticket, instead"
    )]
    Phone,
}

/// A line that a person wrote into the audit log: a name or a reason, 1 to 256 characters, no phone number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note(String);

impl Note {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Note {
    type Err = InvalidNote;

    fn from_str(text: &str) -> Result<Self, InvalidNote> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidNote::Empty);
        }
        if text.chars().count() > NOTE {
            return Err(InvalidNote::Long);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidNote::Control);
        }
        if looks_like_a_phone_number(text) {
            return Err(InvalidNote::Phone);
        }
        Ok(Self(text.to_owned()))
    }
}

fn looks_like_a_phone_number(text: &str) -> bool {
    let long = text.split(|c: char| !c.is_numeric()).any(|run| run.chars().count() >= PHONE_DIGITS);
    let international = text.split('+').skip(1).filter(|rest| !rest.starts_with(' ')).any(|rest| {
        let number =
            rest.chars().take_while(|c| c.is_numeric() || matches!(c, ' ' | '-' | '.' | '(' | ')' | '/'));
        number.filter(|c| c.is_numeric()).count() >= INTERNATIONAL_DIGITS
    });
    long || international
}

/// Numbers among the characters of Latin-1, for a pattern of a header.
const NUMERIC: &str = "[0-9\u{b2}\u{b3}\u{b9}\u{bc}-\u{be}]";

impl Note {
    /// The schema of a header that holds a note: nothing at all says nothing, otherwise a note. Of its characters those
    /// that every HTTP library can write, which are Latin-1; others may stand there in UTF-8.
    #[must_use]
    pub fn header_schema() -> serde_json::Value {
        let long = format!("(?!.*{NUMERIC}{{{PHONE_DIGITS}}})");
        let international = format!("(?!.*\\+(?! )(?:[ .()/-]*{NUMERIC}){{{INTERNATIONAL_DIGITS}}})");
        let pattern = format!("^{long}{international}[ -~\\u00a0-\\u00ff]*$");
        serde_json::json!({ "type": "string", "maxLength": NOTE, "pattern": pattern })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Note {
    fn schema_name() -> Cow<'static, str> {
        "Note".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": NOTE })
    }
}

/// A SHA-256 hash; as text, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What stands before the first entry.
    pub const NONE: Self = Self([0; 32]);

    /// These bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom("no SHA-256 hash: 64 hexadecimal digits"))
    }
}

impl JsonSchema for Digest {
    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
    }
}

/// What the engine knows of who asked, beside the name that was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// The admin API, with its bearer token.
    Token,
    /// The admin API without a token, from this machine.
    Machine,
    /// A command on the data folder, which no process had open: whoever may read its files.
    Folder,
    /// The engine itself, by a rule that was configured.
    Engine,
}

/// Who.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Who {
    /// The name that was claimed: by the header `Heddle-Actor`, or by a command's `--as`, which without it is the
    /// user of the operating system. It is worth as much as the means below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Note>,
    /// How it was proved that somebody may do this.
    pub means: Means,
    /// Where the request came from; none without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

impl Who {
    /// The engine itself.
    pub const ENGINE: Self = Self { name: None, means: Means::Engine, address: None };
}

/// What was done, and with what. Never what was said or by which number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum What {
    /// The tenant's configuration was set.
    TenantApply,
    /// All that is kept of the tenant was read.
    TenantExport,
    /// A tenant was erased. It stands in the chain of no tenant: the tenant's own key is gone with it.
    TenantErase {
        /// Which.
        tenant: TenantId,
    },
    /// A channel account was disconnected, its credentials erased.
    ChannelDisconnect {
        /// Which channel.
        channel: ChannelKind,
        /// Which account.
        account: AccountId,
    },
    /// A conversation was handed over to a human.
    ContactHandOver {
        /// Which.
        conversation: ConversationId,
    },
    /// A conversation was given back to the agent.
    ContactGiveBack {
        /// Which.
        conversation: ConversationId,
    },
    /// What is kept of a contact was read.
    ContactExport {
        /// Whose.
        contact: ContactId,
    },
    /// What is kept of a contact was corrected.
    ContactCorrect {
        /// Whose.
        contact: ContactId,
    },
    /// The use of a contact's data was restricted, or no more.
    ContactRestrict {
        /// Whose.
        contact: ContactId,
        /// Whether it is from now on.
        restricted: bool,
    },
    /// An objection of a contact was taken down.
    ContactObject {
        /// Whose.
        contact: ContactId,
    },
    /// A contact was erased.
    ContactErase {
        /// Whose.
        contact: ContactId,
    },
    /// A consent was taken down, or its withdrawal.
    ContactConsent {
        /// Whose.
        contact: ContactId,
        /// Whether it holds from now on.
        given: bool,
    },
    /// A document was kept.
    DocumentPut {
        /// Which.
        document: String,
    },
    /// A document was removed.
    DocumentRemove {
        /// Which.
        document: String,
    },
    /// A dead letter was looked at.
    LetterShow {
        /// Which.
        letter: String,
    },
    /// Dead letters were put back on their way.
    LettersReplay {
        /// Which, the first hundred of them; empty where all that match were asked for.
        letters: Vec<String>,
        /// How many were named.
        named: u64,
    },
    /// What is stored was held against what is promised.
    Prove,
    /// Keys were wrapped anew.
    KeysRotate,
    /// The audit log was begun anew behind a break. One number is left out, so that the break shows for ever.
    Resume,
}

impl What {
    /// The name of the operation, as a label and in lists.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::TenantApply => "tenant_apply",
            Self::TenantExport => "tenant_export",
            Self::TenantErase { .. } => "tenant_erase",
            Self::ChannelDisconnect { .. } => "channel_disconnect",
            Self::ContactHandOver { .. } => "contact_hand_over",
            Self::ContactGiveBack { .. } => "contact_give_back",
            Self::ContactExport { .. } => "contact_export",
            Self::ContactCorrect { .. } => "contact_correct",
            Self::ContactRestrict { .. } => "contact_restrict",
            Self::ContactObject { .. } => "contact_object",
            Self::ContactErase { .. } => "contact_erase",
            Self::ContactConsent { .. } => "contact_consent",
            Self::DocumentPut { .. } => "document_put",
            Self::DocumentRemove { .. } => "document_remove",
            Self::LetterShow { .. } => "letter_show",
            Self::LettersReplay { .. } => "letters_replay",
            Self::Prove => "prove",
            Self::KeysRotate => "keys_rotate",
            Self::Resume => "resume",
        }
    }

    /// The contact that it was done with, where it was one.
    #[must_use]
    pub fn contact(&self) -> Option<ContactId> {
        match self {
            Self::ContactHandOver { conversation } | Self::ContactGiveBack { conversation } => {
                Some(conversation.contact)
            }
            Self::ContactExport { contact }
            | Self::ContactCorrect { contact }
            | Self::ContactRestrict { contact, .. }
            | Self::ContactObject { contact }
            | Self::ContactErase { contact }
            | Self::ContactConsent { contact, .. } => Some(*contact),
            Self::TenantApply
            | Self::TenantExport
            | Self::TenantErase { .. }
            | Self::ChannelDisconnect { .. }
            | Self::DocumentPut { .. }
            | Self::DocumentRemove { .. }
            | Self::LetterShow { .. }
            | Self::Prove
            | Self::LettersReplay { .. }
            | Self::KeysRotate
            | Self::Resume => None,
        }
    }

    /// What it was done with, as a list shows it.
    #[must_use]
    pub fn about(&self) -> String {
        match self {
            Self::TenantApply | Self::TenantExport | Self::Prove | Self::KeysRotate | Self::Resume => {
                String::new()
            }
            Self::TenantErase { tenant } => tenant.to_string(),
            Self::ChannelDisconnect { channel, account } => format!("{channel}/{account}"),
            Self::ContactHandOver { conversation } | Self::ContactGiveBack { conversation } => {
                conversation.to_string()
            }
            Self::ContactExport { contact }
            | Self::ContactCorrect { contact }
            | Self::ContactRestrict { contact, .. }
            | Self::ContactObject { contact }
            | Self::ContactErase { contact }
            | Self::ContactConsent { contact, .. } => contact.to_string(),
            Self::DocumentPut { document } | Self::DocumentRemove { document } => document.clone(),
            Self::LetterShow { letter } => letter.clone(),
            Self::LettersReplay { letters, named } => match letters.first() {
                None => "all that match".into(),
                Some(first) if *named == 1 => first.clone(),
                Some(first) => format!("{first} and {} more", named - 1),
            },
        }
    }
}

/// How far an operation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is about to be done. Where no later entry tells of it, a crash hid what became of it.
    Begun,
    /// It was done.
    Done,
    /// It was not permitted, or not possible as it was asked; nothing was changed.
    Refused,
    /// It failed; a part of it may have been done.
    Failed,
}

impl Outcome {
    /// The name, as a label and in lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What is to be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Act {
    /// Who.
    pub who: Who,
    /// What.
    pub what: What,
    /// Why, in the words of who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Note>,
    /// How far it has come.
    pub outcome: Outcome,
    /// The number of the entry with which it began, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<u64>,
    /// How many records it read or changed, where that is known and counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}

/// What is hashed of an entry, as JSON, byte by byte as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Body {
    /// Version.
    pub v: V,
    /// From 1, without a gap.
    pub number: u64,
    /// Random: tells apart what two nodes write down alike at the same time.
    pub id: MessageKey,
    /// When, microseconds since 1970, by the clock of the node that wrote it.
    pub at: Timestamp,
    /// What it tells.
    #[serde(flatten)]
    pub act: Act,
    /// The hash of the entry before; zeros for the first.
    pub previous: Digest,
}

/// An entry of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// What is hashed.
    #[serde(flatten)]
    pub body: Body,
    /// The hash of tenant and body.
    pub hash: Digest,
    /// The keyed hash of the hash.
    pub mark: MessageKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_line_without_a_phone_number() {
        for good in [
            "Ann",
            "ticket HD-20261126, at the customer's request",
            "1+1 is 2, room 12 345",
            "C++ 2023-11-05",
        ] {
            assert_eq!(good.parse::<Note>().map(|note| note.to_string()), Ok(good.to_owned()));
        }
        let cases = [
            (" ", InvalidNote::Empty),
            ("two\nlines", InvalidNote::Control),
            ("for +49 (30) 901820", InvalidNote::Phone),
            ("for 16505551234", InvalidNote::Phone),
            ("for +1-650-555-1234", InvalidNote::Phone),
        ];
        for (bad, why) in cases {
            assert_eq!(bad.parse::<Note>(), Err(why), "{bad}");
        }
        assert_eq!("é".repeat(256).parse::<Note>().map(|_| ()), Ok(()));
        assert_eq!("é".repeat(257).parse::<Note>(), Err(InvalidNote::Long));
    }
}
