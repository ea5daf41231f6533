//! The channel's notice that a person has another number or id: moves ids within one person.
//!
//! Notices come late, twice and out of order, and so do the messages around them. The channel's times decide: an id that
//! a later notice or message gave to somebody is not taken back by an earlier one. Who was first met under the new number
//! about when the notice was given is the person itself, who was faster; who was met under it long before has left it.

use std::time::Duration;

use heddle_schemas::content::Address;
use heddle_schemas::id::{ChannelKind, ContactId, TenantId};
use heddle_schemas::lenient::Lenient;
use heddle_schemas::ports::keys::TenantCipher;
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::time::Timestamp;

use super::decide::{Holder, Met, contradict, has_others, since};
use super::people::{Changed, People, Row};
use super::{ATTEMPTS, Identity, IdentityError, Person};

/// Time before a notice within which who was first met under the new number is the person: the channel stamps a notice
/// when it sends it, and the person may have written before.
const FASTER: Duration = Duration::from_secs(86_400);
/// Time for which nobody else gets a number that was left. Operators keep numbers back for 45 days at least
/// (<https://www.ecfr.gov/current/title-47/section-52.15>, "aging numbers"); a margin is taken off.
const KEPT_BACK: Duration = Duration::from_secs(30 * 86_400);

/// A notice.
struct Notice {
    old: Vec<Met>,
    new: Vec<Met>,
    at: Timestamp,
}

impl Identity {
    /// Moves a person from an old address to a new one, as the channel noticed at this time. Returns the person.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn rename(
        &self,
        tenant: &TenantId,
        kind: ChannelKind,
        (old, new): (&Address, &Address),
        at: Timestamp,
    ) -> Result<Person, IdentityError> {
        let cipher = self.ports.keys.tenant(tenant).await?;
        let (old, new) = (self.met(&*cipher, kind, old), self.met(&*cipher, kind, new));
        let notice = Notice { old, new, at };
        for _ in 0..ATTEMPTS {
            let named = self.renamed(tenant, &*cipher, &notice).await?;
            let mut people = self.people(tenant, &*cipher);
            let who = people.root_of(named).await?;
            self.cache.forget(tenant, notice.old.iter().chain(&notice.new).map(|met| met.alias));
            if notice.end_old(&mut people, who).await? == Changed::Overtaken {
                continue;
            }
            if self.give_new(&mut people, who, &notice).await? == Changed::Done {
                return Ok(people.home(named, at).await?);
            }
        }
        let detail = format!("ids of one contact of tenant {tenant} change without end");
        Err(StoreError::Unavailable { detail }.into())
    }

    /// The contact that a notice is about.
    async fn renamed(
        &self,
        tenant: &TenantId,
        cipher: &dyn TenantCipher,
        notice: &Notice,
    ) -> Result<ContactId, IdentityError> {
        let mut people = self.people(tenant, cipher);
        let mut is_known = false;
        for met in &notice.old {
            is_known |= !matches!(people.read(*met, notice.at).await?.holder, Holder::Nobody { .. });
        }
        // Nobody is met under the old ids: it is who is met, or will be, under the new ones.
        let met = if is_known { &notice.old } else { &notice.new };
        Ok(self.settle(tenant, cipher, met, notice.at).await?.contact)
    }

    /// Gives a person the ids of a notice.
    async fn give_new(
        &self,
        people: &mut People<'_>,
        who: ContactId,
        notice: &Notice,
    ) -> Result<Changed, StoreError> {
        for met in &notice.new {
            let row = people.read(*met, Timestamp::MAX).await?;
            let other = match row.holder {
                Holder::Nobody { left_by } => left_by,
                Holder::Current(contact) | Holder::Former(contact) => Some(contact),
            };
            let changed = match other {
                Some(other) if other != who => self.take_over(people, who, &row, other, notice).await?,
                _ => notice.give(people, who, &row).await?,
            };
            if changed == Changed::Overtaken {
                return Ok(Changed::Overtaken);
            }
        }
        Ok(Changed::Done)
    }

    /// Gives a person an id under which another contact was met: the same person, or somebody else before or since.
    async fn take_over(
        &self,
        people: &mut People<'_>,
        who: ContactId,
        row: &Row,
        other: ContactId,
        notice: &Notice,
    ) -> Result<Changed, StoreError> {
        let (met, at) = (row.met, notice.at);
        let met_since = since(&people.records, other, met);
        let is_another =
            has_others(&people.records, other, &notice.new) || contradict(&people.records, who, other);
        let is_faster = at.before(FASTER) <= met_since && met_since <= at.after(KEPT_BACK);
        if !is_another && (!met.kind.is_reassigned() || is_faster) && people.may_merge(who, other) {
            self.forget_all(people, [who, other]);
            people.merge(who, other, at).await?;
            self.ports.metrics.identity("merged");
            return Ok(Changed::Overtaken);
        }
        let left = people.records.get(&other).and_then(|record| record.ids.get(met.alias)?.until);
        if !met.kind.is_reassigned() || met_since > at || left.is_some_and(|left| left > at) {
            // Since the notice it has become somebody else's.
            return Ok(Changed::Done);
        }
        if !is_another && people.inherit(other, who, at.before(FASTER)).await? == Changed::Overtaken {
            return Ok(Changed::Overtaken);
        }
        self.ports.metrics.identity("moved");
        people.take(who, met, row.stored, Some(other), at).await
    }
}

impl Notice {
    /// Ends the ids that the notice replaces: those that it names, others of the kinds that it brings, and with a number
    /// the ids that change with it.
    async fn end_old(&self, people: &mut People<'_>, who: ContactId) -> Result<Changed, StoreError> {
        let is_new = |met: &Met| self.new.contains(met);
        for met in self.old.iter().filter(|met| !is_new(met)) {
            let row = people.read(*met, self.at).await?;
            if row.stored.is_none() {
                // It was never met: messages of before come later.
                let gained = people.take(who, *met, None, None, self.at).await?;
                if gained == Changed::Overtaken {
                    return Ok(Changed::Overtaken);
                }
            }
        }
        let new: Vec<_> = self.new.iter().map(|met| met.alias).collect();
        let record = people.records.get(&who);
        let has = |alias| record.is_some_and(|record| record.ids.get(alias).is_some());
        let has_number = |met: &&Met| met.kind.is_reassigned() && !has(met.alias);
        let is_number_new = self.new.iter().any(|met| has_number(&met));
        let kinds: Vec<_> = self.new.iter().map(|met| Lenient::Known(met.kind)).collect();
        let old: Vec<_> = self.old.iter().map(|met| met.alias).collect();
        people
            .change(who, |record| {
                record.ids.end_all(self.at, |known| {
                    let is_deciding = known.kind.clone().known().is_some_and(|kind| !kind.is_reassigned());
                    let is_replaced = old.contains(&known.alias)
                        || kinds.contains(&known.kind)
                        || (is_number_new && is_deciding);
                    is_replaced && !new.contains(&known.alias)
                });
            })
            .await
    }

    /// Gives a person an id that is nobody else's, unless a later notice has ended it.
    async fn give(&self, people: &mut People<'_>, who: ContactId, row: &Row) -> Result<Changed, StoreError> {
        let known = people.records.get(&who).and_then(|record| record.ids.get(row.met.alias));
        if known.and_then(|known| known.until).is_some_and(|until| until > self.at) {
            return Ok(Changed::Done);
        }
        people.take(who, row.met, row.stored, None, self.at).await
    }
}
