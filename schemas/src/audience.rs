//! Audience: a tenant's list of people with columns, to which campaigns are sent.
//!
//! The head of an audience holds nothing about people. Each member is a row of its own, sealed under the contact's data
//! key, so that the erasure of the contact makes it unreadable at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::time::Timestamp;

/// Audiences of a tenant, at most: an erasure goes through all of them.
pub const MAX_AUDIENCES: usize = 1_000;
/// Column of the sealed value of a member's row.
pub const MEMBER_COLUMN: &str = "member";

/// Id of an audience, chosen by the tenant: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`, beginning with one of
/// `a-z` and `0-9`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AudienceId(Arc<str>);

/// Error for a text that is no audience's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no audience id: it takes 1 to 64 of a-z, 0-9, - and _, beginning with a-z or 0-9")]
pub struct InvalidAudienceId(String);

impl AudienceId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AudienceId {
    type Err = InvalidAudienceId;

    fn from_str(text: &str) -> Result<Self, InvalidAudienceId> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let is_id =
            (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) && !text.starts_with(['-', '_']);
        if is_id { Ok(Self(text.into())) } else { Err(InvalidAudienceId(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for AudienceId {
    type Error = InvalidAudienceId;

    fn try_from(text: String) -> Result<Self, InvalidAudienceId> {
        text.parse()
    }
}

impl From<AudienceId> for String {
    fn from(id: AudienceId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for AudienceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for AudienceId {
    fn schema_name() -> Cow<'static, str> {
        "AudienceId".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$" })
    }
}

/// Head of an audience, as it is stored: [`crate::table::Key::audience`], written by conditional update only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudienceHead {
    /// Version of this form.
    pub v: u16,
    /// Time of the first import.
    pub created_at: Timestamp,
    /// Time at which the last import ended; none while the first is under way, or after it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_at: Option<Timestamp>,
    /// Names of the columns of its members.
    pub columns: BTreeSet<String>,
    /// Country of the last import, for the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Fields that this build does not know. A node of a later build, beside this one, finds them again.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl AudienceHead {
    /// The version that this build writes.
    pub const VERSION: u16 = 1;

    /// Creates the head of an audience without members.
    #[must_use]
    pub fn new(created_at: Timestamp) -> Self {
        Self {
            v: Self::VERSION,
            created_at,
            imported_at: None,
            columns: BTreeSet::new(),
            country: None,
            others: Map::new(),
        }
    }
}

/// Member of an audience: the plaintext of a row of [`crate::table::Key::member`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// Phone number as `+4915112345678`.
    pub phone: String,
    /// Values by column; an empty one is absent.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

/// As logs may show it: without the person's data.
impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({} values)", self.values.len())
    }
}

/// Result of an import, in rows of the file. `added`, `changed`, `unchanged`, `duplicates`, `refused` and `erased` add
/// up to `rows`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImportCounts {
    /// Rows of the file, without the header and blank ones.
    pub rows: u64,
    /// People who were not in the audience before.
    pub added: u64,
    /// Members whose values are different now.
    pub changed: u64,
    /// Members whose values are as before.
    pub unchanged: u64,
    /// Rows of a person who was in the file before; the first row counts.
    pub duplicates: u64,
    /// Rows that were refused, each with a reason.
    pub refused: u64,
    /// People who were erased, and have not agreed since: they are not in the audience.
    pub erased: u64,
    /// People whose number may be that of several contacts: they are not in the audience.
    #[serde(default)]
    pub ambiguous: u64,
    /// Of the members in the file, those to whom no marketing may be sent: opted out, or restricted.
    pub suppressed: u64,
    /// Consents and opt-outs of the file that were not recorded before.
    pub consents: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_short_word() {
        for text in ["newsletter", "a", "2026-spring_de"] {
            assert_eq!(text.parse::<AudienceId>().unwrap().to_string(), text);
        }
        for text in ["", "-a", "_a", "A", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(text.parse::<AudienceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_later_builds_field_of_a_head_is_kept() {
        let text = r#"{"v":1,"created_at":5,"columns":["a"],"later":7}"#;
        let head: AudienceHead = serde_json::from_str(text).unwrap();
        let again: Value = serde_json::from_str(&serde_json::to_string(&head).unwrap()).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
    }
}
