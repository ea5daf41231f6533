//! The keys port over any state store.
//!
//! Rows, all written by `compare_and_set` only:
//! - `key/t` of a tenant: its key, wrapped by a master key, which it names; after its erasure one byte
//!   0, so that it is never created again;
//! - `key/c` of a contact: its data key, sealed by its tenant's key; after its erasure a byte 0 and the time of it, so
//!   that a later message begins with another key, which carries that time;
//! - `key/a` of a channel account: the key of its credentials, sealed by its tenant's key; when erased, there is no row.
//!   It is never cached: a node that still had it could seal under a key that no node can open;
//! - one row of no tenant: a known text wrapped by the master key that the store began with, or was last
//!   rotated to. It is checked before the first key is created, so an operator who starts with another
//!   master key gets an error at once, and nothing is ever written under it.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::id::{AccountKey, ContactId, TenantId};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{Cipher, ContactCipher, Keys, KeysError, Missing, TenantCipher, aad};
use heddle_schemas::ports::state::State;
use heddle_schemas::ports::update::{Change, Impatient, update};
use heddle_schemas::table::Key;
use heddle_schemas::time::{Day, Timestamp};
use zeroize::Zeroizing;

use super::cache::{Cache, Cached};
use super::cipher::{AesCipher, FIRST, Owner, TenantKeys};
use super::contact;
use super::derive::{Clear, KEY_BYTES};
use super::entropy::{Entropy, SystemEntropy};
use super::master::MasterKey;
use super::masters::Masters;
use super::opened::{Opened, Wrapped};

/// Lifetime and number of cached keys, and the source of new ones.
#[derive(Clone)]
pub struct Options {
    /// Keys of tenants, days and contacts together; over it, the least recently used leave. One
    /// takes about 1 KiB, a tenant's about 2. Default: 50,000.
    pub cache_entries: NonZeroUsize,
    /// Time that a cached key is used before its row is read again: an erasure by another process may go
    /// unnoticed for as long, and for twice as long for a contact whose tenant was erased. Default: one minute.
    pub cache_for: Duration,
    /// Interval at which an external service is asked whether a tenant's key that it opened before may still be
    /// used. After a key is revoked there, running nodes stop using it within this interval. Default: ten
    /// minutes.
    pub ask_again: Duration,
    /// Source of keys and nonces. Default: the operating system; replaced only in a
    /// simulation.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for Options {
    fn default() -> Self {
        let cache_entries = const { NonZeroUsize::new(50_000).unwrap() };
        Self {
            cache_entries,
            cache_for: Duration::from_secs(60),
            ask_again: Duration::from_secs(600),
            entropy: Arc::new(SystemEntropy),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache_entries, cache_for, ask_again, entropy: _ } = self;
        let mut options = f.debug_struct("Options");
        options.field("cache_entries", cache_entries).field("cache_for", cache_for);
        options.field("ask_again", ask_again).finish_non_exhaustive()
    }
}

/// The keys.
pub struct EnvelopeKeys {
    pub(super) state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
    pub(super) masters: Masters,
    cache: Cache,
    opened: Arc<Opened>,
    verified: AtomicBool,
    entropy: Arc<dyn Entropy>,
}

/// The column of a wrapped key, for its associated data.
pub(super) const COLUMN: &str = "key";

/// Content of an erased tenant's row: no ciphertext begins with it.
pub(super) const ERASED: &[u8] = &[0];

/// Plaintext of the check row.
const CHECK: &[u8] = b"heddle master key";

impl EnvelopeKeys {
    /// Creates keys in `state`, wrapped by `master`. Reads nothing yet; see [`EnvelopeKeys::verify_master`].
    #[must_use]
    pub fn new(state: Arc<dyn State>, clock: Arc<dyn Clock>, master: &MasterKey, options: Options) -> Self {
        let masters = Masters::local(master, options.entropy.clone());
        Self::with_masters(state, clock, masters, options)
    }

    /// Creates keys in `state`, wrapped by the present key of `masters`; keys wrapped by a previous one still open.
    #[must_use]
    pub fn with_masters(
        state: Arc<dyn State>,
        clock: Arc<dyn Clock>,
        masters: Masters,
        options: Options,
    ) -> Self {
        let cache = Cache::new(options.cache_entries, options.cache_for);
        let opened = Opened::new(options.cache_entries, options.ask_again);
        let entropy = options.entropy;
        Self { state, clock, masters, cache, opened, verified: AtomicBool::new(false), entropy }
    }

    /// Returns true if a store already has a master key.
    ///
    /// # Errors
    /// [`KeysError::Store`].
    pub async fn has_begun(state: &dyn State) -> Result<bool, KeysError> {
        Ok(state.get(&Key::master_check()).await?.is_some())
    }

    /// Returns the known master keys.
    #[must_use]
    pub fn masters(&self) -> &Masters {
        &self.masters
    }

