//! Tenants' keys that an external service opened, held for as long as their rows stay as they are.
//!
//! A row is read again as often as ever, so an erasure is seen as soon as ever; but what a row of the same
//! bytes holds is known, and asking for it again would make every minute of every tenant depend on the
//! service. Whether it would still open is asked in the background, every now and then: a service that does
//! not answer changes nothing, one that refuses ends the use of the key.

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

/// After a service that did not answer, it is asked again in so long.
const AFTER_SILENCE: Duration = Duration::from_secs(60);

struct Held {
    row: Bytes,
    key: Clear,
    /// When the service is to be asked whether the key may still be used.
    ask_at: Duration,
}

pub(super) struct Opened {
    held: Mutex<LruCache<TenantId, Held>>,
    ask_again: Duration,
}

/// A wrapped key of a tenant, and who opens it.
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

    /// What is held of a row, and whether the service is to be asked; the next time is set with it, so that
    /// one asks.
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
            tracing::warn!(%tenant, %error, "the tenant's key is used on as it was opened before");
            held.ask_at = now + AFTER_SILENCE.min(self.ask_again);
        } else {
            tracing::error!(%tenant, %error, "the tenant's key is not used any more");
            all.pop(&tenant);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<TenantId, Held>> {
        // Every change under the lock is whole, whatever panicked beside it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
