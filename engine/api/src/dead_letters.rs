//! Operations on dead letters, what could not be processed: listed, shown, replayed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use heddle_schemas::audit::What;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::log::Record;
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::time::{Timestamp, human, rfc3339};
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::content::Nothing;
use crate::operation::{NoParameters, Parameters, operations};

/// Letters of a list, where the request does not say.
pub const LISTED: usize = 50;
/// Letters of one request at most.
pub const MOST: usize = 1000;
/// The default of [`Replay::max_age`]: WhatsApp's customer-service window.
pub const MAX_AGE: Duration = Duration::from_secs(86_400);
/// Letters that an entry of the audit log names at most.
const NAMED: usize = 100;
/// The form of a letter's id: its numbers are within 32 and 64 bits.
const LETTER: &str = "^[0-9]{1,9}-[0-9]{1,19}$";
/// The form of letters' ids with commas between.
const LETTERS: &str = "^[0-9]{1,9}-[0-9]{1,19}(,[0-9]{1,9}-[0-9]{1,19})*$";

operations! {
    /// Records that could not be processed, in the order of the ids.
    ListLetters: GET "/v1/dlq" (NoParameters, Filters, Nothing) -> 200 Page;
        Installation, Member, Never;

    /// One letter; of its original what may be shown, sealed parts left sealed.
    ShowLetter: GET "/v1/dlq/{id}" (OfLetter, NoParameters, Nothing) -> 200 Letter;
        Installation, Member, Before |input, contact| Some(What::LetterShow { letter: input.path.id.to_string() });

    /// Puts originals back on their way, through the same checks as a first delivery. Doing it twice does no harm.
    ReplayLetters: POST "/v1/dlq/replay" (NoParameters, NoParameters, Replay) -> 200 Replayed;
        Installation, Admin, Around |input, contact| input.body.act();
}

/// A dead letter, named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfLetter {
    /// The letter's id: its partition and offset.
    pub id: LetterId,
}

impl Parameters for OfLetter {}
impl Parameters for Filters {}

impl Replay {
    /// The act for the audit log; none where it only says what would happen.
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
    /// Those that were given up after this one, or behind the `next` of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Place>,
    /// Those of this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// Those of this tenant, where a letter tells whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// So many at most; 1 to 1,000. A list has 50 by default, a replay 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Letters in the order they were given up, the newest last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    /// The letters.
    pub items: Vec<Summary>,
    /// There may be more; ask again `after` this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Place>,
}

/// Letters to put back on their way: either `ids` or `filters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// These letters; at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MOST))]
    pub ids: Option<Vec<LetterId>>,
    /// Every letter that matches; all of them with `{}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Filters>,
    /// With `filters`: none from here on, one id a partition; what the answer before said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Vec<LetterId>>,
    /// A message to send that was decided longer ago stays, such as `"24h"`; at most ten days. A customer's
    /// message is recorded at any age, and answered up to `engine.answer_within`.
    #[serde(default = "max_age", with = "human")]
    #[schemars(schema_with = "human::schema")]
    pub max_age: Duration,
    /// Only tells what would happen.
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
    /// The letters.
    pub items: Vec<Fate>,
    /// There may be more that match; ask again `after` this, with `until` as it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Place>,
    /// Where dlq ended at the first request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<LetterId>,
}

/// Result for a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fate {
    /// The letter.
    pub id: LetterId,
    /// The outcome.
    pub outcome: Outcome,
    /// Where its original is now, or would be, as `topic/partition@offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Outcome for a letter. A label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its original is on its way again.
    Replayed,
    /// It would be.
    WouldReplay,
    /// It is older than what is sent, or than what can be recognised.
    TooOld,
    /// Its original was not kept.
    NotKept,
    /// Its original cannot be opened or read.
    Unreadable,
    /// There is nowhere to put it.
    Impossible,
    /// It goes to somebody who has been forgotten since.
    Forgotten,
    /// There is no such letter.
    Unknown,
}

impl Outcome {
    /// The label.
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

    /// Returns whether what was asked for is done, or would be.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Replayed | Self::WouldReplay)
    }
}

/// Error of a text that is no letter's id.
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
    /// The letter that a record of dlq is.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self { partition: record.partition.partition, offset: record.offset }
    }

    /// The partition that it is in.
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
            "pattern": LETTER,
            "description": "a letter's partition and offset in dlq"
        })
    }
}

/// Cursor of a list: after a letter, or after one of each partition. Written as their ids with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(Vec<LetterId>);

impl Place {
    /// After these letters; `None` when there are none.
    #[must_use]
    pub fn new(ids: Vec<LetterId>) -> Option<Self> {
        (!ids.is_empty()).then_some(Self(ids))
    }

    /// The letters' ids.
    #[must_use]
    pub fn ids(&self) -> &[LetterId] {
        &self.0
    }

    /// The offset that was taken last in a partition, where it is named.
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
    /// Attempts that were made.
    pub attempts: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whose it is, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The conversation or account it is about, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// True where its original was kept.
    pub kept: bool,
}

/// A letter, and what may be shown of its original.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Letter {
    /// All but the original.
    #[serde(flatten)]
    pub summary: Summary,
    /// State of the original.
    pub state: OriginalState,
    /// The original as it stands, sealed parts left sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Value>,
}

/// State of an original.
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
