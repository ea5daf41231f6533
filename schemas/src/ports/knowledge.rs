//! A tenant's documents: kept, cut into passages, searched.
//!
//! One tenant, one index. A change is seen by every search that starts after the call returned.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keys::KeysError;
use super::state::StoreError;
use crate::id::TenantId;

/// The column of a document, for its associated data.
pub const DOCUMENT_COLUMN: &str = "document";

/// Format of a document's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DocumentFormat {
    /// Plain text.
    Text,
    /// CommonMark.
    Markdown,
}

/// A document to keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// Its name among the tenant's documents: the same name replaces. A file's name, or a page's address, so
    /// that it can be cited. 1 to 512 bytes.
    #[schemars(length(min = 1, max = 512), regex(pattern = LINE))]
    pub id: String,
    /// The title that people know it by.
    #[schemars(regex(pattern = LINE))]
    pub title: String,
    /// Format of the text; a file of another format was converted to one of these.
    pub format: DocumentFormat,
    /// The text: not blank, and of control characters only those of lines and pages.
    #[schemars(regex(pattern = TEXT))]
    pub text: String,
}

/// A text without control characters, in a JSON Schema.
const LINE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// A text that a document may have, in a JSON Schema: a character that is neither white space nor a control character,
/// and around it what may stand there.
const TEXT: &str = "^[^\\u0000-\\u0008\\u000b\\u000e-\\u001f\\u007f-\\u0084\\u0086-\\u009f]*\
    [^\\u0000-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]\
    [^\\u0000-\\u0008\\u000b\\u000e-\\u001f\\u007f-\\u0084\\u0086-\\u009f]*$";

/// A document as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DocumentSummary {
    /// Its name.
    pub id: String,
    /// The title that people know it by.
    pub title: String,
    /// Format of the text.
    pub format: DocumentFormat,
    /// Bytes of text.
    pub bytes: u64,
    /// Into how many passages it was cut.
    pub passages: u64,
}

/// A piece of a document that matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Passage {
    /// The document: with the title and the headings, where the passage is from.
    pub document: String,
    /// Its title.
    pub title: String,
    /// The headings above the passage, the outermost first.
    pub headings: Vec<String>,
    /// The text of the passage.
    pub text: String,
    /// Relevance (BM25, unbounded); comparable within one search only.
    pub score: f32,
}

/// Refusal of a document or failure of a search.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KnowledgeError {
    /// The document cannot be accepted.
    #[error("{document:?} was refused: {why}")]
    Refused {
        /// The document.
        document: String,
        /// The reason, and what would be accepted.
        why: String,
    },
    /// There is no such document.
    #[error("there is no document {document:?}")]
    Unknown {
        /// The document.
        document: String,
    },
    /// The index could not be read or written.
    #[error("the index of {tenant} failed: {detail}")]
    Index {
        /// The tenant.
        tenant: TenantId,
        /// Description of the failure.
        detail: String,
    },
    /// The store of documents.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Their keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// The knowledge of all tenants.
#[async_trait]
pub trait Knowledge: Send + Sync + 'static {
    /// Keeps a document, replacing the one of the same id.
    ///
    /// # Errors
    /// [`KnowledgeError::Refused`] for a document that cannot be taken; index and store failures.
    async fn put(&self, tenant: &TenantId, document: Document) -> Result<DocumentSummary, KnowledgeError>;

    /// Removes a document.
    ///
    /// # Errors
    /// [`KnowledgeError::Unknown`]; index and store failures.
    async fn remove(&self, tenant: &TenantId, document: &str) -> Result<(), KnowledgeError>;

    /// The documents, by id.
    ///
    /// # Errors
    /// Store failures.
    async fn list(&self, tenant: &TenantId) -> Result<Vec<DocumentSummary>, KnowledgeError>;

    /// Documents as they were put, by id: some of those behind `after`, at most `limit`; none when that was all.
    ///
    /// # Errors
    /// Store failures.
    async fn documents(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Document>, KnowledgeError>;

    /// The passages that match best, the best first; none where nothing matches. Of passages that say the same
    /// under the same heading one may stand for all. Any text is a query.
    ///
    /// # Errors
    /// Index and store failures.
    async fn search(
        &self,
        tenant: &TenantId,
        query: &str,
        limit: usize,
    ) -> Result<Vec<Passage>, KnowledgeError>;

    /// Removes all that is the tenant's.
    ///
    /// # Errors
    /// Index and store failures.
    async fn erase(&self, tenant: &TenantId) -> Result<(), KnowledgeError>;
}
