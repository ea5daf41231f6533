//! What a person may ask for, over the admin API: an export, and to be forgotten.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{MessageKey, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::admin::{Answer, Json, List, OfContact, Path, Query};
use super::asker::Asked;
use crate::administration::export::Pieces;
use crate::consents::Consents;

/// The routes, to be guarded with the others.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/tenants/{tenant}/contacts/export", get(export))
        .route("/tenants/{tenant}/contacts/forget", post(forget))
        .route("/tenants/{tenant}/contacts/restriction", put(restrict))
        .route("/tenants/{tenant}/erasures", get(erasures))
        .route("/tenants/{tenant}/erasures/{erasure}", get(erasure))
}

// It is written into the audit log, so it is done in somebody's name though it changes nothing.
async fn export(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
    Query(of): Query<OfContact>,
) -> Answer<Response> {
    Ok(streamed("application/json", administration.export(&id, &of.contact).await?))
}

/// Pieces as they come. Where they break off, the connection does too.
pub(super) fn streamed(content_type: &'static str, pieces: Pieces) -> Response {
    ([(CONTENT_TYPE, content_type)], Body::from_stream(pieces.into_stream())).into_response()
}

/// Whether what is kept of a contact may be used.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restriction {
    /// Whether it is stored only.
    pub restricted: bool,
}

async fn restrict(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
    Query(of): Query<OfContact>,
    Json(Restriction { restricted }): Json<Restriction>,
) -> Answer<(StatusCode, axum::Json<Consents>)> {
    let consents = administration.restrict(&id, &of.contact, restricted).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(consents)))
}

async fn forget(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
    Query(of): Query<OfContact>,
) -> Answer<(StatusCode, axum::Json<Erasure>)> {
    Ok((StatusCode::ACCEPTED, axum::Json(administration.forget(&id, &of.contact).await?)))
}

async fn erasures(State(shared): State<Arc<Shared>>, Path(id): Path<TenantId>) -> Answer<List<Erasure>> {
    Ok(List { items: shared.administration.erasures(&id).await? })
}

async fn erasure(
    State(shared): State<Arc<Shared>>,
    Path((id, erasure)): Path<(TenantId, MessageKey)>,
) -> Answer<axum::Json<Erasure>> {
    Ok(axum::Json(shared.administration.erasure(&id, erasure).await?))
}
