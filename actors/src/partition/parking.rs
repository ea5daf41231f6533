//! Parked records: those that a later build wrote, and what came behind them for the same conversation or account.
//!
//! Contract: from the first record that this node cannot read on, a conversation or account is *held*: its records are
//! written into the state store, each in the batch that acknowledges it, and its entity gets none of them (I1, I2).
//! Others of the partition go on. A partition that starts first delivers what it found in the log: what is older than
//! the parked records, and was not settled when the last owner ended, is delivered, what is newer is parked. Then it
//! looks at who is held: where this node reads the records, it hands them over in the order of their offsets, before
//! anything newer of the same entity, and each row is deleted in the batch that settles its record ([`Settling`]). A
//! crash in between delivers a record again, as the log would.
//!
//! An erasure of a contact and a deletion of a tenant do not wait for that: the record that brings them discards what
//! they take of the parked records before it, and is delivered ([`Discarding`]).
//!
//! Memory is bounded: [`HELD`] keys in memory, over which the row of a key is asked; [`RETURNING`] records in work;
//! everything else is in the store. A partition with nobody held costs one scan when it starts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::id::{ContactId, TenantId};
use heddle_schemas::ports::log::{Record, StoreError};
use heddle_schemas::ports::state::{Batch, Scan, State, Swap, Walk, Walked, Write};
use heddle_schemas::record::{RecordError, encode};
use heddle_schemas::table::{Key, Partition as Rows};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::partition::commit::read;

/// Keys of held entities in memory.
pub(super) const HELD: usize = 4096;
/// Parked records of a partition that are in work at once.
pub(super) const RETURNING: usize = 256;
/// Held entities, or parked records, that are read at once.
const PAGE: usize = 64;

/// State of a held conversation or account, as it is stored under its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// Its records that are parked; about, after a crash.
    pub(super) records: u64,
    /// The offset of the oldest of them, or below it. What is older is delivered.
    #[serde(default)]
    pub(super) first: Offset,
    /// The offset of the newest of them.
    #[serde(default)]
    pub(super) last: Offset,
    /// When the first of them was parked.
    #[serde(default)]
    pub(super) since: Timestamp,
}

/// Name of a held conversation or account: its key in the log. It may be one that this build cannot read as an id,
/// such as one of a channel that it does not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    key: Bytes,
    tenant: TenantId,
    topic: Topic,
}

impl Name {
    /// The name that a record's key gives; `None` where it begins with no tenant.
    pub(super) fn of(topic: Topic, key: Bytes) -> Option<Self> {
        let (tenant, entity) = std::str::from_utf8(&key).ok()?.split_once('/')?;
        let tenant = tenant.parse().ok().filter(|_| !entity.is_empty() && key.len() <= 256)?;
        Some(Self { tenant, topic, key })
    }

    /// The tenant.
    pub(super) fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn rows(&self) -> Rows {
        let entity = self.key.get(self.tenant.as_str().len() + 1..).unwrap_or_default();
        Rows::parked(&self.tenant, self.topic, std::str::from_utf8(entity).unwrap_or_default())
    }

    fn row(&self, offset: Offset) -> Key {
        self.rows().row(&offset.to_be_bytes())
    }
}

/// An entity whose parked records are being handed over.
struct Returning {
    name: Name,
    held: Held,
    next: Offset,
    given: u64,
}

/// A walk over the parked records of an entity that discards some.
pub(super) struct Discarding {
    /// Those from here on stay.
    below: Offset,
    /// Those that do not mention this contact stay.
    contact: Option<String>,
    /// Where the walk goes on.
    from: Offset,
    removed: u64,
    kept: u64,
    is_over: bool,
}

impl Discarding {
    /// Discards all.
    pub(super) fn all() -> Self {
        Self::before(Offset::MAX)
    }

    /// Discards what is older than this.
    pub(super) fn before(below: Offset) -> Self {
        Self { below, contact: None, from: 0, removed: 0, kept: 0, is_over: false }
    }

    /// Discards what is about a contact and older than this. A record has the ids of its contacts as text in every
    /// version, so this holds for records that only a later build reads.
    pub(super) fn about(contact: ContactId, below: Offset) -> Self {
        Self { contact: Some(contact.to_string()), ..Self::before(below) }
    }

    fn takes(&self, offset: Offset, row: &[u8]) -> bool {
        let mentions = |id: &String| row.windows(id.len()).any(|part| part == id.as_bytes());
        offset < self.below && self.contact.as_ref().is_none_or(mentions)
    }

