//! The knowledge port: documents sealed in the state store, indexes in memory.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use async_trait::async_trait;
use heddle_schemas::id::TenantId;
use heddle_schemas::language::Language;
use heddle_schemas::ports::keys::{Keys, KeysError};
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Knowledge, KnowledgeError, Passage};
use heddle_schemas::ports::state::State;
use heddle_schemas::table::Key;
use heddle_schemas::tenant::KnowledgeBase;
use lru::LruCache;
use tokio::sync::Semaphore;

use super::document::{self, MAX_PASSAGES};
use super::index::{Change, Index, Prepared};
use super::indexes::{Indexes, Loaded};
use super::passages;
use super::pool::Pool;
use super::rows::{PAGE, Rows, SLICE, Stored, Version, failed, slices};

/// Number of open indexes, and limits of concurrent work.
#[derive(Debug, Clone)]
pub struct Options {
    /// Indexes that stay open; over it, the least recently used close. Default: 256.
    pub open_indexes: NonZeroUsize,
    /// Bytes of memory that open indexes take together; over it, the least recently used close, but
    /// never the last: a single larger one is served. Default: 256 MiB.
    pub open_bytes: usize,
    /// Searches that run at once, each on a thread of its own. Default: the machine's processors.
    pub searches: NonZeroUsize,
    /// Indexes that are loaded at once; each holds its tenant's documents in memory meanwhile, and
    /// waits for the store for a part of its time. Default: 16.
    pub loading: NonZeroUsize,
    /// Documents that are opened, cut or indexed at once, each on a thread of its own and apart from
    /// the searches, so that one tenant's load never holds up another's search. Default: the
    /// machine's processors.
    pub loads: NonZeroUsize,
    /// Bytes of text that are indexed before others' work has its turn. Default: 512 KiB.
    pub slice: usize,
    /// The language of each tenant. Default: English for all.
    pub languages: Languages,
    /// The bound of each tenant's documents. Default: 2,000 documents and 64 MiB for all.
    pub bounds: Bounds,
}

/// Bound of a tenant's documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Documents.
    pub documents: u64,
    /// Bytes of their texts together.
    pub bytes: u64,
}

/// Lookup of the bound of a tenant's documents; called at each change.
#[derive(Clone)]
pub struct Bounds(Arc<dyn Fn(&TenantId) -> Bound + Send + Sync>);

impl Bounds {
    /// As this says.
    #[must_use]
    pub fn new(of: impl Fn(&TenantId) -> Bound + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }
}

impl Default for Bounds {
    fn default() -> Self {
        let KnowledgeBase { max_documents, max_bytes, .. } = KnowledgeBase::default();
        Self::new(move |_| Bound { documents: max_documents.get().into(), bytes: max_bytes.get() })
    }
}

impl fmt::Debug for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounds").finish_non_exhaustive()
    }
}

/// Lookup of the language in which a tenant's documents are searched; called at each search.
#[derive(Clone)]
pub struct Languages(Arc<dyn Fn(&TenantId) -> Language + Send + Sync>);

impl Languages {
    /// As this says.
    #[must_use]
    pub fn new(of: impl Fn(&TenantId) -> Language + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }
}

impl Default for Languages {
    fn default() -> Self {
        Self::new(|_| Language::default())
    }
}

impl fmt::Debug for Languages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Languages").finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        let processors = available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            open_indexes: const { NonZeroUsize::new(256).unwrap() },
            open_bytes: 256 << 20,
            searches: processors,
            loading: const { NonZeroUsize::new(16).unwrap() },
            loads: processors,
            slice: SLICE,
            languages: Languages::default(),
            bounds: Bounds::default(),
        }
    }
}

/// The knowledge of all tenants.
pub struct TantivyKnowledge {
    rows: Rows,
    indexes: Indexes,
    searches: Pool,
    loading: Semaphore,
    loads: Pool,
    languages: Languages,
    slice: usize,
    bounds: Bounds,
    /// Sizes of the documents of the tenants that were changed last here.
    sizes: Mutex<LruCache<TenantId, (Version, Sizes)>>,
}

/// Bytes of the text of each document.
type Sizes = HashMap<String, u64>;

/// Tenants whose documents' sizes are remembered.
const SIZES: NonZeroUsize = NonZeroUsize::new(64).unwrap();

impl TantivyKnowledge {
    /// Creates the port over documents in `state`, sealed under `keys`. Opens no index yet.
    #[must_use]
    pub fn new(state: Arc<dyn State>, keys: Arc<dyn Keys>, options: &Options) -> Self {
        let loads = Pool::new(options.loads);
        Self {
            rows: Rows::new(state, keys, loads.clone()),
            indexes: Indexes::new(options.open_indexes, options.open_bytes),
            searches: Pool::new(options.searches),
            loading: Semaphore::new(options.loading.get()),
            loads,
            languages: options.languages.clone(),
            slice: options.slice,
            bounds: options.bounds.clone(),
            sizes: Mutex::new(LruCache::new(SIZES)),
        }
    }

