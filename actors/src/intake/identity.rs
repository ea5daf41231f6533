//! Alias table: from each id a contact is met under to its immutable internal id.
//!
//! Ids are looked up and stored as keyed hashes, each with the scope that the channel's profile gives it (everywhere,
//! the business, one account), so the table shows no phone number. A contact is created by insert-if-absent at its
//! first message. Where several ids come together, a business-scoped id decides before a phone number (numbers are
//! reassigned to other people in time), and the ones not known yet are added. Lookups are cached; a cached answer never
//! differs from the table but for a rename on another node, which is why it is kept for [`CACHED_FOR`] only.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::content::Address;
use heddle_schemas::id::{ChannelKind, ContactId, MessageKey, TenantId};
use heddle_schemas::ports::keys::{KeysError, TenantCipher};
use heddle_schemas::ports::state::{StoreError, Swap};
use heddle_schemas::ports::update::{Change, Impatient, update};
use heddle_schemas::table::Key;
use lru::LruCache;

use crate::ports::Ports;

/// Time for which an answer is taken from the cache.
const CACHED_FOR: Duration = Duration::from_secs(300);
/// Number of answers in the cache.
const CACHED: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

/// Why a contact could not be found or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The address holds no id by which the channel identifies people.
    #[error("no id that the channel knows people by")]
    Nameless,
    /// The alias table.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenant's key.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Finds contacts.
pub struct Identity {
    ports: Ports,
    cache: Mutex<LruCache<(TenantId, MessageKey), (ContactId, Duration)>>,
}

impl Identity {
    /// Returns a resolver with an empty cache.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports, cache: Mutex::new(LruCache::new(CACHED)) }
    }

    /// The contact met under this address, made if it is met for the first time.
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
        let aliases = self.aliases(&*cipher, kind, address);
        let mut found = None;
        let mut unknown = Vec::new();
        for &alias in &aliases {
            match self.lookup(tenant, alias).await? {
                Some(contact) => found = found.or(Some(contact)),
                None => unknown.push(alias),
            }
        }
        let mut contact = match found {
            Some(contact) => contact,
            None if aliases.is_empty() => return Err(IdentityError::Nameless),
            None => ContactId::from_bytes((self.ports.random)()),
        };
        for (index, alias) in unknown.into_iter().enumerate() {
            let kept = self.insert(tenant, alias, contact).await?;
            // Only the first alias of a new contact may turn out to belong to a contact created meanwhile.
            if index == 0 && found.is_none() {
                contact = kept;
            }
        }
        Ok(contact)
    }

    /// Returns the contact of this address, where there is one; creates none. Reads the table, not the cache: an
    /// operation on a contact by name must reach the current owner of the number.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn find(
        &self,
        tenant: &TenantId,
        kind: ChannelKind,
        address: &Address,
    ) -> Result<Option<ContactId>, IdentityError> {
        let cipher = self.ports.keys.tenant(tenant).await?;
        for alias in self.aliases(&*cipher, kind, address) {
            if let Some(stored) = self.ports.state.get(&Key::alias(tenant, alias)).await? {
                return Ok(Some(contact_of(&stored)?));
            }
        }
        Ok(None)
    }

    /// Links the new address to the contact of the old one.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn rename(
        &self,
        tenant: &TenantId,
        kind: ChannelKind,
        old: &Address,
        new: &Address,
    ) -> Result<ContactId, IdentityError> {
        let contact = self.resolve(tenant, kind, old).await?;
        let cipher = self.ports.keys.tenant(tenant).await?;
        for alias in self.aliases(&*cipher, kind, new) {
            // The notice may come after the first message from the new number: the history stays with the contact that
            // existed first.
            let key = Key::alias(tenant, alias);
            let value = Bytes::copy_from_slice(&contact.to_bytes());
            update(&*self.ports.state, &key, Impatient, |found| {
                Ok::<_, StoreError>(match found == Some(&value) {
                    true => Change::Keep(()),
                    false => Change::put(value.clone(), ()),
                })
            })
            .await?;
            self.remember(tenant, alias, contact);
        }
        Ok(contact)
    }

    async fn lookup(&self, tenant: &TenantId, alias: MessageKey) -> Result<Option<ContactId>, StoreError> {
        if let Some(contact) = self.cached(tenant, alias) {
            return Ok(Some(contact));
        }
        let stored = self.ports.state.get(&Key::alias(tenant, alias)).await?;
        let contact = stored.map(|stored| contact_of(&stored)).transpose()?;
        if let Some(contact) = contact {
            self.remember(tenant, alias, contact);
        }
        Ok(contact)
    }

    async fn insert(
        &self,
        tenant: &TenantId,
        alias: MessageKey,
        contact: ContactId,
    ) -> Result<ContactId, StoreError> {
        let value = Bytes::copy_from_slice(&contact.to_bytes());
        let key = Key::alias(tenant, alias);
        let kept = match self.ports.state.compare_and_set(&key, None, Some(value), None).await? {
            Swap::Done | Swap::Found(None) => contact,
            Swap::Found(Some(other)) => contact_of(&other)?,
        };
        self.remember(tenant, alias, kept);
        Ok(kept)
    }

    /// Keyed hashes of those of an address's ids that the channel knows people by, the deciding one first.
    fn aliases(&self, cipher: &dyn TenantCipher, kind: ChannelKind, address: &Address) -> Vec<MessageKey> {
        let ids = self.ports.profile(kind).map_or(&[][..], |profile| profile.ids);
        ids.iter()
            .filter_map(|id| id.alias(kind, address))
            .map(|alias| cipher.hash("alias", alias.as_bytes()))
            .collect()
    }

    fn cached(&self, tenant: &TenantId, alias: MessageKey) -> Option<ContactId> {
        let now = self.ports.clock.elapsed();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (contact, until) = *cache.get(&(tenant.clone(), alias))?;
        (now < until).then_some(contact)
    }

    fn remember(&self, tenant: &TenantId, alias: MessageKey, contact: ContactId) {
        let until = self.ports.clock.elapsed() + CACHED_FOR;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.put((tenant.clone(), alias), (contact, until));
    }
}

fn contact_of(stored: &[u8]) -> Result<ContactId, StoreError> {
    let bytes = <[u8; 16]>::try_from(stored).map_err(|_| StoreError::Corrupt {
        detail: format!("an alias row of {} bytes, not 16", stored.len()),
    })?;
    Ok(ContactId::from_bytes(bytes))
}
