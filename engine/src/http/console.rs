//! The console, `/`: one page that shows a running node at a glance, from `/metrics` and `/v1`.
//!
//! The page holds no data: what it shows it asks for, and the admin API answers it or does not.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::response::Html;
use axum::routing::get;

use super::Shared;

const PAGE: &str = include_str!("console.html");
/// Nothing from elsewhere, and nobody frames it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The route.
pub(super) fn routes() -> Router<Arc<Shared>> {
    let page = async || {
        let headers = [
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CACHE_CONTROL, "no-store"),
        ];
        (headers, Html(PAGE))
    };
    Router::new().route("/", get(page))
}