    /// The sizes of a tenant's documents; read where another node has changed them.
    async fn sizes(&self, tenant: &TenantId) -> Result<Sizes, KnowledgeError> {
        let Some(version) = self.rows.version(tenant).await? else { return Ok(Sizes::new()) };
        let known = self.lock().get(tenant).filter(|(of, _)| *of == version).map(|(_, sizes)| sizes.clone());
        if let Some(sizes) = known {
            return Ok(sizes);
        }
        let documents = self.list(tenant).await?;
        Ok(documents.into_iter().map(|document| (document.id, document.bytes)).collect())
    }

    /// Adds a document to the sizes.
    ///
    /// # Errors
    /// [`KnowledgeError::Refused`] where the tenant would have more than its bound.
    fn sized(&self, tenant: &TenantId, mut sizes: Sizes, added: &Stored) -> Result<Sizes, KnowledgeError> {
        let Bound { documents, bytes } = (self.bounds.0)(tenant);
        let sum = |sizes: &Sizes| sizes.values().sum::<u64>();
        let (count, before) = (sizes.len(), sum(&sizes));
        let Document { id, text, .. } = &added.document;
        sizes.insert(id.clone(), text.len() as u64);
        let after = sum(&sizes);
        // A bound that was lowered forbids growth, and no change that makes less.
        let why = if sizes.len() as u64 > documents && sizes.len() > count {
            format!("the tenant has {count} documents, of {documents} that knowledge.max_documents allows")
        } else if after > bytes && after > before {
            format!("the tenant would have {after} bytes of text, of {bytes} that knowledge.max_bytes allows")
        } else {
            return Ok(sizes);
        };
        Err(document::refused(id, why))
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<TenantId, (Version, Sizes)>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of indexes that are open or being loaded.
    #[must_use]
    pub fn open_indexes(&self) -> usize {
        self.indexes.len()
    }

    async fn load(&self, tenant: &TenantId, language: Language) -> Result<Loaded, KnowledgeError> {
        let _place = self.loading.acquire().await.map_err(|error| failed(tenant, error.to_string()))?;
        let version = self.rows.version(tenant).await?;
        let index = Index::empty(language).map_err(|error| failed(tenant, error.to_string()))?;
        let (index, mut after) = (Arc::new(index), None);
        let mut next = Vec::new();
        loop {
            let (page, last) = self.rows.page(tenant, after.as_ref(), PAGE, prepared).await?;
            next.extend(page);
            // Only whole slices, so that few documents are one; the last one, of whatever size, at the end.
            let mut slices = slices(std::mem::take(&mut next), self.slice, Prepared::bytes);
            if last.is_some() {
                next = slices.pop().unwrap_or_default();
            }
            for slice in slices {
                let index = index.clone();
                let extended = self.loads.run(move || index.extend(&slice)).await;
                let extended = extended.map_err(|detail| failed(tenant, detail))?;
                extended.map_err(|error| failed(tenant, error.to_string()))?;
            }
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        tracing::debug!(%tenant, passages = index.passages(), bytes = index.bytes(), "index loaded");
        Ok(Loaded::new(index, version))
    }

    /// Makes a change whose rows are written by `write`, which returns bytes that identify it. Returns the new version, where
    /// it directly follows the one before.
    async fn change(
        &self,
        tenant: &TenantId,
        change: Change,
        write: impl Future<Output = Result<Vec<u8>, KnowledgeError>> + Send,
    ) -> Result<Option<Version>, KnowledgeError> {
        let changing = self.indexes.change(tenant);
        let before = self.rows.version(tenant).await?;
        let salt = write.await?;
        let open = changing.open(before.as_ref());
        if let Some(index) = open.clone() {
            let applied = self.loads.run(move || index.apply(&change)).await;
            let applied = applied.map_err(|detail| failed(tenant, detail))?;
            applied.map_err(|error| failed(tenant, error.to_string()))?;
            changing.expect(Rows::next(before.as_ref(), &salt));
        }
        let bumped = self.rows.bump(tenant, before, &salt).await?;
        // Another's change came in between: the index may lack it, so it is loaded anew.
        if open.is_some() && bumped.alone {
            changing.finish(bumped.version.clone());
        }
        Ok(bumped.alone.then_some(bumped.version))
    }
}

#[async_trait]
impl Knowledge for TantivyKnowledge {
    async fn put(&self, tenant: &TenantId, document: Document) -> Result<DocumentSummary, KnowledgeError> {
        document::check(&document)?;
        let cut = self.loads.run(move || cut(document)).await.map_err(|detail| failed(tenant, detail))?;
        let (stored, prepared) = cut?;
        let sizes = self.sizes(tenant).await?;
        let sizes = self.sized(tenant, sizes, &stored)?;
        let summary = stored.summary();
        let write = self.rows.put(tenant, stored);
        if let Some(version) = self.change(tenant, Change::Put(prepared), write).await? {
            self.lock().put(tenant.clone(), (version, sizes));
        }
        Ok(summary)
    }

    async fn remove(&self, tenant: &TenantId, document: &str) -> Result<(), KnowledgeError> {
        // Without an id it would be the version's row.
        if document.is_empty() || !self.rows.exists(tenant, document).await? {
            return Err(KnowledgeError::Unknown { document: document.into() });
        }
        let write = async { Ok(self.rows.remove(tenant, document).await?) };
        self.change(tenant, Change::Remove(document.into()), write).await.map(drop)
    }

    async fn list(&self, tenant: &TenantId) -> Result<Vec<DocumentSummary>, KnowledgeError> {
        let (mut documents, mut after) = (Vec::new(), None);
        loop {
            let (page, last) =
                self.rows.page(tenant, after.as_ref(), PAGE, |stored| stored.summary()).await?;
            documents.extend(page);
            match last {
                Some(last) => after = Some(last),
                None => return Ok(documents),
            }
        }
    }

    async fn documents(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Document>, KnowledgeError> {
        let after = after.map(|after| Key::document(tenant, after));
        let (documents, _) = self.rows.page(tenant, after.as_ref(), limit, |stored| stored.document).await?;
        Ok(documents)
    }

    async fn search(
        &self,
        tenant: &TenantId,
        query: &str,
        limit: usize,
    ) -> Result<Vec<Passage>, KnowledgeError> {
        let since = self.indexes.now();
        let Some(version) = self.rows.version(tenant).await? else {
            self.indexes.close(tenant);
            return Ok(Vec::new());
        };
        if let Err(error) = self.rows.cipher(tenant).await {
            // Documents sealed by an erased key must not be read from memory either.
            if matches!(error, KnowledgeError::Keys(KeysError::Gone { .. })) {
                self.indexes.close(tenant);
            }
            return Err(error);
        }
        let language = (self.languages.0)(tenant);
        let load = || self.load(tenant, language);
        let index = self.indexes.at(tenant, language, since, &version, load).await?;
        let query = query.to_owned();
        let found = self.searches.run(move || index.search(&query, limit)).await;
        let found = found.map_err(|detail| failed(tenant, detail))?;
        found.map_err(|error| failed(tenant, error.to_string()))
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), KnowledgeError> {
        // Closed first, so that no search reads from it while the rows are deleted, and again after: a search
        // may have loaded rows that were still there.
        self.indexes.close(tenant);
        let erased = self.rows.erase(tenant).await;
        self.indexes.close(tenant);
        Ok(erased?)
    }
}

impl fmt::Debug for TantivyKnowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TantivyKnowledge").field("open_indexes", &self.open_indexes()).finish_non_exhaustive()
    }
}

/// The passages that a document is searched by, as they would be found; their score is 0.
///
/// # Errors
/// [`KnowledgeError::Refused`], as [`Knowledge::put`].
pub fn passages_of(document: Document) -> Result<Vec<Passage>, KnowledgeError> {
    document::check(&document)?;
    let (stored, prepared) = cut(document)?;
    let Document { id, title, .. } = stored.document;
    let passage = |passages::Cut { headings, text }| Passage {
        document: id.clone(),
        title: title.clone(),
        headings,
        text,
        score: 0.0,
    };
    Ok(prepared.cuts.into_iter().map(passage).collect())
}

fn cut(document: Document) -> Result<(Stored, Prepared), KnowledgeError> {
    let cuts = passages::cut(document.format, &document.text);
    if cuts.is_empty() {
        let why = "it has no passage: only headings, HTML or signs";
        return Err(document::refused(&document.id, why));
    }
    if cuts.len() > MAX_PASSAGES {
        let why = format!("it has more than {MAX_PASSAGES} passages; cut it into several documents");
        return Err(document::refused(&document.id, why));
    }
    let prepared = Prepared { id: document.id.clone(), title: document.title.clone(), cuts };
    let passages = prepared.cuts.len() as u64;
    Ok((Stored { document, passages }, prepared))
}

fn prepared(stored: Stored) -> Prepared {
    let Document { id, title, format, text } = stored.document;
    let mut cuts = passages::cut(format, &text);
    // A later build may cut another way; an accepted document stays, within the limit.
    cuts.truncate(MAX_PASSAGES);
    Prepared { id, title, cuts }
}

#[cfg(test)]
mod tests;
