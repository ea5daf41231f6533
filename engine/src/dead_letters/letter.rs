//! A dead letter as operators see it: its id, its line in a list, and what may be shown of its original.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use heddle_schemas::id::{AccountKey, ConversationId, TenantId};
use heddle_schemas::ports::log::Record;
use heddle_schemas::record::decode;
use heddle_schemas::record::dlq::{DeadLetter, DeadReason};
use heddle_schemas::time::{Timestamp, rfc3339};
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Why a text is no letter's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a letter's id is its partition and offset in dlq, such as 0-17")]
pub struct InvalidLetterId;

/// A letter's place in dlq, written `PARTITION-OFFSET`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The partition.
    pub partition: u32,
    /// The offset there.
    pub offset: Offset,
}

impl LetterId {
    pub(super) fn of(record: &Record) -> Self {
        Self { partition: record.partition.partition, offset: record.offset }
    }

    pub(super) fn partition(self) -> TopicPartition {
        TopicPartition { topic: Topic::Dlq, partition: self.partition }
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = InvalidLetterId;

    fn from_str(text: &str) -> Result<Self, InvalidLetterId> {
        let (partition, offset) = text.split_once('-').ok_or(InvalidLetterId)?;
        // No sign: Rust's numbers would take one.
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !number(partition) || !number(offset) {
            return Err(InvalidLetterId);
        }
        Ok(Self {
            partition: partition.parse().map_err(|_| InvalidLetterId)?,
            offset: offset.parse().map_err(|_| InvalidLetterId)?,
        })
    }
}

impl Serialize for LetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LetterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for LetterId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LetterId".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+-[0-9]+$",
            "description": "a letter's partition and offset in dlq"
        })
    }
}

/// How far a list has come: after a letter, or after one of each partition. Written as their ids with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(Vec<LetterId>);

impl Place {
    /// After these letters; `None` when there are none.
    #[must_use]
    pub fn new(ids: Vec<LetterId>) -> Option<Self> {
        (!ids.is_empty()).then_some(Self(ids))
    }

    pub(super) fn ids(&self) -> &[LetterId] {
        &self.0
    }

    /// The offset that was taken last in a partition, where it is named.
    pub(super) fn of(&self, partition: u32) -> Option<Offset> {
        self.0.iter().filter(|id| id.partition == partition).map(|id| id.offset).max()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, id) in self.0.iter().enumerate() {
            write!(f, "{}{id}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Place {
    type Err = InvalidLetterId;

    fn from_str(text: &str) -> Result<Self, InvalidLetterId> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Place {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Place".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+-[0-9]+(,[0-9]+-[0-9]+)*$",
            "description": "a letter's id, or those of one letter of each partition with commas between"
        })
    }
}

/// A letter in a list: everything but its original.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Its id.
    pub id: LetterId,
    /// When the record was given up.
    #[serde(with = "rfc3339")]
    #[schemars(schema_with = "rfc3339::schema")]
    pub at: Timestamp,
    /// Where the record came from; none where the letter itself cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TopicPartition>,
    /// Its offset there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// More about why.
    pub detail: String,
    /// How often it was tried.
    pub attempts: u32,
    /// How many bytes it has.
    pub bytes: u64,
    /// Whose it is, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The conversation or account it is about, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Whether its original was kept.
    pub kept: bool,
}

/// A letter, and what may be shown of its original.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Letter {
    /// All but the original.
    #[serde(flatten)]
    pub summary: Summary,
    /// What became of the original.
    pub state: OriginalState,
    /// The original as it stands, sealed parts left sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Value>,
}

/// What became of an original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OriginalState {
    /// It is shown.
    Shown,
    /// It is kept under its tenant's key, and not opened for showing.
    Sealed,
    /// It is kept, and is no JSON.
    NoJson,
    /// It was not kept.
    NotKept,
}

