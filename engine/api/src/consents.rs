//! Consents and opt-outs of a contact, as operators see and enter them.

use std::collections::BTreeMap;

use heddle_schemas::consent::{Category, How, Says, Standing};
use heddle_schemas::id::ContactId;
use heddle_schemas::time::{Timestamp, rfc3339};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest text of an entry, in characters.
pub const TEXT_CHARACTERS: usize = 1_000;

/// Consents and opt-outs of a contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Consents {
    /// The contact.
    pub contact: ContactId,
    /// The standing of each purpose.
    pub purposes: BTreeMap<Category, Held>,
}

/// Standing of a purpose, and the evidence for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// The standing.
    pub standing: Standing,
    /// The latest consent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Shown>,
    /// The latest opt-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Shown>,
}

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// The time it was said.
    pub at: Time,
    /// The way it was said.
    pub how: How,
    /// The words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A time, as RFC 3339 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Time(
    #[serde(with = "rfc3339")]
    #[schemars(schema_with = "rfc3339::schema")]
    pub Timestamp,
);

/// Something that somebody of the tenant enters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsentEntry {
    /// Give or stop.
    pub says: Says,
    /// The purposes that it speaks of; at least one.
    #[schemars(length(min = 1))]
    pub purposes: Vec<Category>,
    /// The origin.
    #[serde(default)]
    pub how: Entered,
    /// When it was said, if not now: what was said last holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// The words; at most 1,000 characters. It outlives an erasure of the contact, so it should name nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_CHARACTERS))]
    pub text: Option<String>,
}

/// Origin of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Entered {
    /// The contact said it to a person, who enters it.
    #[default]
    Operator,
    /// It is from a list kept elsewhere.
    Import,
}
