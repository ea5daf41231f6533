//! Operations on a tenant's documents: added, listed, removed, searched.

use std::time::Duration;

use heddle_schemas::audit::What;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Passage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::{List, Nothing, Upload};
use crate::operation::{NoParameters, Parameters, operations};
use crate::tenants::OfTenant;

/// Passages of a search, where the request does not say.
pub const PASSAGES: usize = 5;
/// Passages of a search at most.
pub const MOST_PASSAGES: usize = 100;

operations! {
    /// The tenant's documents, by id.
    ListDocuments: GET "/v1/tenants/{tenant}/documents" (OfTenant, NoParameters, Nothing) -> 200 List<DocumentSummary>;
        Tenant, Member, Never;

    /// Keeps a document, replacing the one of the same id.
    AddDocument: POST "/v1/tenants/{tenant}/documents" (OfTenant, NoParameters, Document) -> 200 DocumentSummary;
        Tenant, Member, Around |input, contact| Some(What::DocumentPut { document: input.body.id.clone() });

    /// Keeps what a file says: text, Markdown, HTML, PDF or DOCX; replaces the document of the same id.
    AddFile: POST "/v1/tenants/{tenant}/documents/file" (OfTenant, OfFile, Upload) -> 200 DocumentSummary;
        Tenant, Member, Around |input, contact| Some(What::DocumentPut { document: input.query.id.clone() }),
        // It may wait for others to be read.
        within Duration::from_secs(300);

    /// Removes a document.
    RemoveDocument: DELETE "/v1/tenants/{tenant}/documents" (OfTenant, OfDocument, Nothing) -> 204 Nothing;
        Tenant, Member, Around |input, contact| Some(What::DocumentRemove { document: input.query.id.clone() });

    /// The passages that match best, the best first.
    SearchDocuments: POST "/v1/tenants/{tenant}/search" (OfTenant, NoParameters, Search) -> 200 List<Passage>;
        Tenant, Member, Never;
}

/// A document, named in the query: its id may hold any character.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfDocument {
    /// The document's id.
    pub id: String,
}

impl Parameters for OfDocument {}

/// A file, whose bytes are the request's body and whose `Content-Type` says how it is written.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfFile {
    /// The document's id, such as the file's name; without a `Content-Type` that tells, its ending does.
    #[schemars(length(min = 1, max = 512))]
    pub id: String,
    /// Its title; without it, what the file calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Parameters for OfFile {}

/// Search in documents.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Any text.
    pub query: String,
    /// Passages at most, 5 by default; 0 counts as 1, more than 100 as 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}
