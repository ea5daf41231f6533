//! Alias table: from each id a contact is met under to its immutable internal id.
//!
//! Ids are looked up and stored as keyed hashes, each with the scope that the channel's profile gives it (everywhere,
//! the business, one account), so the tables show no phone number. An alias row names a contact; the contact's record
//! has its ids and the times since which they are its, and where it turned out to be another contact, it leads to that
//! one. A new contact is named after its first id, by the tenant's key: two nodes that meet the same person at once
//! agree. What is written, and in which order, makes every repetition complete what a crash has interrupted.
//!
//! A message is resolved for the time at which it was sent: what was sent before two contacts were known to be one
//! person, or before a number changed its owner, goes to the conversation of then, where a repetition is recognised.
//!
//! Answers are cached for a minute: for as long, a node may not see what another has learned.
//!
//! # Layout
//! - `decide`: who is met, from what is stored. `people`: what is stored, and its changes. `rename`: a channel's notice
//!   that a person has another number or id. `cache`: recent answers.

mod cache;
mod decide;
mod people;
mod rename;

use heddle_schemas::consent::ContactRecord;
use heddle_schemas::content::Address;
use heddle_schemas::id::{ChannelKind, ContactId, MessageKey, TenantId};
use heddle_schemas::identity::KnownId;
use heddle_schemas::phone::PhoneNumber;
use heddle_schemas::ports::channel::profile::IdKind;
use heddle_schemas::ports::keys::{KeysError, TenantCipher};
use heddle_schemas::ports::state::{State, StoreError};
use heddle_schemas::time::Timestamp;

use self::cache::{Cache, Entry};
use self::decide::{Decision, Holder, Met, Taken, Who, decide};
use self::people::{Changed, People, Row};
use crate::intake::consent;
use crate::ports::Ports;

/// Changes that one message may need, and times that another node may be faster.
const ATTEMPTS: usize = 32;

/// Why a contact could not be found or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The address holds no id by which the channel identifies people.
    #[error("no id that the channel knows people by")]
    Nameless,
    /// The address may be one of several people.
    #[error("it may be one of several contacts: {}", named(.0))]
    Ambiguous(Vec<ContactId>),
    /// The alias table.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenant's key.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// A person, as contacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The contact; of a message, the one whose conversation it belongs to.
    pub contact: ContactId,
    /// Contacts that turned out to be this one.
    pub also: Vec<ContactId>,
}

impl Person {
    /// All contacts of the person.
    pub fn contacts(&self) -> impl Iterator<Item = ContactId> {
        std::iter::once(self.contact).chain(self.also.iter().copied())
    }
}

/// Finds contacts.
pub struct Identity {
    ports: Ports,
    cache: Cache,
}