    /// The writes that delete what goes of the rows of a page.
    fn page(&mut self, rows: Vec<(Key, Bytes)>) -> Vec<Write> {
        self.is_over = rows.len() < PAGE;
        let mut writes = Vec::new();
        for (key, value) in rows {
            let Ok(offset) = key.row().try_into().map(Offset::from_be_bytes) else { continue };
            self.from = offset + 1;
            match self.takes(offset, &value) {
                true => writes.push(Write::delete(key)),
                false => self.kept += 1,
            }
        }
        self.removed += writes.len() as u64;
        writes
    }
}

/// A step of handing parked records over.
pub(super) enum Step {
    /// This record is next.
    Record(Record),
    /// An entity has been looked at; the next one may have some.
    Looked,
    /// There is none to hand over.
    None,
}

/// The parked records of one partition.
pub(super) struct Parking {
    partition: TopicPartition,
    state: Arc<dyn State>,
    metrics: Arc<Metrics>,
    held: HashMap<Name, Held>,
    /// Whether more are held than are in memory.
    overflows: bool,
    /// The held entity that was read last, to be looked at; those that are held from now on are not.
    read: Option<Key>,
    /// Whether some are still to be looked at.
    looks: bool,
    /// Whether somebody was held when the partition started.
    returns: bool,
    /// Held entities that were read and are next to be looked at, from the last to the first; at most [`PAGE`].
    candidates: Vec<(Name, Held)>,
    returning: Option<Returning>,
    /// Records of it that were read, from the last to the first; at most [`PAGE`].
    records: Vec<Record>,
    /// Entities all of whose records have been handed over, until the last is settled; each has a record in work.
    given: HashMap<Name, Held>,
    settling: Arc<Settling>,
    reported: i64,
}

impl Parking {
    /// Reads who is held in a partition.
    pub(super) async fn open(
        partition: TopicPartition,
        state: Arc<dyn State>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let settling = Arc::new(Settling::over(state.clone(), partition));
        let mut this = Self {
            partition,
            state,
            metrics,
            held: HashMap::new(),
            overflows: false,
            read: None,
            looks: false,
            returns: false,
            candidates: Vec::new(),
            returning: None,
            records: Vec::new(),
            given: HashMap::new(),
            settling,
            reported: 0,
        };
        let mut scan = Some(Scan::first(Rows::held(partition), PAGE));
        while let Some(page) = scan.take() {
            let rows = read(&this.metrics, || this.state.scan(&page)).await?;
            for (name, held) in rows.iter().filter_map(|(key, value)| held_row(partition.topic, key, value)) {
                this.looks = true;
                this.report(i64::try_from(held.records).unwrap_or(i64::MAX));
                match this.held.len() < HELD {
                    true => drop(this.held.insert(name, held)),
                    false => this.overflows = true,
                }
            }
            scan = page.next(&rows);
        }
        this.returns = this.looks;
        Ok(this)
    }

    /// Where entities of the partition commit, so that the rows of parked records go with what settles them; `None`
    /// where there are none to hand over.
    pub(super) fn settling(&self) -> Option<Arc<dyn State>> {
        self.returns.then(|| self.settling.clone() as Arc<dyn State>)
    }

    /// Whether somebody may be held.
    pub(super) fn may_hold(&self) -> bool {
        self.overflows || !self.held.is_empty()
    }

    /// Whether this one may be held: it is, or memory does not say.
    pub(super) fn may_be_held(&self, key: &str) -> bool {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let held = Name::of(self.partition.topic, key).is_some_and(|name| self.held.contains_key(&name));
        held || self.overflows
    }

    /// Whether this one is held, and with how much.
    pub(super) async fn find(&self, name: &Name) -> Result<Option<Held>, StoreError> {
        if let Some(held) = self.held.get(name) {
            return Ok(Some(held.clone()));
        }
        if !self.overflows || self.given.contains_key(name) {
            return Ok(None);
        }
        let key = Rows::held(self.partition).row(&name.key);
        let stored = read(&self.metrics, || self.state.get(&key)).await?;
        Ok(stored.map(|stored| serde_json::from_slice(&stored).unwrap_or_default()))
    }

    /// The writes that park a record behind what is `held` of the same entity.
    pub(super) fn park(
        &mut self,
        name: &Name,
        held: Option<Held>,
        record: &Record,
        now: Timestamp,
    ) -> Vec<Write> {
        let first = record.offset;
        let mut held = held.unwrap_or(Held { first, since: now, ..Held::default() });
        held.first = held.first.min(first);
        if held.records == 0 || record.offset > held.last {
            held.records += 1;
            held.last = record.offset;
            self.report(1);
        }
        // Records that were handed over and are not settled count in the same row again.
        if let Some(given) = self.given.remove(name) {
            held.records += given.records;
            held.first = held.first.min(given.first);
        }
        let writes = vec![
            Write::put(name.row(record.offset), stored(record)),
            Write::put(Rows::held(self.partition).row(&name.key), encode(&held)),
        ];
        match self.held.contains_key(name) || self.held.len() < HELD {
            true => drop(self.held.insert(name.clone(), held)),
            false => self.overflows = true,
        }
        writes
    }

