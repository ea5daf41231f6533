//! Opened keys, kept for a short time and in bounded number.
//!
//! An erasure must reach every cipher in use, and must not be undone by a load that began before it.
//! So all ciphers of an owner share a flag for as long as one of them exists, and a load is cached only
//! if no erasure came since it began; otherwise the loader reads the row again.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use heddle_schemas::id::TenantId;
use lru::LruCache;

use super::cipher::{AesCipher, Erased, Owner, TenantKeys};

/// Content of a cache entry.
#[derive(Clone)]
pub(super) enum Cached {
    Tenant(Arc<TenantKeys>),
    Cipher(Arc<AesCipher>),
}

struct Entry {
    cached: Cached,
    until: Duration,
}

struct Content {
    entries: LruCache<Owner, Entry>,
    /// The flag of every owner of which a cipher is alive, here or with a caller.
    flags: HashMap<Owner, Weak<AtomicBool>>,
    /// Number of flags at which unused ones are swept.
    sweep_at: usize,
    erasures: u64,
}

/// A load under way.
pub(super) struct Loading {
    pub(super) erased: Erased,
    erasures: u64,
}

pub(super) struct Cache {
    content: Mutex<Content>,
    keep: Duration,
}

/// Flags are swept when their number has doubled since, which costs each one little.
const SWEEP_AT_LEAST: usize = 1024;

/// Unused entries past their time that leave with each one that comes.
const EXPIRED_AT_ONCE: usize = 4;

impl Cache {
    pub(super) fn new(entries: NonZeroUsize, keep: Duration) -> Self {
        let content = Content {
            entries: LruCache::new(entries),
            flags: HashMap::new(),
            sweep_at: SWEEP_AT_LEAST,
            erasures: 0,
        };
        Self { content: Mutex::new(content), keep }
    }

    /// Returns the entry of `owner`, unless it has expired.
    pub(super) fn get(&self, owner: &Owner, now: Duration) -> Option<Cached> {
        let mut content = self.lock();
        let entry = content.entries.get(owner)?;
        if now < entry.until {
            return Some(entry.cached.clone());
        }
        content.entries.pop(owner);
        None
    }

    /// Begins a load, before the store is read.
    pub(super) fn begin(&self, owner: &Owner) -> Loading {
        let mut content = self.lock();
        let erasures = content.erasures;
        let erased = content.flag(owner);
        Loading { erased, erasures }
    }

    /// Caches a loaded key. Returns false, and caches nothing, if an erasure came in between.
    pub(super) fn insert(&self, owner: Owner, cached: Cached, loading: &Loading, now: Duration) -> bool {
        let mut content = self.lock();
        if content.erasures != loading.erasures {
            return false;
        }
        content.drop_expired(now);
        content.entries.put(owner, Entry { cached, until: now + self.keep });
        true
    }

    /// Returns true if no erasure came since a load began.
    pub(super) fn is_current(&self, loading: &Loading) -> bool {
        self.lock().erasures == loading.erasures
    }

    /// Drops the entry of an owner whose row may have changed.
    pub(super) fn forget(&self, owner: &Owner) {
        let mut content = self.lock();
        content.erasures += 1;
        content.entries.pop(owner);
    }

    /// Drops the entry of an owner and disables every cipher of it.
    pub(super) fn erase(&self, owner: &Owner) {
        self.lock().erase(std::slice::from_ref(owner));
    }

    /// Drops all entries of a tenant and disables every cipher of it.
    pub(super) fn erase_tenant(&self, tenant: &TenantId) {
        let mut content = self.lock();
        let owners: Vec<_> =
            content.flags.keys().filter(|owner| owner.tenant() == Some(tenant)).cloned().collect();
        content.erase(&owners);
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // Every change under the lock is complete, so a lock that a panic elsewhere poisoned is safe to use.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn flag(&mut self, owner: &Owner) -> Erased {
        if let Some(flag) = self.flags.get(owner).and_then(Weak::upgrade) {
            return flag;
        }
        if self.flags.len() >= self.sweep_at {
            self.flags.retain(|_, flag| flag.strong_count() > 0);
            self.sweep_at = SWEEP_AT_LEAST.max(2 * self.flags.len());
        }
        let flag = Erased::default();
        self.flags.insert(owner.clone(), Arc::downgrade(&flag));
        flag
    }

