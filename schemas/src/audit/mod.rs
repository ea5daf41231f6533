//! The audit log: who did what, when and why, as a chain that shows where it was changed or cut.
//!
//! There is one chain a tenant, and one for actions that belong to no tenant. Entries are numbered from 1. Each holds
//! the hash of the one before, so its own hash stands for all earlier entries:
//!
//! ```text
//! hash(n) = SHA-256("heddle/audit/1" 00 tenant 00 body(n))      body(n) names hash(n - 1), as previous
//! MAC(n) = HMAC-SHA-256 of hash(n), 128 bits, under the tenant's key for the domain "audit"
//! ```
//!
//! The hash needs no key: with a noted hash the chain up to it can be checked for ever, also after the tenant's key was
//! erased. The MAC (field `mark`) needs the key: an attacker who can write into the database but has no key can compute
//! every hash anew and not a single MAC. The chain's head holds the newest entry once more, with a MAC of another
//! domain. An earlier head cannot be rebuilt from rows, so the end cannot be cut by going back to one. An attacker who
//! kept a whole earlier head can do that; the heads in topic events show it ([`crate::record::event::Event::Audited`]).
//!
//! An entry names ids, and never a message's text, a phone number or a secret.
//!
//! # Layout
//! - this file: the contents of an entry; [`chain`]: chaining, writing and verification.

pub mod chain;
mod digest;
mod note;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::digest::Digest;
use self::note::PHONE_DIGITS;
pub use self::note::{InvalidNote, Note};
use crate::audience::AudienceId;
use crate::digits;
use crate::id::{AccountId, ChannelKind, ContactId, ConversationId, MessageKey, TenantId};
use crate::record::V;
use crate::time::Timestamp;

/// Returns whether digits in groups stand in it as people write phone numbers: nine or more with at most two separators
/// between two of them, which begin with a zero, or are three groups or more, or ten digits of which the first four are
/// no year. Dates are none.
fn is_grouped_number(text: &str) -> bool {
    let text: String = text.chars().filter(|c| !digits::has_no_width(*c)).collect();
    let text = without_dates(&text);
    let (mut groups, mut separators) = (Vec::<String>::new(), 0);
    for c in text.chars().chain(['\n']) {
        match c {
            c if c.is_numeric() => {
                match groups.last_mut().filter(|_| separators == 0) {
                    Some(group) => group.push(c),
                    None => groups.push(c.to_string()),
                }
                separators = 0;
            }
            ' ' | '.' | '-' | '(' | ')' | '/' if !groups.is_empty() && separators < 2 => separators += 1,
            _ => {
                if is_number(&groups) {
                    return true;
                }
                groups.clear();
                separators = 0;
            }
        }
    }
    false
}

fn is_number(groups: &[String]) -> bool {
    let count = groups.iter().map(|group| group.chars().count()).sum::<usize>();
    let Some(first) = groups.first().filter(|_| count >= PHONE_DIGITS) else { return false };
    let is_year = first.len() == 4 && (first.starts_with("19") || first.starts_with("20"));
    let begins_with_zero = first.chars().next().is_some_and(|c| digits::value(c) == Some(0));
    begins_with_zero || groups.len() >= 3 || (count > PHONE_DIGITS && !is_year)
}

/// Returns the text with each date such as 2026-01-31 replaced by a letter.
fn without_dates(text: &str) -> String {
    let is_date = |date: &[char]| {
        date.iter().enumerate().all(|(at, c)| match at {
            4 | 7 => *c == '-',
            _ => c.is_ascii_digit(),
        })
    };
    let chars: Vec<_> = text.chars().collect();
    let (mut without, mut at) = (String::with_capacity(text.len()), 0);
    while at < chars.len() {
        match chars.get(at..at + 10).is_some_and(is_date) {
            true => (without.push('d'), at += 10).1,
            false => (without.push(chars[at]), at += 1).1,
        }
    }
    without
}

/// Authentication of the caller: what the engine knows of it, beside the name that was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// The admin API, with its bearer token.
    Token,
    /// The admin API without a token, from this machine.
    Machine,
    /// A command on the data folder, which no process had open: the caller may read its files.
    Folder,
    /// The engine itself, by a rule that was configured.
    Engine,
    /// One of a later build; the stored entry, which is never rewritten, keeps its name.
    #[serde(other)]
    Other,
}

/// Caller of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Who {
    /// The name that was claimed: by the header `Heddle-Actor`, or by a command's `--as`, which without it is the
    /// user of the operating system. It is worth as much as the means below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Note>,
    /// Authentication of the caller.
    pub means: Means,
    /// The address that the request came from; none without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

