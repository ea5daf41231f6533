//! Dead letters: lists what was given up, shows it, and puts it back on its way.
//!
//! # Contract
//! A replay appends the original to its topic again and nothing else: it goes through the same checks as a
//! first delivery, and may end in dlq once more, as another letter. Letters are never changed or removed;
//! the log's retention ends them, and where it is shorter the tenant's `retention.dlq`. Nothing that is sealed is opened for showing.
//!
//! Replaying twice does no harm (I3), nor does replaying what has been handled by another way:
//! - a customer's act is recognised by its marker: who gave it up wrote none, whoever applies it writes one.
//!   An original of ingress gets the same marker, from the channel's message id.
//! - a message to send is appended with `again`, so its account asks the journal of sends first, and what is
//!   under way or sent is not called again.
//! - a report only raises a status.
//!
//! Markers and journals end (`marker_ttl`), so what is older by its own time is not replayed at all, and
//! `max_age` may not exceed it.
//!
//! A letter's age is that of its original. A message to send that is older than `max_age` stays. A customer's
//! message that is older than `engine.answer_within` is recorded by its conversation and not answered.
//!
//! Letters are read a fetch at a time, and a request reads and replays a bounded number of them (I9); the
//! answer says where to go on. `until` holds the ends of dlq at the first request, so that what is given up
//! again is not replayed for ever.
//!
//! # Layout
//! - This file: the operations. `scan`: letters in order, from a place on.
//! - `letter`: a letter as operators see it. `kept`: which are not over yet. `way`: what becomes of one, pure.

mod kept;
mod letter;
mod scan;
#[cfg(test)]
mod tests;
mod way;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_actors::options::Options;
use heddle_actors::ports::Ports;
use heddle_actors::tenant::configuration::Tenants;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{Keys, KeysError, Missing};
use heddle_schemas::ports::log::{Log, NewRecord, StoreError};
use heddle_schemas::record::decode;
use heddle_schemas::record::dlq::{DeadLetter, DeadReason};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::time::{Day, human};
use heddle_schemas::topic::{Offset, Topic};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::kept::Kept;
use self::letter::Found;
pub use self::letter::{InvalidLetterId, Letter, LetterId, OriginalState, Place, Summary};
use self::scan::Scan;
use self::way::{Ages, Desk, Way, rough};
use crate::metrics::Metrics;

/// Letters of a list, where the request does not say.
pub const LISTED: usize = 50;
/// Letters of one request at most.
pub const MOST: usize = 1000;
/// Letters that are appended together at most, and their bytes.
const TOGETHER: (usize, usize) = (64, 4 << 20);
/// The default of [`Replay::max_age`]: a day, the shortest reply window of a channel.
pub const MAX_AGE: Duration = Duration::from_secs(86_400);

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// There is no such letter.
    #[error("there is no letter {0}; log.retention or its tenant's retention.dlq may have ended it")]
    Unknown(LetterId),
    /// The request makes no sense.
    #[error("{0}")]
    Request(String),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys, such as a wrong master key.
    #[error(transparent)]
    Keys(KeysError),
}

/// Which letters.
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
    pub limit: Option<usize>,
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

/// What to put back on its way: either `ids` or `filters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// These letters; at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    #[schemars(with = "String")]
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

/// What became of each letter.
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

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fate {
    /// The letter.
    pub id: LetterId,
    /// What became of it.
    pub outcome: Outcome,
    /// Where its original is now, or would be, as `topic/partition@offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What became of a letter. A label in metrics.
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

    /// Whether what was asked for is done, or would be.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Replayed | Self::WouldReplay)
    }
}

/// The letters of a node's log.
#[derive(Clone)]
pub struct DeadLetters {
    log: Arc<dyn Log>,
    keys: Arc<dyn Keys>,
    clock: Arc<dyn Clock>,
    tenants: Arc<Tenants>,
    metrics: Arc<Metrics>,
    answer_within: Duration,
    marker_ttl: Duration,
}

impl DeadLetters {
    /// Over these ports, for these tenants and actors with these options.
    #[must_use]
    pub fn new(ports: &Ports, tenants: Arc<Tenants>, options: &Options, metrics: Arc<Metrics>) -> Self {
        Self {
            log: ports.log.clone(),
            keys: ports.keys.clone(),
            clock: ports.clock.clone(),
            tenants,
            metrics,
            answer_within: options.answer_within,
            marker_ttl: options.marker_ttl,
        }
    }

