//! Note of a caller: a reason or a name, without phone numbers.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::is_grouped_number;

/// Characters of a [`Note`] at most.
pub(super) const NOTE: usize = 256;

/// Digits in a row that are taken for a phone number. National numbers have from eight or nine on, a date
/// written together has eight.
pub(super) const PHONE_DIGITS: usize = 9;

/// Digits behind a plus, with what people write between them, that are taken for a phone number.
pub(super) const INTERNATIONAL_DIGITS: usize = 7;

/// Fault of a text that is no [`Note`].
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
        "it holds what looks like a phone number ({PHONE_DIGITS} digits or more, or + and digits); the audit log \
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

impl Note {
    /// The schema of a header that holds a note: nothing at all says nothing, otherwise a note. Of its characters those
    /// that every HTTP library can write, which are Latin-1; others may stand there in UTF-8.
    #[must_use]
    pub fn header_schema() -> serde_json::Value {
        let long = format!("(?!.*{NUMERIC}{{{PHONE_DIGITS}}})");
        let international = format!("(?!.*\\+(?! )(?:[ .()/-]*{NUMERIC}){{{INTERNATIONAL_DIGITS}}})");
        // Stricter than what is refused, which lets dates and years pass.
        let grouped = format!("(?!.*{NUMERIC}(?:[ .()/-]{{0,2}}{NUMERIC}){{{}}})", PHONE_DIGITS - 1);
        let pattern = format!("^{long}{grouped}{international}[ -~\\u00a0-\\u00ff]*$");
        serde_json::json!({ "type": "string", "maxLength": NOTE, "pattern": pattern })
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

pub(super) fn looks_like_a_phone_number(text: &str) -> bool {
    let long = text.split(|c: char| !c.is_numeric()).any(|run| run.chars().count() >= PHONE_DIGITS);
    let international = text.split('+').skip(1).filter(|rest| !rest.starts_with(' ')).any(|rest| {
        let number =
            rest.chars().take_while(|c| c.is_numeric() || matches!(c, ' ' | '-' | '.' | '(' | ')' | '/'));
        number.filter(|c| c.is_numeric()).count() >= INTERNATIONAL_DIGITS
    });
    long || international || is_grouped_number(text)
}

/// Numbers among the characters of Latin-1, for a pattern of a header.
pub(super) const NUMERIC: &str = "[0-9\u{b2}\u{b3}\u{b9}\u{bc}-\u{be}]";

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
        let text = String::deserialize(deserializer)?;
        match text.parse() {
            // Entries of earlier builds, which refused fewer forms of numbers, stay as they were chained.
            Err(InvalidNote::Phone) => Ok(Self(text.trim().to_owned())),
            note => note.map_err(serde::de::Error::custom),
        }
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
