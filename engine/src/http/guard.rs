//! Access control of the admin API and of `/metrics`: holders of a token.
//!
//! There is no access without one, also from this machine: a proxy's requests come from this machine too. Beside the
//! token, a request that a browser sends for another site's page is refused, so that a page can make no use of what
//! an operator's browser reaches or remembers:
//! - `Origin`, where there is one, is the address that the request names as its host;
//! - `Sec-Fetch-Site`, where there is one, is `same-origin`, or `none` for an address that was typed in;
//! - a changing request with either has the header `Heddle-Request`, which a form cannot send.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};
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
    let checked = check_site(request.method(), request.headers())
        .and_then(|()| check_token(&[&shared.admin_token], request.headers()));
    let response = match checked {
        Ok(()) => {
            request.extensions_mut().insert(Principal { means: Means::Token, address: peer.ip() });
            next.run(request).await
        }
        Err(refusal) => {
            tracing::debug!(%peer, code = refusal.0.code, "a request to the admin API was refused");
            refusal.into_response()
        }
    };
    shared.metrics.admin(response.status().as_u16());
    response
}

/// Checks a request for `/metrics`.
///
/// # Errors
/// 401, 403.
pub(super) fn check_metrics(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    check_site(&Method::GET, headers)?;
    if shared.open_metrics {
        return Ok(());
    }
    check_token(&[&shared.admin_token, &shared.metrics_token], headers)
}

fn check_token(tokens: &[&Secret], headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default().as_bytes();
    // An empty token is none that anybody holds. Each is compared, whatever the first comparison says.
    let held = tokens
        .iter()
        .filter(|token| !token.is_empty())
        .fold(false, |held, token| held | bool::from(given.ct_eq(token.expose().as_bytes())));
    held.then_some(()).ok_or_else(|| {
        let detail =
            "the bearer token is missing or wrong; it is http.admin_token, or admin.token in the data folder";
        Refusal::new(StatusCode::UNAUTHORIZED, "wrong_token", detail)
    })
}

fn check_site(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = |detail: &str| Err(Refusal::new(StatusCode::FORBIDDEN, "cross_site", detail));
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let (origin, site) = (text(ORIGIN.as_str()), text("sec-fetch-site"));
    if let Some(site) = site
        && !matches!(site, "same-origin" | "none")
    {
        return refused("a page of another site sent this request");
    }
    if let Some(origin) = origin
        && origin.split_once("://").map(|(_, host)| host) != text(HOST.as_str())
    {
        return refused("the Origin of this request is another site");
    }
    let is_browser = origin.is_some() || site.is_some();
    let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if is_browser && !is_safe && !headers.contains_key(heddle_api::REQUEST) {
        return refused("a changing request of a browser needs the header Heddle-Request");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn token_status(tokens: &[&str], pairs: &[(&'static str, &'static str)]) -> u16 {
        let tokens: Vec<_> = tokens.iter().map(|token| Secret::new(*token)).collect();
        match check_token(&tokens.iter().collect::<Vec<_>>(), &headers(pairs)) {
            Ok(()) => 200,
            Err(refusal) => refusal.0.status,
        }
    }

    #[test]
    fn only_the_token_counts() {
        let held = &["t0ken"][..];
        assert_eq!(token_status(held, &[("authorization", "Bearer t0ken")]), 200);
        for given in ["Bearer t0ke", "t0ken", "Bearer ", "Basic t0ken", "bearer t0ken"] {
            assert_eq!(token_status(held, &[("authorization", given)]), 401, "{given}");
        }
        assert_eq!(token_status(held, &[("host", "localhost")]), 401, "this machine is no credential");
    }

    #[test]
    fn no_token_is_held_by_nobody() {
        for given in [&[][..], &[("authorization", "Bearer ")], &[("authorization", "")]] {
            assert_eq!(token_status(&[""], given), 401);
            assert_eq!(token_status(&["", "t0ken"], given), 401);
        }
        assert_eq!(token_status(&["t0ken", "s3cond"], &[("authorization", "Bearer s3cond")]), 200);
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        let site =
            |method, pairs: &[_]| check_site(&method, &headers(pairs)).map_err(|refusal| refusal.0.status);
        let (get, post) = (Method::GET, Method::POST);
        let host = ("host", "127.0.0.1:8081");
        assert_eq!(site(post.clone(), &[host]), Ok(()), "no browser");
        for foreign in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:8080"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            for method in [get.clone(), post.clone(), Method::DELETE] {
                assert_eq!(site(method, &[host, foreign, ("heddle-request", "1")]), Err(403), "{foreign:?}");
            }
        }
        let own = [host, ("origin", "http://127.0.0.1:8081"), ("sec-fetch-site", "same-origin")];
        assert_eq!(site(get.clone(), &own), Ok(()));
        assert_eq!(site(post.clone(), &own), Err(403), "a form of the same site");
        let asked = [own[0], own[1], own[2], ("heddle-request", "1")];
        assert_eq!(site(post, &asked), Ok(()));
        assert_eq!(site(get, &[host, ("sec-fetch-site", "none")]), Ok(()), "an address that was typed in");
    }
}
