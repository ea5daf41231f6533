//! Documents in the state store, and the version of a tenant's documents beside them.
//!
//! A document is the row `document` of its id: its JSON, sealed under the tenant's key. The row
//! without an id is the version: it differs after every change, and is written by conditional write only.
//! A change writes its rows first and the version after, so a reader of a version and then the rows
//! sees at least the state of that version.

use std::sync::Arc;

use bytes::Bytes;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::keys::{Keys, TenantCipher, aad};
use heddle_schemas::ports::knowledge::{DOCUMENT_COLUMN, Document, DocumentSummary, KnowledgeError};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::{Batch, Scan, State, Swap, Write};
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::{Key, Partition};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pool::Pool;

/// Rows that are read at once: each may have some MiB.
pub(super) const PAGE: usize = 16;

/// Bytes of documents that are opened or indexed before others' work has its turn; a larger document is one slice.
pub(super) const SLICE: usize = 512 << 10;

/// Cuts a list into pieces of at most `most` bytes, or one item.
pub(super) fn slices<T>(items: Vec<T>, most: usize, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut slices, mut size) = (Vec::<Vec<T>>::new(), 0);
    for item in items {
        let of_item = bytes(&item);
        match slices.last_mut().filter(|_| size + of_item <= most) {
            Some(slice) => slice.push(item),
            None => {
                slices.push(vec![item]);
                size = 0;
            }
        }
        size += of_item;
    }
    slices
}

/// Content of a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    #[serde(flatten)]
    pub(super) document: Document,
    /// Number of passages that it was cut into when it was put.
    pub(super) passages: u64,
}

impl Stored {
    pub(super) fn summary(&self) -> DocumentSummary {
        let Document { id, title, format, text } = &self.document;
        let (bytes, passages) = (text.len() as u64, self.passages);
        DocumentSummary { id: id.clone(), title: title.clone(), format: *format, bytes, passages }
    }
}

/// Version of a tenant's documents. Opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version(Bytes);

/// New version, and true if it directly follows the one that the change began with.
#[derive(Debug)]
pub(super) struct Bumped {
    pub(super) version: Version,
    pub(super) alone: bool,
}

#[derive(Clone)]
pub(super) struct Rows {
    state: Arc<dyn State>,
    keys: Arc<dyn Keys>,
    pool: Pool,
}

impl Rows {
    /// Creates the rows; sealing and opening is done in `pool`.
    pub(super) fn new(state: Arc<dyn State>, keys: Arc<dyn Keys>, pool: Pool) -> Self {
        Self { state, keys, pool }
    }

    /// The version; `None` when there never was a document, or all was erased.
    pub(super) async fn version(&self, tenant: &TenantId) -> Result<Option<Version>, StoreError> {
        Ok(self.state.get(&version_row(tenant)).await?.map(Version))
    }

    /// Returns the tenant's cipher, which opens the documents.
    pub(super) async fn cipher(&self, tenant: &TenantId) -> Result<Arc<dyn TenantCipher>, KnowledgeError> {
        Ok(self.keys.tenant(tenant).await?)
    }

    /// Writes a document. Returns bytes that identify this change, for [`Rows::bump`].
    pub(super) async fn put(&self, tenant: &TenantId, stored: Stored) -> Result<Vec<u8>, KnowledgeError> {
        let cipher = self.cipher(tenant).await?;
        let key = Key::document(tenant, &stored.document.id);
        let place = aad(&key, DOCUMENT_COLUMN);
        let seal = move || serde_json::to_vec(&stored).map(|json| cipher.seal(&place, &json));
        let sealed = self.pool.run(seal).await.map_err(|detail| failed(tenant, detail))?;
        let sealed = sealed.map_err(|error| failed(tenant, error.to_string()))?;
        // Its nonce is in it, so no two changes have the same.
        let digest = Sha256::digest(sealed.as_bytes()).to_vec();
        self.write(vec![Write::put(key, sealed.as_bytes().to_vec())]).await?;
        Ok(digest)
    }

    pub(super) async fn exists(&self, tenant: &TenantId, id: &str) -> Result<bool, StoreError> {
        Ok(self.state.get(&Key::document(tenant, id)).await?.is_some())
    }

