//! Operations on dead letters (records that could not be processed): list, show, replay.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use heddle_schemas::audit::What;
use heddle_schemas::id::TenantId;
use heddle_schemas::lenient::Lenient;
use heddle_schemas::ports::log::Record;
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::time::{Timestamp, human, rfc3339};
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::content::Nothing;
use crate::operation::{NoParameters, Parameters, operations};

/// Default number of dead letters in a list.
pub const LISTED: usize = 50;
/// Maximum number of dead letters of one request.
pub const MOST: usize = 1000;
/// Default of [`Replay::max_age`]: WhatsApp's customer-service window.
pub const MAX_AGE: Duration = Duration::from_secs(86_400);
/// Maximum number of dead letters that an entry of the audit log names.
const NAMED: usize = 100;
/// Pattern of a dead letter's id: its numbers fit in 32 and 64 bits.
const LETTER: &str = "^[0-9]{1,9}-[0-9]{1,19}$";
/// Pattern of dead letters' ids separated by commas.
const LETTERS: &str = "^[0-9]{1,9}-[0-9]{1,19}(,[0-9]{1,9}-[0-9]{1,19})*$";

operations! {
    /// Lists the dead letters (records that could not be processed), in the order of their ids.
    ListLetters: GET "/v1/dlq" (NoParameters, Filters, Nothing) -> 200 Page;
        Installation, Member, Never;

    /// Shows one dead letter. Encrypted parts of its original record stay encrypted.
    ShowLetter: GET "/v1/dlq/{id}" (OfLetter, NoParameters, Nothing) -> 200 Letter;
        Installation, Member, Before |input, contact| Some(What::LetterShow { letter: input.path.id.to_string() });

    /// Replays the original records through the same checks as a first delivery. Idempotent.
    ReplayLetters: POST "/v1/dlq/replay" (NoParameters, NoParameters, Replay) -> 200 Replayed;
        Installation, Admin, Around |input, contact| input.body.act();
}

/// Dead letter named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfLetter {
    /// Id of the dead letter: its partition and offset.
    pub id: LetterId,
}

impl Parameters for OfLetter {}
impl Parameters for Filters {}

impl Replay {
    /// Returns the act for the audit log; none for a dry run.
    fn act(&self) -> Option<What> {
        let named = self.ids.iter().flatten();
        let letters = named.clone().take(NAMED).map(ToString::to_string).collect();
        (!self.dry_run).then(|| What::LettersReplay { letters, named: named.count() as u64 })
    }
}

/// Filters of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// Only those dead-lettered after this one, or after the `next` of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Place>,
    /// Only those with this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// Only those of this tenant, where the dead letter names its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Maximum number of dead letters, 1 to 1,000. Default: 50 for a list, 1,000 for a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Page of dead letters in the order they were dead-lettered, the newest last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    /// The dead letters.
    pub items: Vec<Summary>,
    /// Cursor of the next page, for `after`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Place>,
}

/// Dead letters to replay: either `ids` or `filters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Ids of the dead letters; at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MOST))]
    pub ids: Option<Vec<LetterId>>,
    /// Selects every matching dead letter; `{}` selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Filters>,
    /// With `filters`: exclusive end of the replay, one id a partition, as the previous answer returned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Vec<LetterId>>,
    /// Maximum age of an outbound message, such as `"24h"`; at most ten days. An older one stays in the DLQ. A
    /// customer's message is recorded at any age, and answered up to the age `engine.answer_within`.
    #[serde(default = "max_age", with = "human")]
    #[schemars(schema_with = "human::schema")]
    pub max_age: Duration,
    /// Reports what would happen, and replays nothing.
    #[serde(default)]
    pub dry_run: bool,
}

fn max_age() -> Duration {
    MAX_AGE
}

impl Default for Replay {
    fn default() -> Self {
        Self { ids: None, filters: None, until: None, max_age: MAX_AGE, dry_run: false }
    }
}

/// Result of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replayed {
    /// The dead letters.
    pub items: Vec<Fate>,
    /// Cursor of the next request, for `after`, with the `until` of this answer; absent when none is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Place>,
    /// Ends of dlq's partitions at the first request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<LetterId>,
}