    /// Checks that the present master key can be used, and that one of the known master keys is the one
    /// that the store began with or was rotated to; an empty store begins with the present one. Meant for
    /// the start; the first use of a key does it too.
    ///
    /// # Errors
    /// [`KeysError::Master`], [`KeysError::Store`].
    pub async fn verify_master(&self) -> Result<(), KeysError> {
        if self.verified.load(Ordering::Acquire) {
            return Ok(());
        }
        self.masters.present().check().await?;
        let row = Key::master_check();
        let stored = self.read_or_wrap(&row, || Zeroizing::new(CHECK.to_vec())).await?;
        let opened = self.masters.of(&stored)?.open(&aad(&row, COLUMN), &stored).await?;
        if opened.as_slice() != CHECK {
            return Err(KeysError::Unreadable { detail: "the master key's check row".into() });
        }
        self.verified.store(true, Ordering::Release);
        Ok(())
    }

    async fn tenant_keys(&self, tenant: &TenantId) -> Result<Arc<TenantKeys>, KeysError> {
        let owner = Owner::Tenant(tenant.clone());
        if let Some(Cached::Tenant(keys)) = self.cache.get(&owner, self.clock.elapsed()) {
            return Ok(keys);
        }
        self.verify_master().await?;
        loop {
            let loading = self.cache.begin(&owner);
            let key = self.load_tenant(tenant).await?;
            let keys = Arc::new(TenantKeys::new(&key, tenant, &loading.erased, &self.entropy));
            let cached = Cached::Tenant(keys.clone());
            if self.cache.insert(owner.clone(), cached, &loading, self.clock.elapsed()) {
                return Ok(keys);
            }
        }
    }

    async fn load_tenant(&self, tenant: &TenantId) -> Result<Clear, KeysError> {
        let row = Key::tenant_key(tenant);
        let stored = self.read_or_wrap(&row, || Zeroizing::new(self.new_key().to_vec())).await?;
        if stored == ERASED {
            self.opened.forget(tenant);
            return Err(KeysError::Gone { detail: format!("tenant {tenant} has been erased") });
        }
        let (by, place) = (self.masters.of(&stored)?, aad(&row, COLUMN));
        if !by.is_external() {
            return clear(&by.open(&place, &stored).await?);
        }
        let wrapped = Wrapped { tenant: tenant.clone(), place, row: stored, by: by.clone() };
        self.opened.open(wrapped, self.clock.elapsed()).await
    }

    async fn load_contact(
        &self,
        keys: &TenantKeys,
        tenant: &TenantId,
        contact: ContactId,
        missing: Missing,
    ) -> Result<contact::DataKey, KeysError> {
        let row = Key::contact_key(tenant, contact);
        update(&*self.state, &row, Impatient, |found| {
            let erased_at = match found {
                None => None,
                Some(stored) => match contact::erased_at(stored) {
                    // The first writer's key counts for all.
                    None => {
                        return contact::DataKey::unwrap(&keys.wrap, &row, stored.clone()).map(Change::Keep);
                    }
                    erased_at => erased_at,
                },
            };
            if missing == Missing::Fail {
                return Err(KeysError::Gone {
                    detail: format!("contact {contact} of tenant {tenant} has none"),
                });
            }
            let made = contact::DataKey { key: self.new_key(), erased_at };
            Ok(Change::put(made.wrap(&keys.wrap, &row), made))
        })
        .await
    }

    async fn load_channel(
        &self,
        keys: &TenantKeys,
        account: &AccountKey,
        missing: Missing,
    ) -> Result<contact::DataKey, KeysError> {
        let row = Key::channel_key(account);
        update(&*self.state, &row, Impatient, |found| {
            if let Some(stored) = found {
                return contact::DataKey::unwrap(&keys.wrap, &row, stored.clone()).map(Change::Keep);
            }
            if missing == Missing::Fail {
                let detail = format!("channel account {account} is disconnected");
                return Err(KeysError::Gone { detail });
            }
            let made = contact::DataKey { key: self.new_key(), erased_at: None };
            Ok(Change::put(made.wrap(&keys.wrap, &row), made))
        })
        .await
    }

    fn new_key(&self) -> Clear {
        let mut key = Clear::default();
        self.entropy.key(&mut key[..]);
        key
    }

    /// Returns the value of a row that a master key wraps, created if there is none. The first writer's value counts
    /// for all, so the stored one is returned.
    async fn read_or_wrap(
        &self,
        row: &Key,
        secret: impl Fn() -> Zeroizing<Vec<u8>> + Send + Sync,
    ) -> Result<Bytes, KeysError> {
        if let Some(stored) = self.state.get(row).await? {
            return Ok(stored);
        }
        let made = self.masters.present().wrap(&aad(row, COLUMN), &secret()).await?;
        update(&*self.state, row, Impatient, |found| {
            Ok(match found {
                Some(found) => Change::Keep(found.clone()),
                None => Change::put(made.clone(), made.clone()),
            })
        })
        .await
    }

    /// Replaces the value of a row, also one that is written meanwhile.
    async fn overwrite(&self, row: &Key, new: Option<&'static [u8]>) -> Result<(), KeysError> {
        let new = new.map(Bytes::from_static);
        update(&*self.state, row, Impatient, |found| {
            Ok(match found == new.as_ref() {
                true => Change::Keep(()),
                false => Change::Set { value: new.clone(), expires: None, result: () },
            })
        })
        .await
    }
}