    /// Keeps the row of a record that its entity gave back, and hands over nothing more of the entity.
    pub(super) fn keep(&mut self, name: &Name, offset: Offset) {
        self.settling.rows(|rows| drop(rows.remove(&offset)));
        self.stop_returning(name);
    }

    fn stop_returning(&mut self, name: &Name) {
        if self.returning.take_if(|returning| returning.name == *name).is_some() {
            self.records.clear();
        }
    }

    /// The next writes that discard parked records of an entity; `None` when all have been read.
    pub(super) async fn discard(
        &mut self,
        name: &Name,
        held: &Held,
        discarding: &mut Discarding,
    ) -> Result<Option<Vec<Write>>, StoreError> {
        if discarding.is_over {
            return Ok(None);
        }
        // What has been read of them may go.
        if self.returning.as_ref().is_some_and(|returning| returning.name == *name) {
            self.records.clear();
        }
        let from = Bytes::copy_from_slice(&discarding.from.to_be_bytes());
        let scan = Scan { from, ..Scan::first(name.rows(), PAGE) };
        let rows = read(&self.metrics, || self.state.scan(&scan)).await?;
        let mut writes = discarding.page(rows);
        if discarding.is_over {
            writes.extend(self.discarded(name, held, discarding));
        }
        Ok(Some(writes))
    }

    /// The write that says what is left of an entity some of whose records were discarded.
    fn discarded(&mut self, name: &Name, held: &Held, discarding: &Discarding) -> Option<Write> {
        let row = Rows::held(self.partition).row(&name.key);
        let before = i64::try_from(held.records).unwrap_or(i64::MAX);
        if discarding.kept == 0 {
            self.stop_returning(name);
            self.held.remove(name);
            self.report(-before);
            return Some(Write::delete(row));
        }
        if discarding.removed == 0 {
            return None;
        }
        let left = Held { records: held.records.saturating_sub(discarding.removed).max(1), ..held.clone() };
        self.report(i64::try_from(left.records).unwrap_or(i64::MAX) - before);
        let write = Write::put(row, encode(&left));
        if let Some(held) = self.held.get_mut(name) {
            *held = left;
        }
        Some(write)
    }

    /// The next parked record to hand over, where `reads` finds that this node can. Nothing of its entity is delivered
    /// otherwise before [`Parking::find`] says that it is not held.
    pub(super) async fn next(
        &mut self,
        reads: impl Fn(&Record) -> Result<(), RecordError>,
        newest: u16,
    ) -> Result<(Step, Vec<Write>), StoreError> {
        let mut writes = self.settled();
        if self.returning.is_none() && !(self.looks && self.begin().await?) {
            return Ok((Step::None, writes));
        }
        let Some(returning) = &mut self.returning else { return Ok((Step::Looked, writes)) };
        if self.records.is_empty() {
            let from = Bytes::copy_from_slice(&returning.next.to_be_bytes());
            let scan = Scan { from, ..Scan::first(returning.name.rows(), PAGE) };
            let rows = read(&self.metrics, || self.state.scan(&scan)).await?;
            let (name, partition) = (&returning.name, self.partition);
            let read = rows.iter().rev().filter_map(|(key, value)| record_of(partition, name, key, value));
            self.records = read.collect();
        }
        let record = self.records.pop();
        match record {
            Some(record) if !reads(&record).is_err_and(|error| error.is_newer(newest)) => {
                returning.next = record.offset + 1;
                returning.given += 1;
                let row = returning.name.row(record.offset);
                self.settling.expect(record.offset, row, returning.name.clone());
                Ok((Step::Record(record), writes))
            }
            newer => {
                self.records.clear();
                writes.extend(self.leave(newer.is_some()));
                Ok((Step::Looked, writes))
            }
        }
    }

    /// Takes up the next held entity; false when all have been looked at.
    async fn begin(&mut self) -> Result<bool, StoreError> {
        if self.candidates.is_empty() {
            let first = Scan::first(Rows::held(self.partition), PAGE);
            let scan = match &self.read {
                Some(key) => first.behind(key),
                None => first,
            };
            let rows = read(&self.metrics, || self.state.scan(&scan)).await?;
            let Some((last, _)) = rows.last() else {
                self.looks = false;
                return Ok(false);
            };
            self.read = Some(last.clone());
            let found = rows.iter().rev();
            let topic = self.partition.topic;
            self.candidates = found.filter_map(|(key, value)| held_row(topic, key, value)).collect();
        }
        let Some((name, stored)) = self.candidates.pop() else { return Ok(true) };
        let held = self.held.get(&name).cloned().unwrap_or(stored);
        self.returning = Some(Returning { name, held, next: 0, given: 0 });
        Ok(true)
    }

