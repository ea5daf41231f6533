//! Console, `/`: one page with an overview of a running node, from `/metrics` and `/v1`.
//!
//! The page holds no data: it requests everything from the admin API, with that API's access control.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::response::Html;
use axum::routing::get;

use super::Shared;

const PAGE: &str = include_str!("console.html");
/// Content security policy: no external resources, no framing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Returns the route.
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
