//! People as they are stored: alias rows, contacts' records, and the conditional writes that change them.
//!
//! The record of a contact is written before the alias rows that lead to it, and the record of the contact that loses an
//! id before the row moves. So a crash in between leaves something that the repetition of the message completes, and
//! never a row that leads to somebody else. A merge writes the survivor first: from then on everything that is read of
//! it includes the other, and then the other leads to it. Survivors are the smaller ids, so that two nodes cannot lead
//! two contacts to each other.

use bytes::Bytes;
use heddle_schemas::consent::ContactRecord;
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::identity::{Forward, KnownId};
use heddle_schemas::ports::keys::TenantCipher;
use heddle_schemas::ports::state::{State, StoreError, Swap};
use heddle_schemas::ports::update::{Change, Impatient, update};
use heddle_schemas::record::encode;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

use super::Person;
use super::decide::{Holder, Met, Records};
use crate::intake::consent;

/// Contacts that a contact may lead through, and owners of a number that are gone back through.
pub(super) const STEPS: usize = 64;
/// Contacts that one contact may have absorbed.
const ALSO: usize = 64;

/// End of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Done,
    /// Somebody else changed the same: it is to be decided again.
    Overtaken,
}

/// Stored state of an id, at the time of a message.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) met: Met,
    pub(super) holder: Holder,
    /// Contact that the alias row names.
    pub(super) stored: Option<ContactId>,
    /// Contact whose conversations have what was sent at the time.
    pub(super) home: Option<ContactId>,
    /// Time since which both are so.
    pub(super) since: Timestamp,
}

/// The people of a tenant in the store.
pub(super) struct People<'a> {
    pub(super) state: &'a dyn State,
    pub(super) tenant: &'a TenantId,
    pub(super) cipher: &'a dyn TenantCipher,
    /// Time of the engine.
    pub(super) now: Timestamp,
    /// Records that were read, of contacts that lead nowhere.
    pub(super) records: Records,
    /// Contacts among them whose record cannot be read.
    pub(super) unreadable: Vec<ContactId>,
}

