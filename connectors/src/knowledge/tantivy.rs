//! The knowledge port: documents sealed in the state store, indexes in memory.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use async_trait::async_trait;
use heddle_schemas::id::TenantId;
use heddle_schemas::language::Language;
use heddle_schemas::ports::keys::{Keys, KeysError};
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Knowledge, KnowledgeError, Passage};
use heddle_schemas::ports::state::State;
use heddle_schemas::table::Key;
use tokio::sync::Semaphore;

use super::document::{self, MAX_PASSAGES};
use super::index::{Change, Index, Prepared};
use super::indexes::{Indexes, Loaded};
use super::passages;
use super::pool::Pool;
use super::rows::{PAGE, Rows, Stored, failed};

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
    /// The language of each tenant. Default: English for all.
    pub languages: Languages,
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
            languages: Languages::default(),
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
}

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
        }
    }

    /// Returns the number of indexes that are open or being loaded.
    #[must_use]
    pub fn open_indexes(&self) -> usize {
        self.indexes.len()
    }

    async fn load(&self, tenant: &TenantId, language: Language) -> Result<Loaded, KnowledgeError> {
        let _place = self.loading.acquire().await.map_err(|error| failed(tenant, error.to_string()))?;
        let version = self.rows.version(tenant).await?;
        let (mut documents, mut after) = (Vec::new(), None);
        loop {
            let (page, last) = self.rows.page(tenant, after.as_ref(), PAGE, prepared).await?;
            documents.extend(page);
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        let index = self.loads.run(move || Index::build(&documents, language)).await;
        let index = index.map_err(|detail| failed(tenant, detail))?;
        let index = index.map_err(|error| failed(tenant, error.to_string()))?;
        tracing::debug!(%tenant, passages = index.passages(), bytes = index.bytes(), "index loaded");
        Ok(Loaded::new(index, version))
    }

    /// Makes a change whose rows are written by `write`, which returns bytes that identify it.
    async fn change(
        &self,
        tenant: &TenantId,
        change: Change,
        write: impl Future<Output = Result<Vec<u8>, KnowledgeError>> + Send,
    ) -> Result<(), KnowledgeError> {
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
            changing.finish(bumped.version);
        }
        Ok(())
    }
}

#[async_trait]
impl Knowledge for TantivyKnowledge {
    async fn put(&self, tenant: &TenantId, document: Document) -> Result<DocumentSummary, KnowledgeError> {
        document::check(&document)?;
        let cut = self.loads.run(move || cut(document)).await.map_err(|detail| failed(tenant, detail))?;
        let (stored, prepared) = cut?;
        let summary = stored.summary();
        let write = self.rows.put(tenant, stored);
        self.change(tenant, Change::Put(prepared), write).await?;
        Ok(summary)
    }

    async fn remove(&self, tenant: &TenantId, document: &str) -> Result<(), KnowledgeError> {
        // Without an id it would be the version's row.
        if document.is_empty() || !self.rows.exists(tenant, document).await? {
            return Err(KnowledgeError::Unknown { document: document.into() });
        }
        let write = async { Ok(self.rows.remove(tenant, document).await?) };
        self.change(tenant, Change::Remove(document.into()), write).await
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