impl Identity {
    /// Returns a resolver with an empty cache.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { cache: Cache::new(ports.clock.clone()), ports }
    }

    /// The contact met under this address now, made if it is met for the first time.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn resolve(
        &self,
        tenant: &TenantId,
        kind: ChannelKind,
        address: &Address,
    ) -> Result<ContactId, IdentityError> {
        let cipher = self.ports.keys.tenant(tenant).await?;
        let met = self.met(&*cipher, kind, address);
        Ok(self.settle(tenant, &*cipher, &met, self.ports.clock.now()).await?.contact)
    }

    /// The person met under this address in a message that was sent `at`, by the channel's clock; made if it is met for
    /// the first time.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn meet(
        &self,
        tenant: &TenantId,
        kind: ChannelKind,
        address: &Address,
        at: Timestamp,
    ) -> Result<Person, IdentityError> {
        let cipher = self.ports.keys.tenant(tenant).await?;
        let met = self.met(&*cipher, kind, address);
        if let Some(person) = self.cache.get(tenant, &met, at) {
            return Ok(person);
        }
        self.settle(tenant, &*cipher, &met, at).await
    }

    /// Learns that these addresses are one person's, as the channel showed `at`, where any of their ids is known.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn learn(
        &self,
        tenant: &TenantId,
        kind: ChannelKind,
        addresses: &[Address],
        at: Timestamp,
    ) -> Result<(), IdentityError> {
        let cipher = self.ports.keys.tenant(tenant).await?;
        let mut met: Vec<_> =
            addresses.iter().flat_map(|address| self.met(&*cipher, kind, address)).collect();
        met.sort_by_key(|met| met.kind);
        met.dedup();
        if met.len() < 2 || self.cache.get(tenant, &met, at).is_some() {
            return Ok(());
        }
        let mut people = self.people(tenant, &*cipher);
        let mut is_known = false;
        for &met in &met {
            is_known |= !matches!(people.read(met, at).await?.holder, Holder::Nobody { .. });
        }
        if is_known {
            self.settle(tenant, &*cipher, &met, at).await?;
        }
        Ok(())
    }

    /// Returns the person of this address, where there is one; creates none. Reads the table, not the cache: an
    /// operation on a contact by name must reach the current owner of the number.
    ///
    /// # Errors
    /// [`IdentityError`]; [`IdentityError::Ambiguous`] where the forms of a number lead to several people.
    pub async fn find(
        &self,
        tenant: &TenantId,
        kind: ChannelKind,
        address: &Address,
    ) -> Result<Option<Person>, IdentityError> {
        let cipher = self.ports.keys.tenant(tenant).await?;
        let mut people = self.people(tenant, &*cipher);
        let mut found = Vec::new();
        for met in self.met(&*cipher, kind, address) {
            match people.read(met, Timestamp::MAX).await?.holder {
                Holder::Current(contact) if !found.contains(&contact) => found.push(contact),
                _ => {}
            }
        }
        match found.as_slice() {
            [] => Ok(None),
            [contact] => Ok(Some(people.person(*contact))),
            _ => Err(IdentityError::Ambiguous(found)),
        }
    }

    /// Decides who is met and does what that needs, until nothing is left to do.
    async fn settle(
        &self,
        tenant: &TenantId,
        cipher: &dyn TenantCipher,
        met: &[Met],
        at: Timestamp,
    ) -> Result<Person, IdentityError> {
        for _ in 0..ATTEMPTS {
            let mut people = self.people(tenant, cipher);
            let mut rows = Vec::with_capacity(met.len());
            for &met in met {
                rows.push(people.read(met, at).await?);
            }
            let held: Vec<_> = rows.iter().map(|row| (row.met, row.holder)).collect();
            let (who, gains) = match decide(&held, &people.records, at) {
                None => return Err(IdentityError::Nameless),
                Some(Decision::Merge(one, other)) if people.may_merge(one, other) => {
                    self.forget_all(&people, [one, other]);
                    people.merge(one, other, at).await?;
                    self.ports.metrics.identity("merged");
                    continue;
                }
                Some(Decision::Merge(one, other)) => {
                    tracing::error!(%tenant, %one, %other, "contacts of one person cannot be merged");
                    (Who::Known(one), Vec::new())
                }
                Some(Decision::Person { who, gains }) => (who, gains),
            };
            let who = match who {
                Who::Known(contact) => contact,
                Who::New { named_after, left_by } => {
                    people.root_of(derived(cipher, named_after.alias, left_by)).await?
                }
            };
            if self.gain(&mut people, who, &rows, &gains, at).await? == Changed::Overtaken {
                continue;
            }
            return Ok(self.met_person(tenant, &people, who, &rows, &gains, at));
        }
        let detail = format!("ids of one contact of tenant {tenant} change without end");
        Err(StoreError::Unavailable { detail }.into())
    }

    /// Gives a contact the ids that become its, and notes those that were its before ids were noted.
    async fn gain(
        &self,
        people: &mut People<'_>,
        who: ContactId,
        rows: &[Row],
        gains: &[(Met, Option<Taken>)],
        at: Timestamp,
    ) -> Result<Changed, StoreError> {
        for row in rows {
            let known = people.records.get(&who).and_then(|record| record.ids.get(row.met.alias));
            // An id that ended, as a late message of before its end shows again, stays ended; a message of after it
            // shows that the id is the person's still, such as a user id that outlives a number.
            let since = match known.map(|known| known.until) {
                None => Some(Timestamp::EPOCH),
                Some(Some(until)) if until <= at => Some(at),
                Some(_) => None,
            };
            if row.holder == Holder::Current(who)
                && let Some(since) = since
                && people.gain(who, row.met, since, None).await? == Changed::Overtaken
            {
                return Ok(Changed::Overtaken);
            }
        }
        for (met, taken) in gains {
            let stored = rows.iter().find(|row| row.met == *met).and_then(|row| row.stored);
            let taken = taken.filter(|taken| taken.from != who);
            if let Some(Taken { from, may_be_same: true }) = taken
                && people.inherit(from, who, Timestamp::EPOCH).await? == Changed::Overtaken
            {
                return Ok(Changed::Overtaken);
            }
            if people.take(who, *met, stored, taken.map(|taken| taken.from), at).await? == Changed::Overtaken
            {
                return Ok(Changed::Overtaken);
            }
            if taken.is_some() {
                self.cache.forget(people.tenant, [met.alias]);
                self.ports.metrics.identity("moved");
            }
        }
        Ok(Changed::Done)
    }

    /// The person met, and remembers it.
    fn met_person(
        &self,
        tenant: &TenantId,
        people: &People<'_>,
        who: ContactId,
        rows: &[Row],
        gains: &[(Met, Option<Taken>)],
        at: Timestamp,
    ) -> Person {
        let mut home = None;
        for row in rows {
            let is_gained = gains.iter().any(|(met, _)| *met == row.met);
            let is_held = matches!(row.holder, Holder::Current(root) | Holder::Former(root) if root == who);
            let found = if is_gained { Some(who) } else { row.home.filter(|_| is_held) };
            home = home.or(found);
            // An id that has ended is the person's for messages of before alone.
            let known = people.records.get(&who).and_then(|record| record.ids.get(row.met.alias));
            let is_current = known.is_none_or(KnownId::is_current);
            if is_current && (is_gained || row.holder == Holder::Current(who)) {
                let since = if is_gained { at } else { row.since };
                let also = people.person(who).also;
                self.cache.put(tenant, row.met.alias, Entry { contact: who, also, since });
            }
        }
        let contact = home.unwrap_or(who);
        let also = if contact == who { people.person(who).also } else { Vec::new() };
        Person { contact, also }
    }

    /// Drops everything cached about these contacts.
    fn forget_all(&self, people: &People<'_>, contacts: [ContactId; 2]) {
        for record in contacts.iter().filter_map(|contact| people.records.get(contact)) {
            self.cache.forget(people.tenant, record.ids.iter().map(|known| known.alias));
        }
    }

    fn people<'a>(&'a self, tenant: &'a TenantId, cipher: &'a dyn TenantCipher) -> People<'a> {
        let now = self.ports.clock.now();
        let state = &*self.ports.state;
        People { state, tenant, cipher, now, records: Default::default(), unreadable: Vec::new() }
    }

    /// Those of an address's ids that the channel knows people by, as keyed hashes, the deciding one first. A number is
    /// met in every form that it may have, in one order: a person is written to by one and known to the channel by
    /// another.
    fn met(&self, cipher: &dyn TenantCipher, kind: ChannelKind, address: &Address) -> Vec<Met> {
        let ids = self.ports.profile(kind).map_or(&[][..], |profile| profile.ids);
        let hashed =
            |kind: IdKind, alias: String| Met { kind, alias: cipher.hash("alias", alias.as_bytes()) };
        let mut met = Vec::with_capacity(ids.len());
        for &id in ids {
            let variants = match &address.phone {
                Some(phone) if id == IdKind::Phone => variants(phone),
                _ => Vec::new(),
            };
            let others =
                variants.into_iter().map(|phone| Address { phone: Some(phone), ..Address::default() });
            match others.len() {
                0 => met.extend(id.alias(kind, address).map(|alias| hashed(id, alias))),
                _ => met.extend(others.filter_map(|other| Some(hashed(id, id.alias(kind, &other)?)))),
            }
        }
        met
    }
}

