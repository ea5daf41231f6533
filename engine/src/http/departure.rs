//! What is done when a tenant leaves, over the admin API.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get};
use heddle_schemas::id::TenantId;
use heddle_schemas::removal::Removal;

use super::Shared;
use super::admin::{Answer, List, Path};
use super::asker::Asked;
use super::rights::streamed;

/// The routes, to be guarded with the others.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/tenants/{tenant}", delete(remove))
        .route("/tenants/{tenant}/export", get(export))
        .route("/deletions", get(deletions))
        .route("/deletions/{tenant}", get(deletion))
}

// It is written into the audit log, so it is done in somebody's name though it changes nothing.
async fn export(Asked(administration): Asked, Path(id): Path<TenantId>) -> Answer<Response> {
    Ok(streamed("application/x-ndjson", administration.export_tenant(&id).await?))
}

async fn remove(
    Asked(administration): Asked,
    Path(id): Path<TenantId>,
) -> Answer<(StatusCode, axum::Json<Removal>)> {
    Ok((StatusCode::ACCEPTED, axum::Json(administration.delete(&id).await?)))
}

async fn deletions(State(shared): State<Arc<Shared>>) -> Answer<List<Removal>> {
    Ok(List { items: shared.administration.deletions().await? })
}

async fn deletion(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<TenantId>,
) -> Answer<axum::Json<Removal>> {
    Ok(axum::Json(shared.administration.deletion(&id).await?))
}
