//! What is done when a tenant leaves, over the admin API.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, get};
use heddle_schemas::id::TenantId;
use heddle_schemas::removal::Removal;

use super::Shared;
use super::admin::{Answer, List, Path};
use super::asker::Asked;

/// The routes, to be guarded with the others.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/tenants/{tenant}", delete(remove))
        .route("/deletions", get(deletions))
        .route("/deletions/{tenant}", get(deletion))
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