/// Result of one dead letter's replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fate {
    /// The dead letter.
    pub id: LetterId,
    /// The outcome.
    pub outcome: Outcome,
    /// Position of its replayed original, actual or in a dry run, as `topic/partition@offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Details of the outcome.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Outcome of a dead letter's replay. A label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its original was published again.
    Replayed,
    /// Its original would be published again.
    WouldReplay,
    /// It exceeds the maximum age for sending, or for the detection of duplicates.
    TooOld,
    /// Its original was not kept.
    NotKept,
    /// Its original cannot be decrypted or decoded.
    Unreadable,
    /// No topic or partition accepts its original.
    Impossible,
    /// Its recipient has been erased since.
    Forgotten,
    /// No such dead letter exists.
    Unknown,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Replayed,
        Self::WouldReplay,
        Self::TooOld,
        Self::NotKept,
        Self::Unreadable,
        Self::Impossible,
        Self::Forgotten,
        Self::Unknown,
    ];

    /// Returns the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::WouldReplay => "would_replay",
            Self::TooOld => "too_old",
            Self::NotKept => "not_kept",
            Self::Unreadable => "unreadable",
            Self::Impossible => "impossible",
            Self::Forgotten => "forgotten",
            Self::Unknown => "unknown",
        }
    }

    /// Returns whether the dead letter was replayed, or would be.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Replayed | Self::WouldReplay)
    }
}

/// Error of a text that is not a dead letter's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a dead letter's id is its partition and offset in dlq, such as 0-17")]
pub struct InvalidLetterId;

/// Position of a dead letter in dlq, written `PARTITION-OFFSET`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The partition.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: Offset,
}

impl LetterId {
    /// Returns the id of a record of dlq.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self { partition: record.partition.partition, offset: record.offset }
    }

    /// Returns its partition of dlq.
    #[must_use]
    pub fn topic_partition(self) -> TopicPartition {
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
        // Digits only: Rust's integers also parse a sign.
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
            "pattern": LETTER,
            "description": "a dead letter's partition and offset in dlq"
        })
    }
}

/// Cursor of a list: after one dead letter, or after one of each partition. Written as their ids, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(Vec<LetterId>);

impl Place {
    /// Creates a cursor after these dead letters; `None` without any.
    #[must_use]
    pub fn new(ids: Vec<LetterId>) -> Option<Self> {
        (!ids.is_empty()).then_some(Self(ids))
    }

    /// Returns the ids of the dead letters.
    #[must_use]
    pub fn ids(&self) -> &[LetterId] {
        &self.0
    }

    /// Returns the last offset taken of a partition that the cursor names.
    #[must_use]
    pub fn of(&self, partition: u32) -> Option<Offset> {
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
            "pattern": LETTERS,
            "description": "a dead letter's id, or the ids of one dead letter of each partition, separated by commas"
        })
    }
}

/// Dead letter in a list: everything but its original record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Its id.
    pub id: LetterId,
    /// Time at which the record was dead-lettered.
    #[serde(with = "rfc3339")]
    #[schemars(schema_with = "rfc3339::schema")]
    pub at: Timestamp,
    /// Source partition of the record; none where the dead letter itself cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TopicPartition>,
    /// Offset in the source partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// Reason for dead-lettering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Lenient<DeadReason>>,
    /// Details of the reason.
    pub detail: String,
    /// Number of attempts made.
    pub attempts: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Tenant of the record, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Conversation or account concerned, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// True where the original is stored.
    pub kept: bool,
}

/// Dead letter with the viewable part of its original.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Letter {
    /// All but the original.
    #[serde(flatten)]
    pub summary: Summary,
    /// State of the original.
    pub state: OriginalState,
    /// The stored original; encrypted parts stay encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Value>,
}

/// State of an original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OriginalState {
    /// Shown.
    Shown,
    /// Stored under its tenant's key, and not decrypted for display.
    Sealed,
    /// Stored, but not JSON.
    NoJson,
    /// Not stored.
    NotKept,
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
