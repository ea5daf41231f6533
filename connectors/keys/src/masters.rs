//! Known master keys: the present one wraps, the previous ones open what is not yet rewrapped.

use std::sync::Arc;

use bytes::Bytes;
use heddle_schemas::ports::keys::KeysError;

use super::entropy::Entropy;
use super::local::LocalMaster;
use super::master::MasterKey;
use super::wrapper::{EXTERNAL, Wrapper, number_of};

/// Known master keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Masters {
    present: Arc<dyn Wrapper>,
    previous: Vec<Arc<dyn Wrapper>>,
}

impl Masters {
    /// Creates the set: `present` wraps from now on, all of them open.
    ///
    /// # Errors
    /// [`KeysError::Master`] if two of them are the same key.
    pub fn new(present: Arc<dyn Wrapper>, previous: Vec<Arc<dyn Wrapper>>) -> Result<Self, KeysError> {
        let this = Self { present, previous };
        let all: Vec<_> = this.all().collect();
        for (i, one) in all.iter().enumerate() {
            if let Some(same) = all[..i].iter().find(|before| before.number() == one.number()) {
                let detail = format!(
                    "{} and {} are the same master key; leave one of them out of keys.former",
                    same.name(),
                    one.name()
                );
                return Err(KeysError::Master { detail });
            }
        }
        Ok(this)
    }

    /// Creates a set of one local key.
    #[must_use]
    pub fn local(key: &MasterKey, entropy: Arc<dyn Entropy>) -> Self {
        Self { present: Arc::new(LocalMaster::new("keys.master", key, entropy)), previous: Vec::new() }
    }

    /// The one that wraps.
    #[must_use]
    pub fn present(&self) -> &Arc<dyn Wrapper> {
        &self.present
    }

    /// Every one, the present one first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Wrapper>> {
        std::iter::once(&self.present).chain(&self.previous)
    }

    /// The one of this number.
    #[must_use]
    pub fn known(&self, number: u32) -> Option<&Arc<dyn Wrapper>> {
        self.all().find(|one| one.number() == number)
    }

    /// Returns the key that wrapped a stored value.
    ///
    /// # Errors
    /// [`KeysError::Master`] if it is none of them, [`KeysError::Unreadable`] if the value does not name a key.
    pub(super) fn of(&self, stored: &Bytes) -> Result<&Arc<dyn Wrapper>, KeysError> {
        let Some(number) = number_of(stored) else {
            let detail = "a wrapped key is cut short, or of a version this build does not know".into();
            return Err(KeysError::Unreadable { detail });
        };
        self.known(number).ok_or_else(|| self.unknown(number, stored.first() == Some(&EXTERNAL)))
    }

    fn unknown(&self, number: u32, is_external: bool) -> KeysError {
        let known: Vec<_> = self.all().map(|one| format!("{:08x} ({})", one.number(), one.name())).collect();
        let kind = if is_external { "Vault's key" } else { "master key" };
        let detail = format!(
            "stored keys were wrapped by {kind} {number:08x}, and known here is {}; set keys.master to where \
             {number:08x} is kept, or name it in keys.former: without it they cannot be read",
            known.join(", ")
        );
        KeysError::Master { detail }
    }
}