    /// Entries have the same lifetime and are ordered by their last use, so expired entries that were not
    /// used for that long are at the end.
    fn drop_expired(&mut self, now: Duration) {
        for _ in 0..EXPIRED_AT_ONCE {
            match self.entries.peek_lru() {
                Some((_, entry)) if entry.until <= now => self.entries.pop_lru(),
                _ => return,
            };
        }
    }

    fn erase(&mut self, owners: &[Owner]) {
        self.erasures += 1;
        for owner in owners {
            self.entries.pop(owner);
            if let Some(flag) = self.flags.remove(owner).and_then(|flag| flag.upgrade()) {
                flag.store(true, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive::Clear;
    use crate::entropy::SystemEntropy;

    const KEEP: Duration = Duration::from_secs(60);

    fn tenant(name: &str) -> Owner {
        Owner::Tenant(name.parse().unwrap())
    }

    fn cache(entries: usize) -> Cache {
        Cache::new(NonZeroUsize::new(entries).unwrap(), KEEP)
    }

    fn load(cache: &Cache, owner: &Owner, now: Duration) {
        let loading = cache.begin(owner);
        assert!(cache.insert(owner.clone(), cipher(owner, &loading), &loading, now));
    }

    fn cipher(owner: &Owner, loading: &Loading) -> Cached {
        let (owner, erased) = (owner.clone(), loading.erased.clone());
        Cached::Cipher(Arc::new(AesCipher::new(&Clear::default(), 1, owner, erased, Arc::new(SystemEntropy))))
    }

    #[test]
    fn an_entry_ends_with_its_time_however_often_it_is_used() {
        let (cache, owner) = (cache(8), tenant("a"));
        load(&cache, &owner, Duration::ZERO);
        for at in [0, 30, 59] {
            assert!(cache.get(&owner, Duration::from_secs(at)).is_some());
        }
        assert!(cache.get(&owner, KEEP).is_none());
    }

    #[test]
    fn a_load_that_began_before_an_erasure_is_not_kept() {
        let (cache, owner) = (cache(8), tenant("a"));
        let loading = cache.begin(&owner);
        cache.erase(&owner);
        assert!(!cache.insert(owner.clone(), cipher(&owner, &loading), &loading, Duration::ZERO));
        assert!(loading.erased.load(Ordering::Acquire), "and what was loaded is off");
        assert!(cache.get(&owner, Duration::ZERO).is_none());
    }

    #[test]
    fn the_cache_is_bounded_and_keys_past_their_time_leave() {
        let cache = cache(3);
        for name in ["a", "b", "c", "d"] {
            load(&cache, &tenant(name), Duration::ZERO);
        }
        assert_eq!(cache.lock().entries.len(), 3);
        assert!(cache.get(&tenant("a"), Duration::ZERO).is_none(), "the least recently used one left");
        load(&cache, &tenant("e"), KEEP);
        assert_eq!(cache.lock().entries.len(), 1);
    }

    #[test]
    fn unused_flags_are_swept() {
        let cache = cache(1);
        for number in 0..10 * SWEEP_AT_LEAST {
            load(&cache, &tenant(&format!("t{number}")), Duration::ZERO);
        }
        assert!(cache.lock().flags.len() <= SWEEP_AT_LEAST);
    }

    #[test]
    fn erasing_a_tenant_reaches_all_of_its_keys_and_no_other() {
        let cache = cache(8);
        let [a, b]: [TenantId; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let owners = [Owner::Tenant(a.clone()), Owner::Log(a.clone(), heddle_schemas::time::Day(1))];
        let other = Owner::Tenant(b);
        let flags: Vec<_> = owners.iter().map(|owner| cache.begin(owner).erased).collect();
        let kept = cache.begin(&other).erased;
        load(&cache, &other, Duration::ZERO);
        cache.erase_tenant(&a);
        assert!(flags.iter().all(|flag| flag.load(Ordering::Acquire)));
        assert!(!kept.load(Ordering::Acquire) && cache.get(&other, Duration::ZERO).is_some());
    }
}
