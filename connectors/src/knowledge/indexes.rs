//! The open indexes, one a tenant.
//!
//! An index is loaded by the first caller that needs it; concurrent callers wait for the same load, and
//! callers of other indexes do not wait. Over the limits of number and memory, the least recently used are
//! dropped: a search in progress keeps its own until it ends.
//!
//! An index records its version of the documents, and its language. It serves a search of
//! this language if that is the version which the search read, or if its load began after the search did.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heddle_schemas::id::TenantId;
use heddle_schemas::language::Language;
use heddle_schemas::ports::knowledge::KnowledgeError;
use lru::LruCache;
use tokio::sync::OnceCell;

use super::index::Index;
use super::rows::Version;

/// An index with the version and the language that it holds.
pub(super) struct Loaded {
    pub(super) index: Arc<Index>,
    bytes: AtomicUsize,
    holds: Mutex<Holds>,
}

struct Holds {
    version: Option<Version>,
    /// A version that it holds too, should it become the next.
    next: Option<Version>,
}

impl Loaded {
    /// An index of the store's content when `version` had been read, or later.
    pub(super) fn new(index: Arc<Index>, version: Option<Version>) -> Self {
        let bytes = AtomicUsize::new(index.bytes());
        Self { index, bytes, holds: Mutex::new(Holds { version, next: None }) }
    }

    fn holds(&self, version: &Version) -> bool {
        let holds = self.lock();
        holds.version.as_ref() == Some(version) || holds.next.as_ref() == Some(version)
    }

    fn lock(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One load of one tenant's index.
struct Slot {
    born: u64,
    loaded: OnceCell<Loaded>,
}

/// The open indexes.
pub(super) struct Indexes {
    slots: Mutex<LruCache<TenantId, Arc<Slot>>>,
    births: AtomicU64,
    max_open: NonZeroUsize,
    max_bytes: usize,
}

/// A point in time, to decide if a load began after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(u64);

impl Indexes {
    pub(super) fn new(max_open: NonZeroUsize, max_bytes: usize) -> Self {
        let (slots, births) = (Mutex::new(LruCache::unbounded()), AtomicU64::new(0));
        Self { slots, births, max_open, max_bytes }
    }

    /// Now; taken before the version is read.
    pub(super) fn now(&self) -> Moment {
        Moment(self.births.load(Ordering::SeqCst))
    }

    /// Returns an index in this language that holds `version`, which was read after `since`, or a later one.
    pub(super) async fn at<F: Future<Output = Result<Loaded, KnowledgeError>>>(
        &self,
        tenant: &TenantId,
        language: Language,
        since: Moment,
        version: &Version,
        load: impl Fn() -> F,
    ) -> Result<Arc<Index>, KnowledgeError> {
        loop {
            let slot = self.slot(tenant);
            let mut loads = false;
            let loaded = slot.loaded.get_or_try_init(|| {
                loads = true;
                load()
            });
            // A failed load is not open; its waiters load again by the same slot.
            let loaded = loaded.await.inspect_err(|_| self.forget(tenant, &slot))?;
            if loads {
                self.close_least_used();
            }
            let is_current = slot.born >= since.0 || loaded.holds(version);
            if is_current && loaded.index.language() == language {
                return Ok(loaded.index.clone());
            }
            self.forget(tenant, &slot);
        }
    }

    /// Begins a change: unless it is finished, the tenant's index is closed when this is dropped.
    pub(super) fn change<'a>(&'a self, tenant: &'a TenantId) -> Changing<'a> {
        let slot = self.lock().peek(tenant).cloned();
        Changing { indexes: self, tenant, slot, finished: false }
    }

    /// Closes a tenant's index.
    pub(super) fn close(&self, tenant: &TenantId) {
        let closed = self.lock().pop(tenant);
        drop(closed);
    }

    /// Returns the number of indexes that are open or loading.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn slot(&self, tenant: &TenantId) -> Arc<Slot> {
        let born = || Slot { born: self.births.fetch_add(1, Ordering::SeqCst), loaded: OnceCell::new() };
        self.lock().get_or_insert(tenant.clone(), || Arc::new(born())).clone()
    }

    fn forget(&self, tenant: &TenantId, slot: &Arc<Slot>) {
        let mut slots = self.lock();
        if slots.peek(tenant).is_some_and(|open| Arc::ptr_eq(open, slot)) {
            slots.pop(tenant);
        }
    }

    fn close_least_used(&self) {
        let mut closed = Vec::new();
        let mut slots = self.lock();
        let bytes =
            |slot: &Arc<Slot>| slot.loaded.get().map_or(0, |loaded| loaded.bytes.load(Ordering::Relaxed));
        let mut total: usize = slots.iter().map(|(_, slot)| bytes(slot)).sum();
        // The one used last stays, however large: its search is under way.
        while slots.len() > 1 && (slots.len() > self.max_open.get() || total > self.max_bytes) {
            let Some((_, slot)) = slots.pop_lru() else { break };
            // A change under way may have made it larger since.
            total = total.saturating_sub(bytes(&slot));
            closed.push(slot);
        }
        drop(slots);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<TenantId, Arc<Slot>>> {
        // Every change under the lock is complete, so a lock that a panic elsewhere poisoned is safe to use.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of a tenant's documents in progress.
///
/// The rows are written, then the open index is changed, then the version. A failure or cancellation
/// in between closes the index, so that the next search loads what the store holds.
pub(super) struct Changing<'a> {
    indexes: &'a Indexes,
    tenant: &'a TenantId,
    slot: Option<Arc<Slot>>,
    finished: bool,
}

impl Changing<'_> {
    /// The open index, if it holds the version that the change began with.
    pub(super) fn open(&self, before: Option<&Version>) -> Option<Arc<Index>> {
        let loaded = self.loaded()?;
        (loaded.lock().version.as_ref() == before).then(|| loaded.index.clone())
    }

    /// Says that the open index holds `version` too, which is about to be written.
    pub(super) fn expect(&self, version: Version) {
        if let Some(loaded) = self.loaded() {
            loaded.lock().next = Some(version);
            loaded.bytes.store(loaded.index.bytes(), Ordering::Relaxed);
        }
    }

    /// Says that the open index holds `version`, and this alone.
    pub(super) fn finish(mut self, version: Version) {
        if let Some(loaded) = self.loaded() {
            *loaded.lock() = Holds { version: Some(version), next: None };
        }
        self.finished = true;
        self.indexes.close_least_used();
    }

    fn loaded(&self) -> Option<&Loaded> {
        self.slot.as_ref()?.loaded.get()
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.indexes.close(self.tenant);
        }
    }
}
