//! Consents and opt-outs of a contact, as the admin API shows and accepts them.

use std::collections::BTreeMap;

use heddle_schemas::consent::{Category, How, Says, Standing};
use heddle_schemas::id::ContactId;
use heddle_schemas::lenient::Lenient;
use heddle_schemas::time::{Timestamp, rfc3339};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Maximum length of an entry's text, in characters.
pub const TEXT_CHARACTERS: usize = 1_000;

/// Consents and opt-outs of a contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Consents {
    /// The contact.
    pub contact: ContactId,
    /// Standing by purpose.
    pub purposes: BTreeMap<Category, Held>,
}

/// Standing of one purpose, with its evidence.
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

/// Evidence of a consent or an opt-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// Time of the statement.
    pub at: Time,
    /// Origin of the statement.
    pub how: Lenient<How>,
    /// Wording of the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Time in RFC 3339 format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Time(
    #[serde(with = "rfc3339")]
    #[schemars(schema_with = "rfc3339::schema")]
    pub Timestamp,
);

/// Consent or opt-out that an operator of the tenant enters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsentEntry {
    /// Consent (`give`) or opt-out (`stop`).
    pub says: Says,
    /// Purposes concerned; at least one.
    #[schemars(length(min = 1))]
    pub purposes: Vec<Category>,
    /// Origin of the entry.
    #[serde(default)]
    pub how: Entered,
    /// Time of the statement, now by default. The latest statement is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Wording of the statement, at most 1,000 characters. It outlives an erasure of the contact, so it should hold no
    /// personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_CHARACTERS))]
    pub text: Option<String>,
}

/// Origin of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Entered {
    /// A person enters what the contact told them.
    #[default]
    Operator,
    /// Imported from a list kept elsewhere.
    Import,
}
