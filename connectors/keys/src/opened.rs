//! Tenants' keys that an external service opened, held for as long as their rows are unchanged.
//!
//! A row is read again as often as without this cache, so an erasure is noticed as soon; but the plaintext of an
//! unchanged row is known, and requesting it again would make every minute of every tenant depend on the
//! service. A background check asks at intervals whether the key would still open: if the service does
//! not answer, nothing changes; if it refuses, the use of the key ends.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::keys::KeysError;
use lru::LruCache;

use super::derive::Clear;
use super::envelope::clear;
use super::wrapper::Wrapper;

/// Pause before a service that did not answer is asked again.
const AFTER_SILENCE: Duration = Duration::from_secs(60);

struct Held {
    row: Bytes,
    key: Clear,
    /// Time of the next check whether the key may still be used.
    ask_at: Duration,
}

pub(super) struct Opened {
    held: Mutex<LruCache<TenantId, Held>>,
    ask_again: Duration,
}

/// A wrapped key of a tenant, and its wrapper.
pub(super) struct Wrapped {
    pub(super) tenant: TenantId,
    pub(super) place: Vec<u8>,
    pub(super) row: Bytes,
    pub(super) by: Arc<dyn Wrapper>,
}

impl Opened {
    pub(super) fn new(entries: NonZeroUsize, ask_again: Duration) -> Arc<Self> {
        Arc::new(Self { held: Mutex::new(LruCache::new(entries)), ask_again })
    }

    /// The key in a row.
    pub(super) async fn open(self: &Arc<Self>, wrapped: Wrapped, now: Duration) -> Result<Clear, KeysError> {
        if let Some((key, is_due)) = self.get(&wrapped, now) {
            if is_due {
                let this = self.clone();
                tokio::spawn(async move { this.ask(wrapped, now).await });
            }
            return Ok(key);
        }
        let Wrapped { tenant, place, row, by } = wrapped;
        let key = clear(&by.open(&place, &row).await?)?;
        let held = Held { row, key: key.clone(), ask_at: now + self.ask_again };
        self.lock().put(tenant, held);
        Ok(key)
    }

    pub(super) fn forget(&self, tenant: &TenantId) {
        self.lock().pop(tenant);
    }

    /// Returns the key held for a row, and true if the service is due to be asked; the next check is scheduled in the
    /// same step, so that only one caller asks.
    fn get(&self, wrapped: &Wrapped, now: Duration) -> Option<(Clear, bool)> {
        let mut held = self.lock();
        let held = held.get_mut(&wrapped.tenant).filter(|held| held.row == wrapped.row)?;
        let is_due = now >= held.ask_at;
        if is_due {
            held.ask_at = now + self.ask_again;
        }
        Some((held.key.clone(), is_due))
    }

    async fn ask(&self, wrapped: Wrapped, now: Duration) {
        let Wrapped { tenant, place, row, by } = wrapped;
        let Err(error) = by.open(&place, &row).await else { return };
        let mut all = self.lock();
        let Some(held) = all.peek_mut(&tenant).filter(|held| held.row == row) else { return };
        if let KeysError::Store(error) = error {
            tracing::warn!(%tenant, %error, "the tenant's key could not be checked; using it as opened before");
            held.ask_at = now + AFTER_SILENCE.min(self.ask_again);
        } else {
            tracing::error!(%tenant, %error, "the tenant's key is refused and no longer used");
            all.pop(&tenant);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<TenantId, Held>> {
        // Every change under the lock is complete, so a lock that a panic elsewhere poisoned is safe to use.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
