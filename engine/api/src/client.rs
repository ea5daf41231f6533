//! Client of a running node: calls an operation by its declaration.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use heddle_schemas::audit::Note;
use heddle_schemas::sealed::Secret;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use crate::content::{Body as _, BoxError, Output as _, collect};
use crate::operation::{Input, Operation};
use crate::problem::Problem;
use crate::{ACTOR, REASON, proof};

/// Returns whether an address is of this machine.
fn is_this_machine(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        }
        None => false,
    }
}

/// Timeout of the health check.
const UP: Duration = Duration::from_secs(60);

/// Error of a call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The node refused the call.
    #[error("the node answered {}: {}", StatusCode::from_u16(.0.status).unwrap_or_default(), .0.detail)]
    Refused(Problem),
    /// The node cannot be reached, or the connection broke.
    #[error(transparent)]
    Connection(reqwest::Error),
    /// The address is not valid.
    #[error("{0:?} is not the address of a node; write it as http://127.0.0.1:8081")]
    Address(String),
    /// The token would go over the network in the clear.
    #[error(
        "{0} is another machine, and http would show the admin token on the way; use https, or pass --insecure"
    )]
    Plaintext(String),
    /// There is no token.
    #[error("no admin token is known; set http.admin_token, or name the node's configuration by --config")]
    NoToken,
    /// The node or program at the address does not know the token.
    #[error(
        "what answers does not know this admin token: it is another node or another program, and was not sent the token"
    )]
    Unproven,
    /// The answer does not match its description.
    #[error("the admin API's answer cannot be read: {0}")]
    Answer(#[source] BoxError),
}

impl CallError {
    /// Returns whether the connection was refused: no process listens at the address.
    #[must_use]
    pub fn is_nobody_there(&self) -> bool {
        matches!(self, Self::Connection(error) if error.is_connect())
    }
}

impl From<reqwest::Error> for CallError {
    fn from(error: reqwest::Error) -> Self {
        // The URL is dropped: query parameters can be phone numbers.
        Self::Connection(error.without_url())
    }
}

/// Client of a running node's admin API. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Secret,
    names: HeaderMap,
}

impl Client {
    /// Creates a client of the node at this address. Before the first call it must [`Client::check`].
    ///
    /// # Errors
    /// When the address is not valid, or of another machine over http unless `insecure`; when the HTTP client cannot be
    /// set up.
    pub fn new(base: &str, token: Secret, insecure: bool) -> Result<Self, CallError> {
        let url = Url::parse(base).map_err(|_| CallError::Address(base.to_owned()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(CallError::Address(base.to_owned()));
        }
        if url.scheme() != "https" && !is_this_machine(&url) && !insecure {
            return Err(CallError::Plaintext(base.to_owned()));
        }
        // A redirect would take the body, and secrets in it, to where nothing was proven.
        let http =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token, names: HeaderMap::new() })
    }

    /// Returns the client with the caller's name and reason, which go into the audit log.
    #[must_use]
    pub fn named(mut self, name: Option<&Note>, why: Option<&Note>) -> Self {
        for (header, note) in [(ACTOR, name), (REASON, why)] {
            let value = note.and_then(|note| HeaderValue::from_bytes(note.as_str().as_bytes()).ok());
            if let Some(value) = value {
                self.names.insert(HeaderName::from_static(header), value);
            }
        }
        self
    }

    /// Checks that a node answers and knows the token, without sending it. The challenge is random.
    ///
    /// # Errors
    /// [`CallError::Connection`], [`CallError::NoToken`], [`CallError::Unproven`].
    pub async fn check(&self, challenge: &[u8; 32]) -> Result<(), CallError> {
        let challenge = hex::encode(challenge);
        let request = self.http.get(format!("{}/healthz", self.base)).timeout(UP);
        let answer = request.header(proof::CHALLENGE, &challenge).send().await?;
        if self.token.is_empty() {
            return Err(CallError::NoToken);
        }
        let given = answer.headers().get(proof::PROOF).and_then(|value| value.to_str().ok());
        match given.is_some_and(|given| proof::holds(&self.token, &challenge, given)) {
            true => Ok(()),
            false => Err(CallError::Unproven),
        }
    }

    /// Calls an operation.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<O: Operation>(&self, input: Input<O>) -> Result<O::Output, CallError> {
        let Input { path, query, body } = input;
        let url = self.address::<O>(&path)?;
        let method = reqwest::Method::from_bytes(O::METHOD.as_str().as_bytes()).expect("the method is valid");
        let mut request = self.http.request(method, url).query(&query).timeout(O::PATIENCE);
        request = request.headers(self.names.clone());
        if !self.token.is_empty() {
            request = request.bearer_auth(self.token.expose());
        }
        if let Some((content_type, pieces)) = body.write() {
            if let Some(content_type) = content_type {
                request = request.header(CONTENT_TYPE, content_type);
            }
            request = if O::Body::IS_STREAMED {
                request.body(reqwest::Body::wrap_stream(pieces))
            } else {
                let bytes = collect(pieces, usize::MAX).await;
                request.body(bytes.map_err(|error| CallError::Answer(error.into()))?)
            };
        }
        Self::answer::<O>(request).await
    }

    async fn answer<O: Operation>(request: RequestBuilder) -> Result<O::Output, CallError> {
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(CallError::Refused(Self::problem(response).await?));
        }
        let pieces = Box::pin(futures::stream::unfold(response, |mut response| async move {
            match response.chunk().await {
                Ok(piece) => Some((Ok::<Bytes, reqwest::Error>(piece?), response)),
                Err(error) => Some((Err(error.without_url()), response)),
            }
        }));
        // An interrupted answer ends with its error.
        let mut broken = false;
        let pieces = pieces.map_err(BoxError::from);
        let pieces = futures::StreamExt::take_while(pieces, move |piece| {
            let goes_on = !broken;
            broken = piece.is_err();
            futures::future::ready(goes_on)
        });
        O::Output::read(Box::pin(pieces)).await.map_err(CallError::Answer)
    }

    async fn problem(response: Response) -> Result<Problem, CallError> {
        let status = response.status();
        let bytes = response.bytes().await?;
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| Problem {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            detail: "no detail".to_owned(),
            code: String::new(),
        }))
    }

    fn address<O: Operation>(&self, path: &O::Path) -> Result<Url, CallError> {
        let wrong = || CallError::Address(self.base.clone());
        let mut url = Url::parse(&self.base).map_err(|_| wrong())?;
        let values = serde_json::to_value(path).unwrap_or_default();
        let segments = O::PATH.trim_start_matches('/').split('/').map(|segment| {
            match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => values.get(name).and_then(Value::as_str).unwrap_or_default(),
                None => segment,
            }
        });
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(segments);
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_go_to_another_machine_in_the_clear() {
        let client = |base: &str, insecure| Client::new(base, Secret::new("t"), insecure).map(|_| ());
        for here in
            ["http://127.0.0.1:8081", "http://localhost:8081", "http://[::1]:1", "https://node.example"]
        {
            client(here, false).unwrap();
        }
        for away in
            ["http://192.0.2.1:8081", "http://127.0.0.1.evil.example", "http://localhost.evil.example"]
        {
            assert!(matches!(client(away, false), Err(CallError::Plaintext(_))), "{away}");
            client(away, true).unwrap();
        }
        assert!(matches!(client("node:8081 x", false), Err(CallError::Address(_))));
    }
}