/// A record of dlq, read as far as it can be.
pub(super) struct Found {
    pub(super) id: LetterId,
    pub(super) key: Bytes,
    pub(super) letter: Result<DeadLetter, String>,
    at: Timestamp,
    bytes: usize,
}

impl Found {
    pub(super) fn read(record: &Record) -> Self {
        // What a fault quotes may be anything, so it is not repeated.
        let letter = decode(&record.value)
            .map_err(|_| "it is no letter that this build reads; a newer one may have written it".to_owned());
        let bytes = record.value.len();
        Self { id: LetterId::of(record), key: record.key.clone(), letter, at: record.at, bytes }
    }

    /// How many bytes it takes in memory, more or less.
    pub(super) fn weight(&self) -> usize {
        self.bytes
    }

    /// By when it was given up.
    pub(super) fn order(&self) -> (Timestamp, LetterId) {
        (self.letter.as_ref().map_or(self.at, |letter| letter.at), self.id)
    }

    /// What it is about: keys of the engine's own records are these, any other may be a phone number.
    fn about(&self) -> Option<(TenantId, String)> {
        let key = std::str::from_utf8(&self.key).ok()?;
        let conversation = key.parse::<ConversationId>().map(|conversation| conversation.tenant);
        let tenant =
            conversation.or_else(|_| key.parse::<AccountKey>().map(|account| account.tenant)).ok()?;
        Some((tenant, key.to_owned()))
    }

    /// Whose it is, where that can be told.
    pub(super) fn tenant(&self) -> Option<TenantId> {
        let named = self.letter.as_ref().ok().and_then(|letter| letter.tenant.clone());
        named.or_else(|| self.about().map(|(tenant, _)| tenant))
    }

    pub(super) fn summary(&self) -> Summary {
        let (tenant, about) = self.about().unzip();
        match &self.letter {
            Ok(letter) => Summary {
                id: self.id,
                at: letter.at,
                from: Some(letter.from),
                offset: Some(letter.offset),
                reason: Some(letter.reason),
                detail: letter.detail.clone(),
                attempts: letter.attempts,
                bytes: letter.bytes,
                tenant: letter.tenant.clone().or(tenant),
                about,
                kept: letter.original.is_some(),
            },
            Err(fault) => Summary {
                id: self.id,
                at: self.at,
                from: None,
                offset: None,
                reason: None,
                detail: fault.clone(),
                attempts: 0,
                bytes: self.bytes as u64,
                tenant,
                about,
                kept: false,
            },
        }
    }

    pub(super) fn matches(&self, reason: Option<DeadReason>, tenant: Option<&TenantId>) -> bool {
        reason.is_none_or(|reason| self.letter.as_ref().is_ok_and(|letter| letter.reason == reason))
            && tenant.is_none_or(|tenant| self.tenant().as_ref() == Some(tenant))
    }

    pub(super) fn shown(&self) -> Letter {
        let original = self.letter.as_ref().ok().and_then(|letter| letter.original.as_ref());
        let sealed = self.letter.as_ref().is_ok_and(|letter| letter.tenant.is_some());
        let (state, original) = match original {
            None => (OriginalState::NotKept, None),
            Some(_) if sealed => (OriginalState::Sealed, None),
            Some(original) => match serde_json::from_slice(original.as_bytes()) {
                Ok(json) => (OriginalState::Shown, Some(json)),
                Err(_) => (OriginalState::NoJson, None),
            },
        };
        Letter { summary: self.summary(), state, original }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id: LetterId = "3-17".parse().unwrap();
        assert_eq!((id.partition, id.offset, id.to_string().as_str()), (3, 17, "3-17"));
        for text in ["", "17", "3-", "-17", "3-17-1", "3-+17", "a-1", "4294967296-0"] {
            assert_eq!(text.parse::<LetterId>(), Err(InvalidLetterId), "{text}");
        }
        let id = |partition, offset| LetterId { partition, offset };
        assert!(id(0, 9) < id(0, 10) && id(0, 10) < id(1, 0));
    }
}
