//! Health endpoints: `/healthz`: the process answers. `/readyz`: it accepts webhooks. `/metrics`: Prometheus' text
//! format, on the admin address only, for holders of the admin token or of `http.metrics_token`, or for everybody with
//! `http.open_metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::{Shared, guard, proof};

/// Returns the routes of the public address.
pub(super) fn public() -> Router<Arc<Shared>> {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready))
}

/// Returns the routes of the admin address.
pub(super) fn administration() -> Router<Arc<Shared>> {
    Router::new()
        .route("/healthz", get(proof::health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    if !shared.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n".to_owned());
    }
    match shared.node.store_fault() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        // Webhooks are still tried: the first for which there is room ends it.
        Some(fault) => (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = guard::check_metrics(&shared, &headers) {
        return refusal.into_response();
    }
    match TextEncoder::new().encode_to_string(&shared.registry.gather()) {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
