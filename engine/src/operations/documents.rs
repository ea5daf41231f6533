//! Handlers of the operations on a tenant's documents.

use std::sync::Arc;
use std::time::Duration;

use heddle_api::Input;
use heddle_api::content::{List, Malformed, Nothing, collect};
use heddle_api::documents::{
    AddDocument, AddFile, ListDocuments, MOST_PASSAGES, PASSAGES, RemoveDocument, SearchDocuments,
};
use heddle_connectors::knowledge::extract::File;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Passage};
use heddle_schemas::tenant::Tenant;

use super::{Call, Handler, OperationError, Operations, Subject};

/// Timeout for the upload of a file, which holds one of few slots meanwhile.
const UPLOAD: Duration = Duration::from_secs(60);

impl Handler for ListDocuments {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<List<DocumentSummary>, OperationError> {
        Ok(List { items: operations.ports.knowledge.list(&tenant.id).await? })
    }
}

impl Handler for AddDocument {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<DocumentSummary, OperationError> {
        Ok(operations.ports.knowledge.put(&tenant.id, input.body).await?)
    }
}

/// Document read from a file.
pub struct Read(Document);

impl Subject<AddFile> for Read {
    async fn find(operations: &Operations, input: &mut Input<AddFile>) -> Result<Self, OperationError> {
        operations.tenant(&input.path.tenant)?;
        // The body is read only once a slot is free.
        let place = operations.files.place().await;
        let most = operations.files.file_bytes();
        let pieces = std::mem::replace(&mut input.body.pieces, Box::pin(futures::stream::empty()));
        let slow = |_| Malformed::new(408, format!("the file took longer than {UPLOAD:?}"));
        let bytes = tokio::time::timeout(UPLOAD, collect(pieces, most)).await.map_err(slow)?;
        let id = input.query.id.clone();
        let bytes = bytes.map_err(|error| match error.status {
            413 => Malformed::new(413, format!("{id:?} was refused: files may have at most {most} bytes")),
            _ => error,
        })?;
        let (title, content_type) = (input.query.title.clone(), input.body.content_type.clone());
        let file = File { id, title, content_type, bytes };
        Ok(Self(operations.files.document(place, file).await?))
    }
}

impl Handler for AddFile {
    type Subject = Read;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        Read(document): Read,
    ) -> Result<DocumentSummary, OperationError> {
        Ok(operations.ports.knowledge.put(&input.path.tenant, document).await?)
    }
}

impl Handler for RemoveDocument {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<Nothing, OperationError> {
        operations.ports.knowledge.remove(&tenant.id, &input.query.id).await?;
        Ok(Nothing)
    }
}

impl Handler for SearchDocuments {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<List<Passage>, OperationError> {
        let limit = input.body.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PASSAGES);
        let limit = limit.clamp(1, MOST_PASSAGES);
        let items = operations.ports.knowledge.search(&tenant.id, &input.body.query, limit).await?;
        Ok(List { items })
    }
}
