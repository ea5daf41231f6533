//! The admin API, `/v1`: tenants and their documents, master keys, dead letters, as JSON. Faults are problem details (RFC 9457).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use heddle_connectors::knowledge::extract::File;
use heddle_schemas::audit::Entry;
use heddle_schemas::audit::chain::{Noted, Verdict};
use heddle_schemas::contact::ContactName;
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, ContactId, ConversationId, TenantId};
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Passage};
use heddle_schemas::promise::Proofs;
use heddle_schemas::record::inbound::Handler;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::zone::Month;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::asker::Asked;
use super::problem::Problem;
use super::{departure, guard, openapi, rights};
use crate::administration::AdministrationError;
use crate::administration::correction::Correction;
use crate::consents::{ConsentEntry, Consents};
use crate::dead_letters::{Filters, Letter, LetterId, Page, Replay, Replayed};
use crate::rotation::{KeysStatus, Rotate, Rotated};
use crate::usage::Usage;

/// The largest body: a document of 4 MiB, escaped.
const MAX_BODY: usize = 16 << 20;
/// How long a file may take to come in: it holds one of few places meanwhile.
const UPLOAD: Duration = Duration::from_secs(60);
/// Passages of a search, where the request does not say.
const PASSAGES: usize = 5;
/// Passages of a search at most.
const MOST_PASSAGES: usize = 100;

/// Entries of the audit log of one answer.
pub const ENTRIES: usize = 500;

/// The routes, guarded.
pub(super) fn routes(shared: Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/openapi.json", get(openapi::document))
        .route("/tenants", get(list))
        .route("/tenants/{tenant}", get(show).put(apply))
        .route("/tenants/{tenant}/channels/{channel}/{account}", delete(disconnect))
        .route("/tenants/{tenant}/usage", get(usage))
        .route("/tenants/{tenant}/conversations/{channel}/{account}/{contact}/handling", put(handle))
        .route("/tenants/{tenant}/contacts/consent", get(consents).post(enter))
        .route("/tenants/{tenant}/contacts/correction", put(correct))
        .route("/tenants/{tenant}/documents", get(documents).post(add).delete(remove))
        .route("/tenants/{tenant}/documents/file", post(add_file))
        .route("/tenants/{tenant}/search", post(search))
        .route("/keys", get(keys))
        .route("/keys/rotate", post(rotate))
        .route("/dlq", get(letters))
        .route("/dlq/{id}", get(letter))
        .route("/dlq/replay", post(replay))
        .route("/audit", get(prove))
        .route("/audit/log", get(audit_log))
        .route("/audit/log/verification", get(verify_audit_log))
        .route("/audit/log/resumption", post(resume_audit_log))
        .merge(rights::routes())
        .merge(departure::routes())
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no such path; see /v1/openapi.json"))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(shared, guard::guard))
}

/// Axum's extractor, whose faults are problem details too.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(super) struct Json<T>(pub(super) T);

#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub(super) T);

#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub(super) T);

/// The answer of a list.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    /// In order.
    pub items: Vec<T>,
}

impl<T: Serialize> IntoResponse for List<T> {
    fn into_response(self) -> Response {
        axum::Json(self).into_response()
    }
}

/// A document, named in the query: its id may hold any character.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    /// The document's id.
    pub id: String,
}

/// A contact, named in the query: an id of a channel may hold any character.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct OfContact {
    /// A phone number as `+4915112345678`, a channel's id as `whatsapp:ID` or
    /// `http:ACCOUNT/ID`, or the contact's own id.
    pub contact: ContactName,
}

/// A file, whose bytes are the request's body and whose `Content-Type` tells how it is written.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Uploaded {
    /// The document's id, such as the file's name; without a `Content-Type` that tells, its ending does.
    pub id: String,
    /// What people call it; without it, what the file calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// What to search for.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Any text.
    pub query: String,
    /// Passages at most; 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Of which month.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct OfMonth {
    /// Such as `2026-11`; the one that it is where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<Month>,
}

/// Which entries of which audit log.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entries {
    /// That of this tenant; without one, that of what is no tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Those from this number on; without it, from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// So many at most; 1 to 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Which audit log, and what is known of it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// That of this tenant; without one, that of what is no tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Entries that were noted before, as `number:hash`, with commas between them: they must be in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted: Option<String>,
}

/// Which audit log.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfTenant {
    /// That of this tenant; without one, that of what is no tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
}

/// Who answers in a conversation.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handles {
    /// Who.
    pub by: Handler,
}

pub(super) type Answer<T> = Result<T, Problem>;

async fn list(State(shared): State<Arc<Shared>>) -> List<Tenant> {
    List { items: shared.administration.tenants().iter().map(|tenant| (**tenant).clone()).collect() }
}

async fn show(State(shared): State<Arc<Shared>>, Path(id): Path<TenantId>) -> Answer<axum::Json<Tenant>> {
    Ok(axum::Json((*shared.administration.tenant(&id)?).clone()))
}

