//! Something kept for each of many keys, such as an access token, and waited for in turn.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heddle_schemas::ports::calendar::CalendarError;
use lru::LruCache;
use sha2::{Digest as _, Sha256};

use super::failure::unavailable;

/// Maximum number of keys; the value of a dropped key is created again.
const KEYS: NonZeroUsize = const { NonZeroUsize::new(4_096).unwrap() };

/// Values, by key.
pub(super) struct Lines<T> {
    known: Mutex<LruCache<[u8; 32], Arc<tokio::sync::Mutex<T>>>>,
    /// Time that a turn is waited for.
    patience: Duration,
}

impl<T: Default> Lines<T> {
    pub(super) fn new(patience: Duration) -> Self {
        Self { known: Mutex::new(LruCache::new(KEYS)), patience }
    }

    /// Waits for the value of a key, which is the hash of these parts: they may be secrets.
    pub(super) async fn turn(&self, key: &[&str]) -> Result<tokio::sync::OwnedMutexGuard<T>, CalendarError> {
        let mut hash = Sha256::new();
        for part in key {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let line = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get_or_insert(hash.finalize().into(), Arc::default).clone()
        };
        tokio::time::timeout(self.patience, line.lock_owned())
            .await
            .map_err(|_| unavailable("others wait for the calendar as well", None))
    }
}
