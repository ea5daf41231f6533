//! The row of a contact's data key: the key, and the time at which the previous one was erased.
//!
//! A key that follows an erased one carries the time of the erasure inside its ciphertext: for as long as the contact
//! is known, it shows that earlier messages must not come back. An erasure that is repeated finds a key that
//! follows it, and leaves it alone.

use bytes::Bytes;
use heddle_schemas::ports::keys::{Cipher as _, KeysError, aad};
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use zeroize::Zeroizing;

use super::cipher::AesCipher;
use super::derive::{Clear, KEY_BYTES};

/// The column of a wrapped key, for its associated data.
const COLUMN: &str = "key";
/// First byte of an erased contact's row: no [`Sealed`] begins with it.
const ERASED: u8 = 0;

/// A contact's data key in the clear.
pub(super) struct DataKey {
    pub(super) key: Clear,
    /// Time at which the previous key was erased.
    pub(super) erased_at: Option<Timestamp>,
}

impl DataKey {
    pub(super) fn wrap(&self, by: &AesCipher, row: &Key) -> Bytes {
        let mut plain = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 8));
        plain.extend_from_slice(&self.key[..]);
        if let Some(at) = self.erased_at {
            plain.extend_from_slice(&at.as_micros().to_be_bytes());
        }
        by.seal(&aad(row, COLUMN), &plain).into_bytes()
    }

    pub(super) fn unwrap(by: &AesCipher, row: &Key, stored: Bytes) -> Result<Self, KeysError> {
        let plain = Zeroizing::new(by.open(&aad(row, COLUMN), &Sealed::from_bytes(stored))?);
        let wrong = || KeysError::Unreadable { detail: format!("a stored key has {} bytes", plain.len()) };
        let (bytes, erased_at) = plain.split_at_checked(KEY_BYTES).ok_or_else(wrong)?;
        let erased_at = match erased_at {
            [] => None,
            at => Some(time(at).ok_or_else(wrong)?),
        };
        let mut key = Clear::default();
        key.copy_from_slice(bytes);
        Ok(Self { key, erased_at })
    }
}

/// Returns the row of a contact that was erased at that time.
pub(super) fn erased(at: Timestamp) -> Bytes {
    let mut row = vec![ERASED];
    row.extend_from_slice(&at.as_micros().to_be_bytes());
    row.into()
}

/// Returns the time of the contact's erasure, if no key has followed it.
pub(super) fn erased_at(stored: &[u8]) -> Option<Timestamp> {
    let (&first, at) = stored.split_first()?;
    if first == ERASED { time(at) } else { None }
}

/// Returns true if an erasure of that time has been done: an erased row of then or later, or a key that follows it.
pub(super) fn is_erased(
    by: &AesCipher,
    row: &Key,
    stored: Option<&Bytes>,
    at: Timestamp,
) -> Result<bool, KeysError> {
    let Some(stored) = stored else { return Ok(false) };
    let erased_at = match erased_at(stored) {
        None => DataKey::unwrap(by, row, stored.clone())?.erased_at,
        erased_at => erased_at,
    };
    Ok(erased_at.is_some_and(|erased_at| erased_at >= at))
}

fn time(bytes: &[u8]) -> Option<Timestamp> {
    Some(Timestamp::from_micros(i64::from_be_bytes(bytes.try_into().ok()?)))
}