async fn apply(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
    Json(tenant): Json<Tenant>,
) -> Answer<axum::Json<Tenant>> {
    if tenant.id != id {
        let detail = format!("the path names tenant {id} and the body {}", tenant.id);
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    Ok(axum::Json((*administration.apply(tenant).await?).clone()))
}

async fn disconnect(
    Asked(administration): Asked,
    Path((tenant, channel, account)): Path<(TenantId, ChannelKind, AccountId)>,
) -> Answer<axum::Json<Tenant>> {
    Ok(axum::Json(administration.disconnect(&AccountKey { tenant, channel, account }).await?))
}

async fn usage(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<TenantId>,
    Query(of): Query<OfMonth>,
) -> Answer<axum::Json<Usage>> {
    Ok(axum::Json(shared.administration.usage(&id, of.month).await?))
}

async fn handle(
    Asked(administration): Asked,
    Path((tenant, channel, account, contact)): Path<(TenantId, ChannelKind, AccountId, ContactId)>,
    Json(handles): Json<Handles>,
) -> Answer<StatusCode> {
    let conversation = ConversationId { tenant, channel, account, contact };
    administration.handle(conversation, handles.by).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn consents(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<TenantId>,
    Query(of): Query<OfContact>,
) -> Answer<axum::Json<Consents>> {
    Ok(axum::Json(shared.administration.consents(&id, &of.contact).await?))
}

async fn enter(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
    Query(of): Query<OfContact>,
    Json(entry): Json<ConsentEntry>,
) -> Answer<axum::Json<Consents>> {
    Ok(axum::Json(administration.enter(&id, &of.contact, entry).await?))
}

async fn correct(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
    Query(of): Query<OfContact>,
    Json(correction): Json<Correction>,
) -> Answer<StatusCode> {
    administration.correct(&id, &of.contact, correction).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn documents(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<TenantId>,
) -> Answer<List<DocumentSummary>> {
    Ok(List { items: shared.administration.documents(&id).await? })
}

async fn add(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
    Json(document): Json<Document>,
) -> Answer<axum::Json<DocumentSummary>> {
    Ok(axum::Json(administration.add(&id, document).await?))
}

async fn add_file(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
    Query(Uploaded { id: document, title }): Query<Uploaded>,
    headers: HeaderMap,
    request: Request,
) -> Answer<axum::Json<DocumentSummary>> {
    administration.tenant(&id)?;
    let place = administration.files.place().await;
    let most = administration.files.file_bytes();
    let too_large = || {
        let detail = format!("{document:?} was refused: files of at most {most} bytes are taken");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let read = tokio::time::timeout(UPLOAD, axum::body::to_bytes(request.into_body(), most)).await;
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the file took longer than {UPLOAD:?}"));
    let bytes = read.map_err(late)?.map_err(|_| too_large())?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(ToOwned::to_owned);
    let file = File { id: document, title, content_type, bytes };
    Ok(axum::Json(administration.add_file(&id, place, file).await?))
}

async fn remove(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
    Query(document): Query<Named>,
) -> Answer<StatusCode> {
    administration.remove(&id, &document.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn search(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<TenantId>,
    Json(search): Json<Search>,
) -> Answer<List<Passage>> {
    let limit = search.limit.unwrap_or(PASSAGES).clamp(1, MOST_PASSAGES);
    Ok(List { items: shared.administration.search(&id, &search.query, limit).await? })
}

async fn keys(State(shared): State<Arc<Shared>>) -> Answer<axum::Json<KeysStatus>> {
    Ok(axum::Json(shared.administration.keys().await?))
}

async fn rotate(State(shared): State<Arc<Shared>>, Json(asked): Json<Rotate>) -> Answer<axum::Json<Rotated>> {
    Ok(axum::Json(shared.administration.rotate(&asked).await?))
}

async fn letters(
    State(shared): State<Arc<Shared>>,
    Query(filters): Query<Filters>,
) -> Answer<axum::Json<Page>> {
    let page = shared.administration.dead_letters.list(&filters).await;
    Ok(axum::Json(page.map_err(AdministrationError::from)?))
}

async fn letter(Asked(administration): Asked, Path(id): Path<LetterId>) -> Answer<axum::Json<Letter>> {
    Ok(axum::Json(administration.letter(id).await?))
}

async fn replay(Asked(administration): Asked, Json(asked): Json<Replay>) -> Answer<axum::Json<Replayed>> {
    Ok(axum::Json(administration.replay(&asked).await?))
}

async fn audit_log(State(shared): State<Arc<Shared>>, Query(which): Query<Entries>) -> Answer<List<Entry>> {
    let limit = which.limit.unwrap_or(ENTRIES).clamp(1, ENTRIES);
    let items =
        shared.administration.audit_log(which.tenant.as_ref(), which.from.unwrap_or(1), limit).await?;
    Ok(List { items })
}

async fn prove(Asked(administration): Asked, Query(chain): Query<OfTenant>) -> Answer<axum::Json<Proofs>> {
    Ok(axum::Json(administration.prove(chain.tenant.as_ref()).await?))
}

async fn verify_audit_log(
    State(shared): State<Arc<Shared>>,
    Query(chain): Query<Chain>,
) -> Answer<axum::Json<Verdict>> {
    let noted: Result<Vec<Noted>, _> =
        chain.noted.iter().flat_map(|all| all.split(',')).map(str::parse).collect();
    let noted = noted.map_err(|why: String| Problem::new(StatusCode::BAD_REQUEST, why))?;
    Ok(axum::Json(shared.administration.verify_audit_log(chain.tenant.as_ref(), &noted).await?))
}

async fn resume_audit_log(
    Asked(administration): Asked,
    Query(chain): Query<OfTenant>,
) -> Answer<axum::Json<Entry>> {
    Ok(axum::Json(administration.resume_audit_log(chain.tenant.as_ref()).await?))
}