/// Returns the person that a contact is part of; a contact that is not known is a person of its own.
///
/// # Errors
/// When the store does not answer, or contacts lead to each other without end.
pub async fn person(state: &dyn State, tenant: &TenantId, contact: ContactId) -> Result<Person, StoreError> {
    let mut contact = contact;
    for _ in 0..people::STEPS {
        match consent::load(state, tenant, contact).await {
            Ok(ContactRecord { leads_to: Some(forward), .. }) => contact = forward.contact,
            Ok(record) => return Ok(Person { contact, also: record.also }),
            // Its statements cannot be read; what else is stored of it can.
            Err(StoreError::Corrupt { .. }) => return Ok(Person { contact, also: Vec::new() }),
            Err(error) => return Err(error),
        }
    }
    Err(people::endless())
}

/// The forms of a number, in order; none where it is no number.
fn variants(phone: &str) -> Vec<String> {
    let number = PhoneNumber::of_channel(phone).filter(|number| number.digits() == phone);
    let mut variants: Vec<_> =
        number.iter().flat_map(PhoneNumber::variants).map(PhoneNumber::into_digits).collect();
    variants.sort();
    variants
}

fn named(contacts: &[ContactId]) -> String {
    let named: Vec<_> = contacts.iter().map(ContactId::to_string).collect();
    named.join(", ")
}

/// The contact that is first met under an id; of a number that others have had, after the last of them.
fn derived(cipher: &dyn TenantCipher, alias: MessageKey, left_by: Option<ContactId>) -> ContactId {
    let mut named = alias.to_bytes().to_vec();
    named.extend(left_by.iter().flat_map(|contact| contact.to_bytes()));
    ContactId::from_bytes(cipher.hash("contact", &named).to_bytes())
}

fn contact_of(stored: &[u8]) -> Result<ContactId, StoreError> {
    let bytes = <[u8; 16]>::try_from(stored).map_err(|_| StoreError::Corrupt {
        detail: format!("an alias row of {} bytes, not 16", stored.len()),
    })?;
    Ok(ContactId::from_bytes(bytes))
}
