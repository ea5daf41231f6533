//! Access control of the admin API: holders of the token, or, where none is set, only this machine.
//!
//! Without a token a request must come from a loopback address, name a loopback host (so that no web page
//! can reach it under a name of its own), and not have come through a proxy, behind which every client
//! looks local.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, FORWARDED, HOST};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use heddle_schemas::audit::Means;
use heddle_schemas::sealed::Secret;
use subtle::ConstantTimeEq;

use super::Shared;
use super::caller::Principal;
use super::problem::Refusal;

/// Passes a request on, or answers 401 or 403; counts the result.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let response = match check(&shared.admin_token, peer.ip(), request.headers()) {
        Ok(means) => {
            request.extensions_mut().insert(Principal { means, address: peer.ip() });
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    shared.metrics.admin(response.status().as_u16());
    response
}

fn check(token: &Secret, peer: IpAddr, headers: &HeaderMap) -> Result<Means, Refusal> {
    if token.is_empty() {
        let local = peer.is_loopback() && names_this_machine(headers) && !came_through_a_proxy(headers);
        return local.then_some(Means::Machine).ok_or_else(|| {
            let detail = "without http.admin_token the admin API answers only to this machine";
            Refusal::new(StatusCode::FORBIDDEN, "not_this_machine", detail)
        });
    }
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default();
    bool::from(given.as_bytes().ct_eq(token.expose().as_bytes())).then_some(Means::Token).ok_or_else(|| {
        let detail = "the bearer token is missing or wrong";
        Refusal::new(StatusCode::UNAUTHORIZED, "wrong_token", detail)
    })
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => host.split(':').next(),
    };
    name.is_some_and(|name| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

fn came_through_a_proxy(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED) || headers.contains_key("x-forwarded-for") || headers.contains_key("via")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn status(token: &str, peer: &str, pairs: &[(&'static str, &'static str)]) -> u16 {
        match check(&Secret::new(token), peer.parse().unwrap(), &headers(pairs)) {
            Ok(_) => 200,
            Err(refusal) => refusal.0.status,
        }
    }

    #[test]
    fn without_a_token_only_this_machine_is_let_in() {
        assert_eq!(status("", "127.0.0.1", &[("host", "127.0.0.1:8080")]), 200);
        assert_eq!(status("", "::1", &[("host", "[::1]:8080")]), 200);
        assert_eq!(status("", "127.0.0.1", &[("host", "localhost")]), 200);
        assert_eq!(status("", "192.0.2.7", &[("host", "127.0.0.1:8080")]), 403);
        assert_eq!(status("", "127.0.0.1", &[("host", "evil.example")]), 403, "a rebound name");
        let proxied = [("host", "localhost"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(status("", "127.0.0.1", &proxied), 403);
    }

    #[test]
    fn with_a_token_only_the_token_counts() {
        assert_eq!(status("t0ken", "192.0.2.7", &[("authorization", "Bearer t0ken")]), 200);
        assert_eq!(status("t0ken", "127.0.0.1", &[("host", "localhost")]), 401);
        assert_eq!(status("t0ken", "127.0.0.1", &[("authorization", "Bearer t0ke")]), 401);
        assert_eq!(status("t0ken", "127.0.0.1", &[("authorization", "t0ken")]), 401);
    }
}