    /// Has done with the entity whose records are handed over; `more`: those left are newer than this node.
    fn leave(&mut self, more: bool) -> Option<Write> {
        let Returning { name, held, given, .. } = self.returning.take()?;
        // Some may have been parked meanwhile.
        let held = self.held.get(&name).cloned().unwrap_or(held);
        if !more {
            self.held.remove(&name);
            self.given.insert(name, held);
            return None;
        }
        if given == 0 {
            return None;
        }
        let left = Held { records: held.records.saturating_sub(given).max(1), ..held };
        self.report(i64::try_from(left.records).unwrap_or(0) - i64::try_from(held.records).unwrap_or(0));
        let write = Write::put(Rows::held(self.partition).row(&name.key), encode(&left));
        if let Some(held) = self.held.get_mut(&name) {
            *held = left;
        }
        Some(write)
    }

    /// The writes that end the holding of those whose records have all been settled.
    fn settled(&mut self) -> Vec<Write> {
        let settled: Vec<_> = self.given.extract_if(|name, _| self.settling.has_settled(name)).collect();
        let mut writes = Vec::with_capacity(settled.len());
        for (name, held) in settled {
            self.report(-i64::try_from(held.records).unwrap_or(i64::MAX));
            writes.push(Write::delete(Rows::held(self.partition).row(&name.key)));
        }
        writes
    }

    fn report(&mut self, change: i64) {
        let change = change.max(-self.reported);
        self.reported += change;
        self.metrics.parked(self.partition.topic, change);
    }
}

impl Drop for Parking {
    fn drop(&mut self) {
        self.metrics.parked(self.partition.topic, -self.reported);
    }
}

fn held_row(topic: Topic, key: &Key, value: &Bytes) -> Option<(Name, Held)> {
    let name = Name::of(topic, Bytes::copy_from_slice(key.row()))?;
    Some((name, serde_json::from_slice(value).unwrap_or_default()))
}

/// When the record of a row was appended.
pub(crate) fn appended(row: &[u8]) -> Option<Timestamp> {
    row.first_chunk::<8>().map(|at| Timestamp::from_micros(i64::from_be_bytes(*at)))
}

/// A record as its row has it: when it was appended, eight bytes, then its value.
fn stored(record: &Record) -> Bytes {
    [&record.at.as_micros().to_be_bytes()[..], &record.value].concat().into()
}

fn record_of(partition: TopicPartition, name: &Name, key: &Key, row: &Bytes) -> Option<Record> {
    let offset = Offset::from_be_bytes(key.row().try_into().ok()?);
    let at = appended(row)?;
    Some(Record { partition, offset, key: name.key.clone(), value: row.slice(8..), at })
}

/// The state store as entities see it that parked records are handed to: the batch that consumes such a record
/// deletes its row. The log has acknowledged the record when it was parked.
pub(super) struct Settling {
    state: Arc<dyn State>,
    partition: TopicPartition,
    /// Rows of records in work; at most [`RETURNING`].
    rows: Mutex<HashMap<Offset, (Key, Name)>>,
}

impl Settling {
    fn over(state: Arc<dyn State>, partition: TopicPartition) -> Self {
        Self { state, partition, rows: Mutex::default() }
    }

    fn rows<T>(&self, with: impl FnOnce(&mut HashMap<Offset, (Key, Name)>) -> T) -> T {
        with(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn expect(&self, offset: Offset, row: Key, of: Name) {
        self.rows(|rows| drop(rows.insert(offset, (row, of))));
    }

    fn has_settled(&self, name: &Name) -> bool {
        self.rows(|rows| rows.values().all(|(_, of)| of != name))
    }
}

#[async_trait]
impl State for Settling {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.state.get(key).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.state.scan(scan).await
    }

    async fn walk(&self, walk: &Walk) -> Result<Walked, StoreError> {
        self.state.walk(walk).await
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), StoreError> {
        let mut settled = Vec::new();
        self.rows(|rows| {
            batch.consumed.retain(|(partition, offset)| {
                let row = rows.get(offset).filter(|_| *partition == self.partition);
                let Some((row, _)) = row else { return true };
                batch.after.push(Write::delete(row.clone()));
                settled.push(*offset);
                false
            });
        });
        self.state.commit(batch).await?;
        if !settled.is_empty() {
            self.rows(|rows| rows.retain(|offset, _| !settled.contains(offset)));
        }
        Ok(())
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        expires: Option<Timestamp>,
    ) -> Result<Swap, StoreError> {
        self.state.compare_and_set(key, expected, new, expires).await
    }
}
