//! Dead letters: lists, shows and replays records that could not be processed.
//!
//! # Contract
//! A replay appends the original to its topic again and nothing else: it goes through the same checks as a
//! first delivery, and may be dead-lettered again, as another dead letter. Dead letters are never changed or
//! removed; they expire with the log's retention, or with the tenant's `retention.dlq` where that ends earlier.
//! Encrypted data is never decrypted for display.
//!
//! Replays are idempotent (I3), also for a record that was handled otherwise meanwhile:
//! - a customer's act is recognised by its marker: dead-lettering writes none, applying the act writes one.
//!   An original of ingress gets the same marker, from the channel's message id.
//! - a message to send is appended with `again`, so its account asks the journal of sends first, and what is
//!   under way or sent is not called again.
//! - a report only raises a status.
//!
//! Markers and journals expire (`marker_ttl`), so a record older than that is not replayed at all, and
//! `max_age` may not exceed it.
//!
//! The age of a dead letter is that of its original. An outbound message older than `max_age` stays in dlq. A
//! customer's message older than `engine.answer_within` is recorded by its conversation and not answered.
//!
//! Dead letters are read a fetch at a time, and a request reads and replays a bounded number of them (I9); the
//! answer holds the cursor to resume from. `until` holds the ends of dlq at the first request, so that records
//! dead-lettered again are not replayed for ever.
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
use heddle_api::dead_letters::{
    Fate, Filters, LISTED, Letter, LetterId, MOST, Outcome, Page, Replay, Replayed,
};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{Keys, KeysError, Missing};
use heddle_schemas::ports::log::{Log, NewRecord, StoreError};
use heddle_schemas::record::decode;
use heddle_schemas::record::dlq::DeadLetter;
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::time::Day;
use heddle_schemas::topic::{Offset, Topic};

use self::kept::Kept;
use self::letter::Found;
use self::scan::Scan;
use self::way::{Ages, Desk, Way, rough};
use crate::metrics::Metrics;

/// Letters that are appended together at most, and their bytes.
const TOGETHER: (usize, usize) = (64, 4 << 20);

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// No such dead letter exists.
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

/// Returns the requested number of dead letters.
fn limit_of(filters: &Filters, default: usize) -> usize {
    filters.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default).clamp(1, MOST)
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
        let limit = limit_of(filters, LISTED);
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
        let limit = limit_of(filters, MOST);
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

    /// Returns whether it is a message to a contact who has been erased since it was decided. Messages from erased
    /// contacts are refused by their conversation.
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
