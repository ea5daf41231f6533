//! Proof of the node that it knows the admin token, before a client shows that token: `/healthz` with a challenge.
//!
//! While a node is down, another program may listen on its port. A client sends a random challenge in the header
//! `Heddle-Challenge`; a node answers with `Heddle-Proof`, an HMAC of the challenge under the token
//! ([`heddle_api::proof`]). Neither reveals the token.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use super::Shared;

/// Answers `/healthz` on the admin address.
pub(super) async fn health(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let mut response = "ok\n".into_response();
    let challenge = headers.get(heddle_api::proof::CHALLENGE).and_then(|value| value.to_str().ok());
    if let Some(proof) = challenge.and_then(|given| heddle_api::proof::answer(&shared.admin_token, given))
        && let Ok(value) = HeaderValue::from_str(&proof)
    {
        response.headers_mut().insert(heddle_api::proof::PROOF, value);
    }
    response
}
