//! Operations on a tenant's documents: add, list, remove, search.

use std::time::Duration;

use heddle_schemas::audit::What;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Passage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::{List, Nothing, Upload};
use crate::operation::{NoParameters, Parameters, operations};
use crate::tenants::OfTenant;

/// Default number of passages of a search.
pub const PASSAGES: usize = 5;
/// Maximum number of passages of a search.
pub const MOST_PASSAGES: usize = 100;

operations! {
    /// Lists the tenant's documents by id.
    ListDocuments: GET "/v1/tenants/{tenant}/documents" (OfTenant, NoParameters, Nothing) -> 200 List<DocumentSummary>;
        Tenant, Member, Never;

    /// Stores a document, replacing one with the same id.
    AddDocument: POST "/v1/tenants/{tenant}/documents" (OfTenant, NoParameters, Document) -> 200 DocumentSummary;
        Tenant, Member, Around |input, contact| Some(What::DocumentPut { document: input.body.id.clone() });

    /// Stores the text of a file (text, Markdown, HTML, PDF or DOCX), replacing the document with the same id.
    AddFile: POST "/v1/tenants/{tenant}/documents/file" (OfTenant, OfFile, Upload) -> 200 DocumentSummary;
        Tenant, Member, Around |input, contact| Some(What::DocumentPut { document: input.query.id.clone() }),
        // The file may wait until others are read.
        within Duration::from_secs(300);

    /// Removes a document.
    RemoveDocument: DELETE "/v1/tenants/{tenant}/documents" (OfTenant, OfDocument, Nothing) -> 204 Nothing;
        Tenant, Member, Around |input, contact| Some(What::DocumentRemove { document: input.query.id.clone() });

    /// Searches the documents and returns the best passages, the best first.
    SearchDocuments: POST "/v1/tenants/{tenant}/search" (OfTenant, NoParameters, Search) -> 200 List<Passage>;
        Tenant, Member, Never;
}

/// Document named in the query, since its id may hold any character.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfDocument {
    /// The document's id.
    pub id: String,
}

impl Parameters for OfDocument {}

/// Uploaded file: the request's body holds its bytes, the `Content-Type` its format.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfFile {
    /// The document's id, such as the file's name; its extension sets the format where the `Content-Type` does not.
    #[schemars(length(min = 1, max = 512))]
    pub id: String,
    /// Title of the document; the title in the file by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Parameters for OfFile {}

/// Search in the documents.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Any text.
    pub query: String,
    /// Maximum number of passages, 5 by default; 0 counts as 1, more than 100 as 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}