    /// Letters that match, from the oldest that is kept on.
    ///
    /// # Errors
    /// [`DeadLettersError`].
    pub async fn list(&self, filters: &Filters) -> Result<Page, DeadLettersError> {
        let limit = filters.limit.unwrap_or(LISTED).clamp(1, MOST);
        let mut scan = Scan::begin(&*self.log, filters, self.kept(), None).await?;
        let mut items = Vec::new();
        while items.len() < limit
            && let Some(found) = scan.next().await?
        {
            items.push(found.summary());
        }
        Ok(Page { items, next: scan.rest() })
    }

    /// A letter, and of its original what may be shown.
    ///
    /// # Errors
    /// [`DeadLettersError`].
    pub async fn show(&self, id: LetterId) -> Result<Letter, DeadLettersError> {
        let found = self.find(id).await?.ok_or(DeadLettersError::Unknown(id))?;
        Ok(found.shown())
    }

    fn kept(&self) -> Kept<'_> {
        Kept { tenants: &self.tenants, now: self.clock.now() }
    }

    async fn find(&self, id: LetterId) -> Result<Option<Found>, StoreError> {
        let found = scan::find(&*self.log, id).await?;
        Ok(found.filter(|found| self.kept().holds(found)))
    }

    /// Puts originals back on their way. Doing it again does no harm: see the module.
    ///
    /// # Errors
    /// [`DeadLettersError`]; what was replayed until then stays so, and may be again.
    pub async fn replay(&self, replay: &Replay) -> Result<Replayed, DeadLettersError> {
        let most = rough(self.marker_ttl);
        let refused = |why: String| Err(DeadLettersError::Request(why));
        if replay.max_age > self.marker_ttl {
            return refused(format!("max_age: at most {most}, for as long as it is known what was sent"));
        }
        match (&replay.ids, &replay.filters, &replay.until) {
            (Some(ids), None, None) if ids.len() <= MOST => self.replay_these(ids.clone(), replay).await,
            (Some(_), None, None) => refused(format!("ids: at most {MOST}")),
            (None, Some(filters), until) => self.replay_all(filters, until.as_deref(), replay).await,
            _ => refused("either ids, or filters (and until) are given".to_owned()),
        }
    }

    async fn replay_these(
        &self,
        mut ids: Vec<LetterId>,
        replay: &Replay,
    ) -> Result<Replayed, DeadLettersError> {
        ids.sort_unstable();
        ids.dedup();
        let mut ids = ids.into_iter();
        let mut items = Vec::with_capacity(ids.len());
        loop {
            let mut unknown = Vec::new();
            let (mut together, mut bytes) = (Vec::new(), 0);
            while together.len() < TOGETHER.0
                && bytes < TOGETHER.1
                && let Some(id) = ids.next()
            {
                match self.find(id).await? {
                    Some(found) => {
                        bytes += found.weight();
                        together.push(found);
                    }
                    None => unknown.push(id),
                }
            }
            if together.is_empty() && unknown.is_empty() {
                break;
            }
            let detail = || "log.retention or its tenant's retention.dlq may have ended it".to_owned();
            let unknown =
                unknown.into_iter().map(|id| self.told(replay, id, Outcome::Unknown, None, detail()));
            items.extend(unknown);
            items.extend(self.put_back(together, replay).await?);
        }
        items.sort_unstable_by_key(|fate| fate.id);
        Ok(Replayed { items, next: None, until: Vec::new() })
    }

    async fn replay_all(
        &self,
        filters: &Filters,
        until: Option<&[LetterId]>,
        replay: &Replay,
    ) -> Result<Replayed, DeadLettersError> {
        let limit = filters.limit.unwrap_or(MOST).clamp(1, MOST);
        let mut scan = Scan::begin(&*self.log, filters, self.kept(), until).await?;
        let mut items = Vec::new();
        loop {
            let (mut together, mut bytes) = (Vec::new(), 0);
            while together.len() < TOGETHER.0.min(limit - items.len())
                && bytes < TOGETHER.1
                && let Some(found) = scan.next().await?
            {
                bytes += found.weight();
                together.push(found);
            }
            if together.is_empty() {
                break;
            }
            items.extend(self.put_back(together, replay).await?);
        }
        Ok(Replayed { items, next: scan.rest(), until: scan.until() })
    }

    async fn put_back(&self, letters: Vec<Found>, replay: &Replay) -> Result<Vec<Fate>, DeadLettersError> {
        let mut records = Vec::new();
        let mut ways = Vec::with_capacity(letters.len());
        for found in &letters {
            let way = self.way(found, replay.max_age).await?;
            if let Way::Back { record, .. } = &way {
                records.push(record.clone());
            }
            ways.push((found.id, way));
        }
        let mut offsets = match replay.dry_run {
            true => Vec::new(),
            false => self.append(records).await?,
        }
        .into_iter();
        let fates = ways.into_iter().map(|(id, way)| {
            let (outcome, to, detail) = match way {
                Way::Stays { outcome, why } => (outcome, None, why),
                Way::Back { record, note } if replay.dry_run => {
                    (Outcome::WouldReplay, Some(record.partition.to_string()), note)
                }
                Way::Back { record, note } => match offsets.next().flatten() {
                    Some(offset) => (Outcome::Replayed, Some(format!("{}@{offset}", record.partition)), note),
                    None => (Outcome::Impossible, None, "it is larger than the log takes".to_owned()),
                },
            };
            self.told(replay, id, outcome, to, detail)
        });
        Ok(fates.collect())
    }

    /// Tells what became of a letter, and counts it.
    fn told(
        &self,
        replay: &Replay,
        id: LetterId,
        outcome: Outcome,
        to: Option<String>,
        detail: String,
    ) -> Fate {
        if !replay.dry_run {
            self.metrics.dead_letter_replayed(outcome.as_str());
            let to = to.as_deref().unwrap_or_default();
            tracing::info!(letter = %id, outcome = outcome.as_str(), to, detail, "a dead letter was replayed or not");
        }
        Fate { id, outcome, to, detail }
    }

    async fn way(&self, found: &Found, max_age: Duration) -> Result<Way, DeadLettersError> {
        let letter = match &found.letter {
            Ok(letter) => letter,
            Err(fault) => return Ok(Way::Stays { outcome: Outcome::Unreadable, why: fault.clone() }),
        };
        let original = match self.open(letter).await? {
            Ok(original) => original,
            Err(stays) => return Ok(stays),
        };
        if self.is_to_forgotten(letter, &original).await? {
            let why = "the person it goes to has been forgotten since".to_owned();
            return Ok(Way::Stays { outcome: Outcome::Forgotten, why });
        }
        let ages = Ages { sent: max_age, answered: self.answer_within, remembered: self.marker_ttl };
        let partitions = |topic| self.log.partitions(topic);
        let desk = Desk { partitions: &partitions, ages, now: self.clock.now() };
        Ok(desk.find(letter, &found.key, original))
    }

    /// Whether it is a message to somebody who has been forgotten since it was decided. What people themselves said
    /// is refused by their conversation.
    async fn is_to_forgotten(&self, letter: &DeadLetter, original: &[u8]) -> Result<bool, DeadLettersError> {
        if letter.from.topic != Topic::Outbound {
            return Ok(false);
        }
        let Ok(OutboundRecord { conversation, at, command: OutboundCommand::Send(_), .. }) = decode(original)
        else {
            return Ok(false);
        };
        match self.keys.contact(&conversation.tenant, conversation.contact, Missing::Fail).await {
            Ok(key) => Ok(key.erased_at().is_some_and(|erased_at| at <= erased_at)),
            Err(KeysError::Gone { .. }) => Ok(true),
            Err(KeysError::Store(error)) => Err(error.into()),
            // Opening the message will tell.
            Err(_) => Ok(false),
        }
    }

    /// The original, or why it stays.
    async fn open(&self, letter: &DeadLetter) -> Result<Result<Bytes, Way>, DeadLettersError> {
        let Some(original) = &letter.original else {
            let why = "its original was not kept".to_owned();
            return Ok(Err(Way::Stays { outcome: Outcome::NotKept, why }));
        };
        let Some(tenant) = &letter.tenant else { return Ok(Ok(original.clone().into_bytes())) };
        let day = Day(original.key_number().unwrap_or_default());
        let opened = match self.keys.log(tenant, day).await {
            Ok(cipher) => cipher.open(&DeadLetter::aad(letter.from, letter.offset), original),
            Err(error) => Err(error),
        };
        match opened {
            Ok(plain) => Ok(Ok(plain.into())),
            Err(error @ (KeysError::Gone { .. } | KeysError::Unreadable { .. })) => {
                Ok(Err(Way::Stays { outcome: Outcome::Unreadable, why: error.to_string() }))
            }
            Err(KeysError::Store(error)) => Err(error.into()),
            Err(error @ KeysError::Master { .. }) => Err(DeadLettersError::Keys(error)),
        }
    }

    /// Appends records; no offset for one that is larger than the log takes.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Option<Offset>>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        match self.log.append(records.clone()).await {
            Ok(offsets) => Ok(offsets.into_iter().map(Some).collect()),
            Err(StoreError::TooLarge { .. }) if records.len() > 1 => {
                let mut offsets = Vec::with_capacity(records.len());
                for record in records {
                    offsets.extend(Box::pin(self.append(vec![record])).await?);
                }
                Ok(offsets)
            }
            Err(StoreError::TooLarge { .. }) => Ok(vec![None]),
            Err(error) => Err(error),
        }
    }
}