impl People<'_> {
    /// Reads what is stored of an id, for a message that was sent `at`.
    pub(super) async fn read(&mut self, met: Met, at: Timestamp) -> Result<Row, StoreError> {
        let stored = match self.state.get(&Key::alias(self.tenant, met.alias)).await? {
            Some(stored) => Some(super::contact_of(&stored)?),
            None => None,
        };
        let mut row = Row {
            met,
            stored,
            holder: Holder::Nobody { left_by: None },
            home: None,
            since: Timestamp::EPOCH,
        };
        let Some(mut named) = stored else { return Ok(row) };
        let mut owners = Vec::new();
        for _ in 0..STEPS {
            let (root, home, since) = self.root(named, at).await?;
            // An owner that had it once before is met again here.
            let is_again = owners.contains(&root);
            let is_present = owners.first().is_none_or(|first| *first == root);
            owners.push(root);
            let known = self.records.get(&root).and_then(|record| record.ids.get(met.alias));
            let left = known.and_then(|known| known.until).is_some_and(|until| until < at);
            let earlier = known.filter(|known| at < known.at).and_then(|known| known.before);
            row.since = row.since.max(since).max(known.map_or(Timestamp::EPOCH, |known| known.at));
            row.home = Some(home);
            row.holder = match (met.kind.is_reassigned(), earlier) {
                (true, Some(earlier)) if !is_again => {
                    named = earlier;
                    continue;
                }
                (true, None) if left && owners.len() == 1 => Holder::Nobody { left_by: Some(root) },
                _ if is_present => Holder::Current(root),
                _ => Holder::Former(root),
            };
            return Ok(row);
        }
        Err(endless())
    }

    /// Follows a contact to the one that it turned out to be. Returns also the one in whose conversations the messages
    /// of a time are, and since when.
    async fn root(
        &mut self,
        named: ContactId,
        at: Timestamp,
    ) -> Result<(ContactId, ContactId, Timestamp), StoreError> {
        let (mut contact, mut home, mut since) = (named, named, Timestamp::EPOCH);
        for _ in 0..STEPS {
            if self.records.contains_key(&contact) {
                return Ok((contact, home, since));
            }
            let record = self.load(contact).await?;
            let Some(forward) = record.leads_to else {
                self.records.insert(contact, record);
                return Ok((contact, home, since));
            };
            if home == contact && at >= forward.at {
                home = forward.contact;
            }
            since = since.max(forward.at);
            contact = forward.contact;
        }
        Err(endless())
    }

    /// Reads a record; one that cannot be read says nothing of ids.
    async fn load(&mut self, contact: ContactId) -> Result<ContactRecord, StoreError> {
        match consent::load(self.state, self.tenant, contact).await {
            Err(StoreError::Corrupt { detail }) => {
                tracing::error!(tenant = %self.tenant, %contact, detail, "the record of a contact cannot be read");
                self.unreadable.push(contact);
                Ok(ContactRecord::new())
            }
            loaded => loaded,
        }
    }

    /// The contact that this one turned out to be, or itself.
    pub(super) async fn root_of(&mut self, contact: ContactId) -> Result<ContactId, StoreError> {
        Ok(self.root(contact, Timestamp::MAX).await?.0)
    }

    /// The person that a contact is part of; in its conversations is what was sent `at`.
    pub(super) async fn home(&mut self, contact: ContactId, at: Timestamp) -> Result<Person, StoreError> {
        let (root, home, _) = self.root(contact, at).await?;
        Ok(if home == root { self.person(root) } else { Person { contact: home, also: Vec::new() } })
    }

    /// Changes the record of a contact that leads nowhere.
    pub(super) async fn change(
        &mut self,
        contact: ContactId,
        change: impl Fn(&mut ContactRecord) + Send + Sync,
    ) -> Result<Changed, StoreError> {
        let key = Key::contact(self.tenant, contact);
        let changed = update(self.state, &key, Impatient, |found| {
            let Ok(before) = consent::record_of(found) else {
                // It counts as an opt-out, until an operator repairs it, and is left as it is.
                return Ok::<_, StoreError>(Change::Keep(Some(ContactRecord::new())));
            };
            if before.leads_to.is_some() {
                return Ok(Change::Keep(None));
            }
            let mut record = before.clone();
            change(&mut record);
            Ok(match record == before {
                true => Change::Keep(Some(record)),
                false => Change::put(encode(&record), Some(record)),
            })
        })
        .await?;
        Ok(match changed {
            Some(record) => {
                self.records.insert(contact, record);
                Changed::Done
            }
            None => Changed::Overtaken,
        })
    }

    /// Adds an id to a contact, since `at`.
    pub(super) async fn gain(
        &mut self,
        contact: ContactId,
        met: Met,
        at: Timestamp,
        before: Option<ContactId>,
    ) -> Result<Changed, StoreError> {
        let known = KnownId { alias: met.alias, kind: met.kind.into(), at, until: None, before };
        let has = |record: &ContactRecord| {
            let has = record.ids.get(met.alias);
            has.is_some_and(|has| has.is_current() && (before.is_none() || has.before == before))
        };
        if self.records.get(&contact).is_some_and(has) {
            return Ok(Changed::Done);
        }
        self.change(contact, |record| {
            if !has(record) {
                record.ids.put(known.clone());
            }
        })
        .await
    }

    /// Lets an id lead to a contact, if it still leads where it was read to lead.
    pub(super) async fn lead(
        &self,
        alias: MessageKey,
        stored: Option<ContactId>,
        contact: ContactId,
    ) -> Result<Changed, StoreError> {
        let bytes = |contact: ContactId| Bytes::copy_from_slice(&contact.to_bytes());
        let key = Key::alias(self.tenant, alias);
        let swap = self.state.compare_and_set(&key, stored.map(bytes), Some(bytes(contact)), None).await?;
        Ok(match swap {
            Swap::Done => Changed::Done,
            Swap::Found(Some(found)) if found == bytes(contact) => Changed::Done,
            Swap::Found(_) => Changed::Overtaken,
        })
    }

    /// Gives a contact an id since `at`, and takes it from the contact that had it.
    pub(super) async fn take(
        &mut self,
        contact: ContactId,
        met: Met,
        stored: Option<ContactId>,
        from: Option<ContactId>,
        at: Timestamp,
    ) -> Result<Changed, StoreError> {
        if self.gain(contact, met, at, from).await? == Changed::Overtaken {
            return Ok(Changed::Overtaken);
        }
        if let Some(from) = from {
            // It may lead elsewhere by now; then the alias row is read again.
            let ended = self.change(from, |record| {
                record.ids.end(met.alias, at);
            });
            let ended = ended.await?;
            if ended == Changed::Overtaken {
                return Ok(Changed::Overtaken);
            }
        }
        self.lead(met.alias, stored, contact).await
    }

    /// A contact, with those that turned out to be it.
    pub(super) fn person(&self, contact: ContactId) -> Person {
        let also = self.records.get(&contact).map(|record| record.also.clone()).unwrap_or_default();
        Person { contact, also }
    }

    /// Takes over the statements of a contact that may be the same person, those said at `since` or later.
    pub(super) async fn inherit(
        &mut self,
        from: ContactId,
        to: ContactId,
        since: Timestamp,
    ) -> Result<Changed, StoreError> {
        let Some(other) = self.records.get(&from).cloned() else { return Ok(Changed::Done) };
        let consents = self.moved(&other, from, to, since);
        self.change(to, |record| join_consents(record, &consents)).await
    }

    /// Merges two contacts that are one person, as a message sent `at` shows.
    pub(super) async fn merge(
        &mut self,
        one: ContactId,
        other: ContactId,
        at: Timestamp,
    ) -> Result<Changed, StoreError> {
        let (survivor, absorbed) = (one.min(other), one.max(other));
        let key = Key::contact(self.tenant, absorbed);
        let stored = self.state.get(&key).await?;
        let Ok(record) = consent::record_of(stored.as_ref()) else {
            return Err(StoreError::Corrupt { detail: format!("{key:?}: it cannot be merged") });
        };
        if record.leads_to.is_some() {
            return Ok(Changed::Overtaken);
        }
        let consents = self.moved(&record, absorbed, survivor, Timestamp::EPOCH);
        let (now, restricted) = (self.now, record.restricted_at.is_some());
        let changed = self.change(survivor, |into| {
            join_consents(into, &consents);
            if restricted {
                into.restricted_at.get_or_insert(now);
            }
            into.ids.join(&record.ids);
            for contact in [absorbed].iter().chain(&record.also) {
                if !into.also.contains(contact) {
                    into.also.push(*contact);
                }
            }
        });
        if changed.await? == Changed::Overtaken {
            return Ok(Changed::Overtaken);
        }
        // The statements stay, for messages of before.
        let leads_to = Some(Forward { contact: survivor, at, known_at: self.now });
        let led = encode(&ContactRecord { leads_to, ..record });
        let swap = self.state.compare_and_set(&key, stored, Some(led), None).await?;
        self.records.remove(&absorbed);
        Ok(if swap == Swap::Done { Changed::Done } else { Changed::Overtaken })
    }

    /// Returns whether one more contact may be absorbed by either of these.
    pub(super) fn may_merge(&self, one: ContactId, other: ContactId) -> bool {
        let also = |contact| self.records.get(&contact).map_or(0, |record| record.also.len());
        let is_readable = |contact: &ContactId| !self.unreadable.contains(contact);
        is_readable(&one) && is_readable(&other) && also(one) + also(other) < ALSO
    }

    /// The statements of one contact as those of another: known from now on, and sealed at its place.
    fn moved(
        &self,
        record: &ContactRecord,
        from: ContactId,
        to: ContactId,
        since: Timestamp,
    ) -> ContactRecord {
        let mut moved = ContactRecord::new();
        for (category, consent) in &record.consents {
            let consent = consent.clone().filter_map(|evidence| {
                let evidence = consent::moved(self.tenant, self.cipher, (from, to), evidence);
                (evidence.at >= since)
                    .then_some(heddle_schemas::consent::Evidence { known_at: Some(self.now), ..evidence })
            });
            if consent.evidence().next().is_some() {
                moved.consents.insert(category.clone(), consent);
            }
        }
        moved
    }
}

fn join_consents(record: &mut ContactRecord, others: &ContactRecord) {
    for (category, other) in &others.consents {
        let mine = record.consents.entry(category.clone()).or_default();
        *mine = std::mem::take(mine).join(other.clone());
    }
}

pub(super) fn endless() -> StoreError {
    StoreError::Corrupt { detail: "contacts lead to each other without end".into() }
}