impl Who {
    /// The engine itself.
    pub const ENGINE: Self = Self { name: None, means: Means::Engine, address: None };
}

/// Operation, and what it was done on. Never a message's text or a phone number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum What {
    /// The tenant's configuration was set.
    TenantApply,
    /// All that is kept of the tenant was read.
    TenantExport,
    /// A tenant was erased. The entry stands in the chain of no tenant: the tenant's own key is erased too.
    TenantErase {
        /// The tenant.
        tenant: TenantId,
    },
    /// A channel account was disconnected, its credentials erased.
    ChannelDisconnect {
        /// The channel.
        channel: ChannelKind,
        /// The account.
        account: AccountId,
    },
    /// A conversation was handed over to a human.
    ContactHandOver {
        /// The conversation.
        conversation: ConversationId,
    },
    /// A conversation was given back to the agent.
    ContactGiveBack {
        /// The conversation.
        conversation: ConversationId,
    },
    /// The data that is kept of a contact was read.
    ContactExport {
        /// The contact.
        contact: ContactId,
    },
    /// The data that is kept of a contact was corrected.
    ContactCorrect {
        /// The contact.
        contact: ContactId,
    },
    /// The use of a contact's data was restricted, or the restriction was lifted.
    ContactRestrict {
        /// The contact.
        contact: ContactId,
        /// True where the restriction holds from now on.
        restricted: bool,
    },
    /// An objection of a contact was recorded.
    ContactObject {
        /// The contact.
        contact: ContactId,
    },
    /// A contact was erased.
    ContactErase {
        /// The contact.
        contact: ContactId,
    },
    /// A consent was recorded, or its withdrawal.
    ContactConsent {
        /// The contact.
        contact: ContactId,
        /// True where consent holds from now on.
        given: bool,
    },
    /// A message to a contact was requested, outside of the agent's turns.
    ContactMessage {
        /// The contact.
        contact: ContactId,
    },
    /// A document was stored.
    DocumentPut {
        /// The document.
        document: String,
    },
    /// A document was removed.
    DocumentRemove {
        /// The document.
        document: String,
    },
    /// A list of people was imported into an audience.
    AudienceImport {
        /// The audience.
        audience: AudienceId,
    },
    /// The members of an audience were read.
    AudienceExport {
        /// The audience.
        audience: AudienceId,
    },
    /// An audience was deleted.
    AudienceDelete {
        /// The audience.
        audience: AudienceId,
    },
    /// A dead letter was shown.
    LetterShow {
        /// The dead letter.
        letter: String,
    },
    /// Dead letters were replayed.
    LettersReplay {
        /// The first hundred of the dead letters; empty where all that match were asked for.
        letters: Vec<String>,
        /// The number of dead letters that were named.
        named: u64,
    },
    /// Stored data was verified against the engine's promises.
    Prove,
    /// Keys were wrapped anew.
    KeysRotate,
    /// The audit log was begun anew behind a break. One number is left out, so that the break shows for ever.
    Resume,
    /// An operation of a later build, as it came.
    #[serde(untagged)]
    Unknown(Map<String, Value>),
}

