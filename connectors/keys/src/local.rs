//! Wrapper with a master key in this process: AES-256-GCM; the key never leaves it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::ports::keys::{Cipher as _, KeysError};
use heddle_schemas::sealed::Sealed;
use zeroize::Zeroizing;

use super::cipher::AesCipher;
use super::entropy::Entropy;
use super::master::MasterKey;
use super::wrapper::Wrapper;

/// A master key that was read, and its source.
#[derive(Debug)]
pub struct LocalMaster {
    name: String,
    number: u32,
    cipher: AesCipher,
}

impl LocalMaster {
    /// `name` is where the key was read from; nonces come from `entropy`.
    #[must_use]
    pub fn new(name: impl Into<String>, key: &MasterKey, entropy: Arc<dyn Entropy>) -> Self {
        Self { name: name.into(), number: key.number(), cipher: key.cipher(entropy) }
    }
}

#[async_trait]
impl Wrapper for LocalMaster {
    fn number(&self) -> u32 {
        self.number
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_external(&self) -> bool {
        false
    }

    async fn check(&self) -> Result<(), KeysError> {
        Ok(())
    }

    async fn wrap(&self, place: &[u8], secret: &[u8]) -> Result<Bytes, KeysError> {
        Ok(self.cipher.seal(place, secret).into_bytes())
    }

    async fn open(&self, place: &[u8], wrapped: &Bytes) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        self.cipher.open(place, &Sealed::from_bytes(wrapped.clone())).map(Zeroizing::new)
    }

    async fn renew(&self, _: &[u8], _: &Bytes) -> Result<Option<Bytes>, KeysError> {
        Ok(None)
    }

    fn version(&self, _: &[u8]) -> Option<u32> {
        None
    }

    async fn new_version(&self) -> Result<(), KeysError> {
        let detail = format!(
            "{} has one version; make another key with `heddle keys new FILE`, set keys.master to it and name this \
             one in keys.former",
            self.name
        );
        Err(KeysError::Master { detail })
    }
}
