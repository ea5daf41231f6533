//! Interface of a key that wraps tenants' keys: a local master key, or a key that never leaves an external service.
//!
//! Contract: a wrapped value opens only with the same `place`, which is its storage location. The stored value
//! names the key that wrapped it, so that several can be known at once:
//!
//! | first byte | content |
//! |---|---|
//! | 0 | nothing: the tenant has been erased |
//! | 1 | a [`Sealed`], wrapped by a local master key, whose number it carries |
//! | 2 | four bytes number (big-endian) of a key in an external service, then the service's ciphertext |
//!
//! # Errors of all calls
//! [`KeysError::Unreadable`] when the ciphertext is at fault; [`KeysError::Master`] when an operator has to
//! act, such as on a refused token; [`KeysError::Store`] when a retry may help.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::sealed::Sealed;
use zeroize::Zeroizing;

/// First byte of a key that an external service wrapped.
pub(super) const EXTERNAL: u8 = 2;
/// Bytes before the service's ciphertext.
pub const EXTERNAL_HEADER: usize = 1 + 4;

/// Wraps and opens short secrets.
#[async_trait]
pub trait Wrapper: Send + Sync + fmt::Debug + 'static {
    /// Number in ciphertexts: 32 bits that distinguish this key from others.
    fn number(&self) -> u32;

    /// Name of the key's location, as configured; it reveals nothing of the key itself.
    fn name(&self) -> &str;

    /// Returns true if a call leaves the process: its results are then cached, and checked again only at intervals.
    fn is_external(&self) -> bool;

    /// Checks that the key can be used now; called once, before the first key.
    ///
    /// # Errors
    /// As the module says.
    async fn check(&self) -> Result<(), KeysError>;

    /// Wraps `secret` so that it opens only at `place`.
    ///
    /// # Errors
    /// As the module says.
    async fn wrap(&self, place: &[u8], secret: &[u8]) -> Result<Bytes, KeysError>;

    /// Opens a value that any version of this key wrapped.
    ///
    /// # Errors
    /// As the module says.
    async fn open(&self, place: &[u8], wrapped: &Bytes) -> Result<Zeroizing<Vec<u8>>, KeysError>;

    /// Wraps the same secret by the newest version of this key, without opening it here; `None` when that
    /// wrapped it already.
    ///
    /// # Errors
    /// As the module says.
    async fn renew(&self, place: &[u8], wrapped: &Bytes) -> Result<Option<Bytes>, KeysError>;

    /// Returns the version of this key that wrapped a value; `None` for a key that has only one.
    fn version(&self, wrapped: &[u8]) -> Option<u32>;

    /// Creates a new version of this key, which wraps from now on.
    ///
    /// # Errors
    /// As the module says; [`KeysError::Master`] for a key that has only one version.
    async fn new_version(&self) -> Result<(), KeysError>;
}

/// Returns the number of the key that wrapped a stored value; `None` if this build knows no such format.
pub(super) fn number_of(stored: &[u8]) -> Option<u32> {
    match *stored {
        [Sealed::VERSION, ..] => Sealed::from_bytes(Bytes::copy_from_slice(stored)).key_number(),
        [EXTERNAL, a, b, c, d, _, ..] => Some(u32::from_be_bytes([a, b, c, d])),
        _ => None,
    }
}

/// Puts the header before a service's ciphertext.
#[must_use]
pub fn external(number: u32, ciphertext: &str) -> Bytes {
    let mut bytes = Vec::with_capacity(EXTERNAL_HEADER + ciphertext.len());
    bytes.push(EXTERNAL);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(ciphertext.as_bytes());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_names_its_wrapper_and_a_truncated_one_names_none() {
        assert_eq!(number_of(&external(0x0102_0304, "vault:v1:AAAA")), Some(0x0102_0304));
        let mut sealed = vec![1, 9, 9, 9, 9];
        sealed.resize(Sealed::HEADER, 0);
        assert_eq!(number_of(&sealed), Some(0x0909_0909));
        for cut in [&[][..], &[0], &[1, 9, 9, 9, 9], &[2, 1, 2, 3, 4], &[3; 40]] {
            assert_eq!(number_of(cut), None, "{cut:?}");
        }
    }
}