impl What {
    /// The name of the operation, as a label and in lists.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unknown(fields) => fields.get("operation").and_then(Value::as_str).unwrap_or("unknown"),
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
            Self::ContactMessage { .. } => "contact_message",
            Self::DocumentPut { .. } => "document_put",
            Self::DocumentRemove { .. } => "document_remove",
            Self::AudienceImport { .. } => "audience_import",
            Self::AudienceExport { .. } => "audience_export",
            Self::AudienceDelete { .. } => "audience_delete",
            Self::LetterShow { .. } => "letter_show",
            Self::LettersReplay { .. } => "letters_replay",
            Self::Prove => "prove",
            Self::KeysRotate => "keys_rotate",
            Self::Resume => "resume",
        }
    }

    /// Returns the contact that it was done on, where it was one.
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
            | Self::ContactMessage { contact }
            | Self::ContactConsent { contact, .. } => Some(*contact),
            // By the names of the fields of the operations that are known.
            Self::Unknown(fields) => {
                let text = |field: &str| fields.get(field).and_then(Value::as_str);
                let contact = text("contact").and_then(|contact| contact.parse().ok());
                let conversation = || text("conversation")?.parse::<ConversationId>().ok();
                contact.or_else(|| Some(conversation()?.contact))
            }
            Self::TenantApply
            | Self::TenantExport
            | Self::TenantErase { .. }
            | Self::ChannelDisconnect { .. }
            | Self::DocumentPut { .. }
            | Self::DocumentRemove { .. }
            | Self::AudienceImport { .. }
            | Self::AudienceExport { .. }
            | Self::AudienceDelete { .. }
            | Self::LetterShow { .. }
            | Self::Prove
            | Self::LettersReplay { .. }
            | Self::KeysRotate
            | Self::Resume => None,
        }
    }

    /// Returns what it was done on, as lists show it.
    #[must_use]
    pub fn about(&self) -> String {
        match self {
            Self::TenantApply | Self::TenantExport | Self::Prove | Self::KeysRotate | Self::Resume => {
                String::new()
            }
            Self::Unknown(fields) => {
                let others = fields.iter().filter(|(field, _)| *field != "operation");
                others.map(|(field, value)| format!("{field} {value}")).collect::<Vec<_>>().join(", ")
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
            | Self::ContactMessage { contact }
            | Self::ContactConsent { contact, .. } => contact.to_string(),
            Self::DocumentPut { document } | Self::DocumentRemove { document } => document.clone(),
            Self::AudienceImport { audience }
            | Self::AudienceExport { audience }
            | Self::AudienceDelete { audience } => audience.to_string(),
            Self::LetterShow { letter } => letter.clone(),
            Self::LettersReplay { letters, named } => match letters.first() {
                None => "all that match".into(),
                Some(first) if *named == 1 => first.clone(),
                Some(first) => format!("{first} and {} more", named - 1),
            },
        }
    }
}

/// Progress of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is about to be done. Where no later entry reports its end, a crash hid the outcome.
    Begun,
    /// It was done.
    Done,
    /// It was not permitted, or not possible as it was asked; nothing was changed.
    Refused,
    /// It failed; a part of it may have been done.
    Failed,
    /// One of a later build; the stored entry, which is never rewritten, keeps its name.
    #[serde(other)]
    Other,
}

impl Outcome {
    /// All that this build writes.
    pub const ALL: [Self; 4] = [Self::Begun, Self::Done, Self::Refused, Self::Failed];

    /// The name, as a label and in lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Other => "other",
        }
    }
}

/// Contents of an entry: who did what, why, and the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Act {
    /// The caller.
    pub who: Who,
    /// The operation.
    pub what: What,
    /// The reason, in the caller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Note>,
    /// The progress of the operation.
    pub outcome: Outcome,
    /// The number of the entry with which it began, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<u64>,
    /// The number of records that it read or changed, where that is known and counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}

/// Part of an entry that is hashed: JSON, byte by byte as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Body {
    /// Version.
    pub v: V,
    /// From 1, without a gap.
    pub number: u64,
    /// Random id: distinguishes entries that two nodes write alike at the same time.
    pub id: MessageKey,
    /// The time, microseconds since 1970, by the clock of the node that wrote it.
    pub at: Timestamp,
    /// The act.
    #[serde(flatten)]
    pub act: Act,
    /// The hash of the entry before; zeros for the first.
    pub previous: Digest,
}

/// An entry of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// The part that is hashed.
    #[serde(flatten)]
    pub body: Body,
    /// The hash of tenant and body.
    pub hash: Digest,
    /// The entry's MAC: the keyed hash of the hash.
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
            ("she called from 06.12.34.56.78", InvalidNote::Phone),
            ("0151 1234567", InvalidNote::Phone),
            ("(650) 555-1234", InvalidNote::Phone),
            ("612 345 678", InvalidNote::Phone),
            ("151 12345678", InvalidNote::Phone),
            ("٠٦١٢٣٤٥٦٧٨", InvalidNote::Phone),
            ("０６ １２ ３４ ５６ ７８", InvalidNote::Phone),
            ("06\u{200b}12\u{200b}34\u{200b}56\u{200b}78", InvalidNote::Phone),
        ];
        for (bad, why) in cases {
            assert_eq!(bad.parse::<Note>(), Err(why), "{bad}");
        }
        for good in
            ["2026-11-26 10:30, ticket 4711", "INC-2026-000123", "2026/0001234", "rooms 12, 13 and 14"]
        {
            assert!(good.parse::<Note>().is_ok(), "{good}");
        }
        let stored: Note = serde_json::from_str("\"06.12.34.56.78\"").unwrap();
        assert_eq!(stored.as_str(), "06.12.34.56.78", "an entry that is there stays readable");
        assert_eq!("é".repeat(256).parse::<Note>().map(|_| ()), Ok(()));
        assert_eq!("é".repeat(257).parse::<Note>(), Err(InvalidNote::Long));
    }
}
