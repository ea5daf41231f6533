//! Keys that report every ciphertext that does not open, for any caller.

use std::sync::Arc;

use async_trait::async_trait;
use heddle_schemas::id::{AccountKey, ContactId, MessageKey, TenantId};
use heddle_schemas::ports::keys::{Cipher, ContactCipher, Keys, KeysError, Missing, TenantCipher};
use heddle_schemas::record::event::DataCategory;
use heddle_schemas::sealed::Sealed;
use heddle_schemas::time::{Day, Timestamp};

use super::{Security, SecuritySignal};

/// Data that a contact's key and a day's log key seal.
const SAID: &[DataCategory] = &[DataCategory::ContactDetails, DataCategory::Messages];
/// Data that a tenant's own key seals: its secrets and documents.
const OWN: &[DataCategory] = &[DataCategory::Documents, DataCategory::Secrets];
/// Data category of a wrapped key.
const KEY: &[DataCategory] = &[DataCategory::Secrets];

/// The keys of another port, watched.
pub struct WatchedKeys {
    keys: Arc<dyn Keys>,
    security: Arc<Security>,
}

/// Owner of a cipher, and the data that it seals.
#[derive(Debug)]
struct Seals {
    security: Arc<Security>,
    tenant: TenantId,
    contact: Option<ContactId>,
    data: &'static [DataCategory],
}

impl Seals {
    fn watch<T>(&self, result: Result<T, KeysError>) -> Result<T, KeysError> {
        if let Err(KeysError::Unreadable { .. }) = &result {
            let signal = SecuritySignal::FailedDecryption { contact: self.contact, data: self.data };
            self.security.saw(Some(&self.tenant), signal);
        }
        result
    }
}

#[derive(Debug)]
struct Watched<C: ?Sized> {
    seals: Seals,
    cipher: Arc<C>,
}

impl<C: Cipher + ?Sized> Cipher for Watched<C> {
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Sealed {
        self.cipher.seal(aad, plain)
    }

    fn open(&self, aad: &[u8], sealed: &Sealed) -> Result<Vec<u8>, KeysError> {
        self.seals.watch(self.cipher.open(aad, sealed))
    }
}

impl<C: TenantCipher + ?Sized> TenantCipher for Watched<C> {
    fn hash(&self, domain: &str, input: &[u8]) -> MessageKey {
        self.cipher.hash(domain, input)
    }
}

impl ContactCipher for Watched<dyn ContactCipher> {
    fn erased_at(&self) -> Option<Timestamp> {
        self.cipher.erased_at()
    }
}

impl WatchedKeys {
    /// Reports to `security`.
    #[must_use]
    pub fn new(keys: Arc<dyn Keys>, security: Arc<Security>) -> Self {
        Self { keys, security }
    }

    fn seals(&self, tenant: &TenantId, contact: Option<ContactId>, data: &'static [DataCategory]) -> Seals {
        Seals { security: self.security.clone(), tenant: tenant.clone(), contact, data }
    }
}

#[async_trait]
impl Keys for WatchedKeys {
    async fn tenant(&self, tenant: &TenantId) -> Result<Arc<dyn TenantCipher>, KeysError> {
        let cipher = self.seals(tenant, None, KEY).watch(self.keys.tenant(tenant).await)?;
        Ok(Arc::new(Watched { seals: self.seals(tenant, None, OWN), cipher }))
    }

    async fn log(&self, tenant: &TenantId, day: Day) -> Result<Arc<dyn Cipher>, KeysError> {
        let cipher = self.seals(tenant, None, KEY).watch(self.keys.log(tenant, day).await)?;
        Ok(Arc::new(Watched { seals: self.seals(tenant, None, SAID), cipher }))
    }

    async fn contact(
        &self,
        tenant: &TenantId,
        contact: ContactId,
        missing: Missing,
    ) -> Result<Arc<dyn ContactCipher>, KeysError> {
        let cipher = self.keys.contact(tenant, contact, missing).await;
        let cipher = self.seals(tenant, Some(contact), KEY).watch(cipher)?;
        if cipher.erased_at().is_some() {
            // Data from before the erasure does not open under the new key, as intended.
            return Ok(cipher);
        }
        Ok(Arc::new(Watched { seals: self.seals(tenant, Some(contact), SAID), cipher }))
    }

    async fn erase_contact(
        &self,
        tenant: &TenantId,
        contact: ContactId,
        at: Timestamp,
    ) -> Result<(), KeysError> {
        self.keys.erase_contact(tenant, contact, at).await
    }

    async fn channel(&self, account: &AccountKey, missing: Missing) -> Result<Arc<dyn Cipher>, KeysError> {
        let seals = self.seals(&account.tenant, None, KEY);
        // A value that does not open under it may be from before the account was connected again: the reader decides.
        seals.watch(self.keys.channel(account, missing).await)
    }

    async fn erase_channel(&self, account: &AccountKey) -> Result<(), KeysError> {
        self.keys.erase_channel(account).await
    }

    async fn erase_tenant(&self, tenant: &TenantId) -> Result<(), KeysError> {
        self.keys.erase_tenant(tenant).await
    }
}