    pub(super) async fn remove(&self, tenant: &TenantId, id: &str) -> Result<Vec<u8>, StoreError> {
        let key = Key::document(tenant, id);
        let mut digest = Sha256::new();
        digest.update(b"removed");
        digest.update(key.as_bytes());
        self.write(vec![Write::delete(key)]).await?;
        Ok(digest.finalize().to_vec())
    }

    /// The version that follows `before` by `change`.
    pub(super) fn next(before: Option<&Version>, change: &[u8]) -> Version {
        let mut digest = Sha256::new();
        digest.update(before.map_or(&[][..], |before| &before.0));
        digest.update(change);
        Version(Bytes::copy_from_slice(&digest.finalize()[..16]))
    }

    /// Publishes a change whose rows are written.
    pub(super) async fn bump(
        &self,
        tenant: &TenantId,
        before: Option<Version>,
        change: &[u8],
    ) -> Result<Bumped, StoreError> {
        let row = version_row(tenant);
        let (mut found, mut alone) = (before, true);
        loop {
            let version = Self::next(found.as_ref(), change);
            let expected = found.map(|version| version.0);
            match self.state.compare_and_set(&row, expected, Some(version.0.clone()), None).await? {
                Swap::Done => return Ok(Bumped { version, alone }),
                Swap::Found(other) => {
                    alone = false;
                    found = other.map(Version);
                }
            }
        }
    }

    /// The documents by id, a page of at most `limit` after `after`; `each` is done to them off the async threads.
    pub(super) async fn page<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        after: Option<&Key>,
        limit: usize,
        each: impl Fn(Stored) -> T + Send + Sync + 'static,
    ) -> Result<(Vec<T>, Option<Key>), KnowledgeError> {
        let rows = self.rows(tenant, after, limit).await?;
        // A tenant without documents has no need of a key, and reading makes none.
        let Some((last, _)) = rows.last() else { return Ok((Vec::new(), None)) };
        let last = last.clone();
        let cipher = self.cipher(tenant).await?;
        let (each, mut page) = (Arc::new(each), Vec::with_capacity(rows.len()));
        // A place of the pool is held for one slice at a time: others' documents come in between.
        for slice in slices(rows, SLICE, |(_, value)| value.len()) {
            let (cipher, each) = (cipher.clone(), each.clone());
            let open = move || slice.into_iter().map(|row| Ok(each(opened(&*cipher, row)?))).collect();
            let opened: Result<Vec<T>, KnowledgeError> =
                self.pool.run(open).await.map_err(|detail| failed(tenant, detail))?;
            page.extend(opened?);
        }
        Ok((page, Some(last)))
    }

    /// Removes every row, the version last.
    pub(super) async fn erase(&self, tenant: &TenantId) -> Result<(), StoreError> {
        loop {
            loop {
                let rows = self.rows(tenant, None, PAGE).await?;
                if rows.is_empty() {
                    break;
                }
                self.write(rows.into_iter().map(|(key, _)| Write::delete(key)).collect()).await?;
            }
            let Some(version) = self.version(tenant).await? else { return Ok(()) };
            let row = version_row(tenant);
            // Another version means another change: read its rows again.
            self.state.compare_and_set(&row, Some(version.0), None, None).await?;
        }
    }

    async fn rows(
        &self,
        tenant: &TenantId,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        // The version's row is empty, so the first document comes at the earliest after one zero byte.
        let mut from = after.map(|key| key.row().to_vec()).unwrap_or_default();
        from.push(0);
        let first = Scan::first(Partition::documents(tenant), limit);
        self.state.scan(&Scan { from: from.into(), ..first }).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.state.commit(Batch { writes, ..Batch::default() }).await
    }
}

fn version_row(tenant: &TenantId) -> Key {
    Partition::documents(tenant).row(&[])
}

fn opened(cipher: &dyn TenantCipher, (key, value): (Key, Bytes)) -> Result<Stored, KnowledgeError> {
    let json = cipher.open(&aad(&key, DOCUMENT_COLUMN), &Sealed::from_bytes(value))?;
    serde_json::from_slice(&json).map_err(|error| {
        KnowledgeError::Store(StoreError::Corrupt { detail: format!("row {key:?} is no document: {error}") })
    })
}

pub(super) fn failed(tenant: &TenantId, detail: impl Into<String>) -> KnowledgeError {
    KnowledgeError::Index { tenant: tenant.clone(), detail: detail.into() }
}
