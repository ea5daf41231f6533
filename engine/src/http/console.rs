//! Console, `/`: one page with an overview of a running node, from `/metrics` and `/v1`.
//!
//! The page holds no data: it requests everything from the admin API, with that API's access control. Script and style
//! are files of their own, so that the policy forbids inline ones.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::Html;
use axum::routing::get;

use super::Shared;

const PAGE: &str = include_str!("console.html");
const SCRIPT: &str = include_str!("console.js");
const STYLE: &str = include_str!("console.css");
/// Content security policy: nothing inline, no external resources, no framing.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Returns the routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    let file = |kind: &'static str, text: &'static str| get(async move || ([(CONTENT_TYPE, kind)], text));
    Router::new()
        .route("/", get(async || ([(CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))))
        .route("/console.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/console.css", file("text/css; charset=utf-8", STYLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_nothing_inline_that_its_policy_would_block() {
        assert!(!PAGE.contains("<style") && !PAGE.contains("style=") && !PAGE.contains("<script>"));
        assert!(PAGE.contains("src=\"console.js\"") && PAGE.contains("href=\"console.css\""));
        assert!(!POLICY.contains("unsafe"));
    }
}
