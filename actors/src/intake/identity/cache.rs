//! Recent answers of the alias table.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::time::Timestamp;
use lru::LruCache;

use super::Person;
use super::decide::Met;

/// Time for which an answer is taken from the cache.
const CACHED_FOR: Duration = Duration::from_secs(60);
/// Number of answers in the cache.
const CACHED: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

/// Answer about one id.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The contact, which leads nowhere.
    pub(super) contact: ContactId,
    pub(super) also: Vec<ContactId>,
    /// The answer is about messages that were sent then or later.
    pub(super) since: Timestamp,
}

/// Answers, each until its time is over.
pub(super) struct Cache {
    clock: Arc<dyn Clock>,
    entries: Mutex<LruCache<(TenantId, MessageKey), (Entry, Duration)>>,
}

impl Cache {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, entries: Mutex::new(LruCache::new(CACHED)) }
    }

    /// The person of these ids, where all are known to be the same one's.
    pub(super) fn get(&self, tenant: &TenantId, met: &[Met], at: Timestamp) -> Option<Person> {
        let now = self.clock.elapsed();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut person: Option<Person> = None;
        for met in met {
            let (Entry { contact, also, since }, until) = entries.get(&(tenant.clone(), met.alias))?;
            if now >= *until || at < *since || person.as_ref().is_some_and(|other| other.contact != *contact)
            {
                return None;
            }
            person.get_or_insert_with(|| Person { contact: *contact, also: also.clone() });
        }
        person
    }

    pub(super) fn put(&self, tenant: &TenantId, alias: MessageKey, entry: Entry) {
        let until = self.clock.elapsed() + CACHED_FOR;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.put((tenant.clone(), alias), (entry, until));
    }

    /// Drops what is known of these ids.
    pub(super) fn forget(&self, tenant: &TenantId, aliases: impl IntoIterator<Item = MessageKey>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for alias in aliases {
            entries.pop(&(tenant.clone(), alias));
        }
    }
}