#[async_trait]
impl Keys for EnvelopeKeys {
    async fn tenant(&self, tenant: &TenantId) -> Result<Arc<dyn TenantCipher>, KeysError> {
        Ok(self.tenant_keys(tenant).await?)
    }

    async fn log(&self, tenant: &TenantId, day: Day) -> Result<Arc<dyn Cipher>, KeysError> {
        let owner = Owner::Log(tenant.clone(), day);
        if let Some(Cached::Cipher(cipher)) = self.cache.get(&owner, self.clock.elapsed()) {
            return Ok(cipher);
        }
        loop {
            let loading = self.cache.begin(&owner);
            let keys = self.tenant_keys(tenant).await?;
            let cipher = Arc::new(keys.log(tenant, day, loading.erased.clone()));
            let cached = Cached::Cipher(cipher.clone());
            if self.cache.insert(owner.clone(), cached, &loading, self.clock.elapsed()) {
                return Ok(cipher);
            }
        }
    }

    async fn contact(
        &self,
        tenant: &TenantId,
        contact: ContactId,
        missing: Missing,
    ) -> Result<Arc<dyn ContactCipher>, KeysError> {
        let owner = Owner::Contact(tenant.clone(), contact);
        if let Some(Cached::Cipher(cipher)) = self.cache.get(&owner, self.clock.elapsed()) {
            return Ok(cipher);
        }
        loop {
            let loading = self.cache.begin(&owner);
            let keys = self.tenant_keys(tenant).await?;
            let key = self.load_contact(&keys, tenant, contact, missing).await?;
            let (erased, entropy) = (loading.erased.clone(), self.entropy.clone());
            let cipher = AesCipher::new(&key.key, FIRST, owner.clone(), erased, entropy);
            let cipher = Arc::new(cipher.following(key.erased_at));
            let cached = Cached::Cipher(cipher.clone());
            if self.cache.insert(owner.clone(), cached, &loading, self.clock.elapsed()) {
                return Ok(cipher);
            }
        }
    }

    async fn erase_contact(
        &self,
        tenant: &TenantId,
        contact: ContactId,
        at: Timestamp,
    ) -> Result<(), KeysError> {
        let owner = Owner::Contact(tenant.clone(), contact);
        let keys = self.tenant_keys(tenant).await?;
        let row = Key::contact_key(tenant, contact);
        let erased = update(&*self.state, &row, Impatient, |found| {
            Ok(match contact::is_erased(&keys.wrap, &row, found, at)? {
                true => Change::Keep(()),
                false => Change::put(contact::erased(at), ()),
            })
        })
        .await;
        // Another conversation of the contact may have been erased before, and the contact have come back.
        let follows = |cached: Cached| match cached {
            Cached::Cipher(cipher) => cipher.erased_at().is_some_and(|erased_at| erased_at >= at),
            Cached::Tenant(_) => false,
        };
        if erased.is_ok() && self.cache.get(&owner, self.clock.elapsed()).is_some_and(follows) {
            return Ok(());
        }
        match erased {
            Ok(()) => self.cache.erase(&owner),
            // The outcome is unknown: the next use reads the row.
            Err(_) => self.cache.forget(&owner),
        }
        erased
    }

    async fn channel(&self, account: &AccountKey, missing: Missing) -> Result<Arc<dyn Cipher>, KeysError> {
        let owner = Owner::Channel(account.clone());
        loop {
            // An erasure of the tenant turns it off as all others.
            let loading = self.cache.begin(&owner);
            let keys = self.tenant_keys(&account.tenant).await?;
            let key = self.load_channel(&keys, account, missing).await?;
            if self.cache.is_current(&loading) {
                let entropy = self.entropy.clone();
                return Ok(Arc::new(AesCipher::new(&key.key, FIRST, owner, loading.erased, entropy)));
            }
        }
    }

    async fn erase_channel(&self, account: &AccountKey) -> Result<(), KeysError> {
        let erased = self.overwrite(&Key::channel_key(account), None).await;
        self.cache.erase(&Owner::Channel(account.clone()));
        erased
    }

    async fn erase_tenant(&self, tenant: &TenantId) -> Result<(), KeysError> {
        let erased = self.overwrite(&Key::tenant_key(tenant), Some(ERASED)).await;
        match erased {
            Ok(()) => self.cache.erase_tenant(tenant),
            Err(_) => self.cache.forget(&Owner::Tenant(tenant.clone())),
        }
        self.opened.forget(tenant);
        erased
    }
}

impl fmt::Debug for EnvelopeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvelopeKeys").field("masters", &self.masters).finish_non_exhaustive()
    }
}

pub(super) fn clear(bytes: &[u8]) -> Result<Clear, KeysError> {
    let mut key = Clear::default();
    if bytes.len() != KEY_BYTES {
        return Err(KeysError::Unreadable { detail: format!("a stored key has {} bytes", bytes.len()) });
    }
    key.copy_from_slice(bytes);
    Ok(key)
}

#[cfg(test)]
mod tests;
