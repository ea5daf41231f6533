//! What a contact consented to and opted out of, as operators see and enter it.

use std::collections::BTreeMap;

use heddle_actors::intake::consent::{self, Statement};
use heddle_schemas::consent::{Category, ContactRecord, Evidence, How, Says, Standing};
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::ports::keys::{KeysError, TenantCipher};
use heddle_schemas::time::{Timestamp, rfc3339};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest text of an entry, in characters.
const TEXT_CHARACTERS: usize = 1_000;

/// What holds for a contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Consents {
    /// Whose it is.
    pub contact: ContactId,
    /// What holds, by purpose.
    pub purposes: BTreeMap<Category, Held>,
}

/// What holds for a purpose, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// What holds.
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
    /// When it was said.
    pub at: Time,
    /// How.
    pub how: How,
    /// In which words.
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
    /// What it speaks of; at least one.
    pub purposes: Vec<Category>,
    /// Where it is from.
    #[serde(default)]
    pub how: Entered,
    /// When it was said, if not now: what was said last holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// In which words; at most 1,000 characters. It outlives an erasure of the contact, so it should name nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// How an entry came to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Entered {
    /// Somebody was told, and enters it.
    #[default]
    Operator,
    /// It is from a list kept elsewhere.
    Import,
}

impl ConsentEntry {
    /// The statement, keyed by something random; otherwise what is wrong with the entry.
    ///
    /// # Errors
    /// The fault, in words.
    pub(crate) fn statement(self, key: MessageKey, now: Timestamp) -> Result<Statement, String> {
        let Self { says, purposes, how, at, text } = self;
        let at = at.map_or(now, |Time(at)| at);
        if purposes.is_empty() {
            return Err("purposes: is empty; name what it speaks of, such as \"marketing\"".into());
        }
        if at > now {
            return Err("at: lies ahead; it would stand above whatever the contact says until then".into());
        }
        if text.as_ref().is_some_and(|text| text.chars().count() > TEXT_CHARACTERS) {
            return Err(format!("text: is over {TEXT_CHARACTERS} characters"));
        }
        let how = match how {
            Entered::Operator => How::Operator,
            Entered::Import => How::Import,
        };
        Ok(Statement { says, categories: purposes, at, how, key, text })
    }
}

impl Consents {
    /// Of a record, its texts opened.
    ///
    /// # Errors
    /// When a text does not open.
    pub(crate) fn of(
        tenant: &TenantId,
        cipher: &dyn TenantCipher,
        contact: ContactId,
        record: &ContactRecord,
    ) -> Result<Self, KeysError> {
        let shown = |evidence: &Evidence| -> Result<Shown, KeysError> {
            let text = consent::words(tenant, cipher, contact, evidence)?;
            Ok(Shown { at: Time(evidence.at), how: evidence.how, text })
        };
        let held = |category| -> Result<(Category, Held), KeysError> {
            let consent = record.consents.get(&category).cloned().unwrap_or_default();
            let given = consent.given.as_ref().map(shown).transpose()?;
            let stopped = consent.stopped.as_ref().map(shown).transpose()?;
            Ok((category, Held { standing: record.standing(category), given, stopped }))
        };
        let purposes = Category::ALL.into_iter().map(held).collect::<Result<_, _>>()?;
        Ok(Self { contact, purposes })
    }
}
