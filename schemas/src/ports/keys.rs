//! Keys: a key-encryption key (KEK) wraps a tenant's key, which wraps the data keys of contacts and of channel
//! accounts.
//!
//! Every ciphertext is bound to its place by its associated data ([`crate::ports::keys::aad`]): moved elsewhere it does
//! not open. Erasing a key makes what it sealed unreadable at once.

use std::sync::Arc;

use async_trait::async_trait;

use super::state::StoreError;
use crate::id::{AccountKey, ContactId, MessageKey, TenantId};
use crate::sealed::Sealed;
use crate::table::Key;
use crate::time::{Day, Timestamp};

/// Failure to get a key or to open a ciphertext.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeysError {
    /// The key has been erased, or never was.
    #[error("no key: {detail}")]
    Gone {
        /// The owner of the key.
        detail: String,
    },
    /// The ciphertext was changed, moved, or sealed by another key.
    #[error("a ciphertext does not open: {detail}")]
    Unreadable {
        /// The place of the ciphertext.
        detail: String,
    },
    /// The key-encryption key is missing, is refused where it is kept, or is not the one that wrapped the stored keys.
    /// An operator has to act.
    #[error("the master key cannot be used: {detail}")]
    Master {
        /// Advice to the operator.
        detail: String,
    },
    /// The store of wrapped keys, or the place of the key-encryption key, failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeysError {
    /// Returns the transient part, for a caller that holds a record until it can be read: the store's failures, and a
    /// key-encryption key that this node cannot use until an operator provides it. A record is not dead-lettered for
    /// those.
    ///
    /// # Errors
    /// Failures that stay: the key has been erased, or the ciphertext is damaged.
    pub fn passing(self) -> Result<StoreError, Self> {
        match self {
            Self::Store(error) => Ok(error),
            Self::Master { .. } => Ok(StoreError::Unavailable { detail: self.to_string() }),
            other => Err(other),
        }
    }
}

/// Seals and opens under one key. Cheap to clone through its `Arc`; needs no waiting.
pub trait Cipher: Send + Sync + std::fmt::Debug {
    /// Encrypts, binding the result to `aad`.
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Sealed;

    /// Decrypts what was sealed under the same key with the same `aad`.
    ///
    /// # Errors
    /// [`KeysError::Unreadable`].
    fn open(&self, aad: &[u8], sealed: &Sealed) -> Result<Vec<u8>, KeysError>;
}

/// A tenant's own key: seals its secrets, and hashes ids so that others cannot guess them.
pub trait TenantCipher: Cipher {
    /// HMAC-SHA-256 under a key derived for `domain`, cut to 128 bits.
    fn hash(&self, domain: &str, input: &[u8]) -> MessageKey;
}

/// A contact's data key.
pub trait ContactCipher: Cipher {
    /// Returns the time of the contact's last erasure, where there was one: messages sent to the contact before it must
    /// not come back under the newer key.
    fn erased_at(&self) -> Option<Timestamp>;
}

/// Behaviour where a contact has no key yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make one, by conditional write.
    Create,
    /// Say [`KeysError::Gone`].
    Fail,
}

/// The keys.
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// Returns the tenant's own key, made at first use.
    ///
    /// # Errors
    /// [`KeysError::Gone`] after the tenant was erased, [`KeysError::Master`], [`KeysError::Store`].
    async fn tenant(&self, tenant: &TenantId) -> Result<Arc<dyn TenantCipher>, KeysError>;

    /// The key that seals a tenant's log records of a day. A ciphertext names its day as
    /// [`Sealed::key_number`].
    ///
    /// # Errors
    /// As [`Keys::tenant`].
    async fn log(&self, tenant: &TenantId, day: Day) -> Result<Arc<dyn Cipher>, KeysError>;

    /// The data key of a contact.
    ///
    /// # Errors
    /// As [`Keys::tenant`]; [`KeysError::Gone`] when there is none and `missing` says to fail.
    async fn contact(
        &self,
        tenant: &TenantId,
        contact: ContactId,
        missing: Missing,
    ) -> Result<Arc<dyn ContactCipher>, KeysError>;

    /// Erases the data key that a contact has had until `at`; what it sealed is unreadable from here on. A key made
    /// since an erasure of that time stays: the same erasure, done again, takes nothing that came after it.
    ///
    /// # Errors
    /// As [`Keys::tenant`].
    async fn erase_contact(
        &self,
        tenant: &TenantId,
        contact: ContactId,
        at: Timestamp,
    ) -> Result<(), KeysError>;

    /// The key of a channel account's credentials. It is read from the store at each call, and is to be used at once:
    /// what is sealed after an erasure, under a key from before, never opens.
    ///
    /// # Errors
    /// As [`Keys::contact`].
    async fn channel(&self, account: &AccountKey, missing: Missing) -> Result<Arc<dyn Cipher>, KeysError>;

    /// Erases the key of a channel account's credentials; wherever they are stored, they are unreadable from here
    /// on. An account that is connected again gets another key.
    ///
    /// # Errors
    /// [`KeysError::Store`].
    async fn erase_channel(&self, account: &AccountKey) -> Result<(), KeysError>;

    /// Erases a tenant's key, and with it every key below it.
    ///
    /// # Errors
    /// [`KeysError::Store`].
    async fn erase_tenant(&self, tenant: &TenantId) -> Result<(), KeysError>;
}

/// Associated data of a ciphertext in a column of a row: the key names tenant, table and row.
#[must_use]
pub fn aad(key: &Key, column: &str) -> Vec<u8> {
    let mut aad = Vec::with_capacity(key.as_bytes().len() + 1 + column.len());
    aad.extend_from_slice(key.as_bytes());
    // No column holds this byte, so the border cannot be moved.
    aad.push(0xff);
    aad.extend_from_slice(column.as_bytes());
    aad
}
