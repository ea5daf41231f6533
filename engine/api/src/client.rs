//! Client of a running node: calls an operation by its declaration.

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
use crate::{ACTOR, REASON};

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
    #[error("{0:?} is not the address of a node; write it as http://127.0.0.1:8080")]
    Address(String),
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
    /// Creates a client of the node at this address; the token is empty where the node requires none.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(base: &str, token: Secret) -> Result<Self, CallError> {
        let http = reqwest::Client::builder().no_proxy().build()?;
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

    /// Checks that a node answers.
    ///
    /// # Errors
    /// [`CallError::Connection`].
    pub async fn check(&self) -> Result<(), CallError> {
        self.http.get(format!("{}/healthz", self.base)).timeout(UP).send().await?;
        Ok(())
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
