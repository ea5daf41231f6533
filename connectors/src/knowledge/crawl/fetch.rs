//! Fetch of one page or file of a site, within bounds.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, StatusCode, Url};

use super::Options;
use super::address::{Checked, NOT_PUBLIC, Rule, check};
use crate::http::client;

/// Redirects that are followed one after another (RFC 9309, 2.3.1.2).
pub(super) const MOST_HOPS: usize = 5;

/// Answer of an address.
#[derive(Debug)]
pub(super) enum Answer {
    File(Fetched),
    Redirect(Url),
}

/// Fetched content.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) content_type: String,
    pub(super) no_index: bool,
    pub(super) no_follow: bool,
    pub(super) bytes: Bytes,
}

/// Reason for a failed fetch.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// A status of 400 to 499: it is not there, or not for us.
    #[error("the server answers {0}")]
    Refused(StatusCode),
    /// The server wants to be left alone.
    #[error("the server asks for less (429)")]
    Busy,
    /// Anything else that is not an answer.
    #[error("{0}")]
    Other(String),
}

/// Client that requests pages.
#[derive(Clone)]
pub(super) struct Fetcher {
    client: Client,
    rule: Rule,
    page_bytes: usize,
}

impl Fetcher {
    pub(super) fn new(options: &Options) -> Result<Self, String> {
        let rule = options.addresses.clone();
        // It follows no redirect and uses no proxy.
        let client = client().timeout(options.page_timeout).dns_resolver(Checked(rule.clone()));
        let client = client.build().map_err(|error| error.to_string())?;
        Ok(Self { client, rule, page_bytes: options.page_bytes.get() })
    }

    /// Checks that an address may be requested, as far as that is known before its name is resolved.
    pub(super) fn check(&self, url: &Url) -> Result<(), String> {
        check(url, &self.rule)
    }

    /// A page.
    pub(super) async fn get(&self, url: &Url) -> Result<Answer, Failed> {
        self.ask(url, self.page_bytes, false).await
    }

    /// The first bytes of a file, however long it is.
    pub(super) async fn get_whole(&self, url: &Url, most: usize) -> Result<Answer, Failed> {
        self.ask(url, most, true).await
    }

    async fn ask(&self, url: &Url, most: usize, cut: bool) -> Result<Answer, Failed> {
        self.check(url).map_err(Failed::Other)?;
        let mut response = self.client.get(url.clone()).send().await.map_err(failure)?;
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| url.join(to).ok());
            return to.map(Answer::Redirect).ok_or_else(|| Failed::Other("it leads nowhere".into()));
        }
        match status {
            StatusCode::TOO_MANY_REQUESTS => return Err(Failed::Busy),
            status if status.is_client_error() => return Err(Failed::Refused(status)),
            StatusCode::OK => {}
            status => return Err(Failed::Other(format!("the server answers {status}"))),
        }
        let too_large = || Failed::Other(format!("it has more than {most} bytes"));
        if !cut && response.content_length().is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let (no_index, no_follow) = wishes(response.headers());
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            bytes.extend_from_slice(&chunk[..chunk.len().min(most - bytes.len() + usize::from(!cut))]);
            if bytes.len() > most {
                return Err(too_large());
            }
            if cut && bytes.len() == most {
                break;
            }
        }
        Ok(Answer::File(Fetched { content_type, no_index, no_follow, bytes: bytes.into() }))
    }
}

/// `X-Robots-Tag`: what a server asks of crawlers for any kind of file
/// (<https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag>).
fn wishes(headers: &HeaderMap) -> (bool, bool) {
    let values = headers.get_all("x-robots-tag");
    let values: Vec<_> = values.iter().filter_map(|value| value.to_str().ok()).collect();
    let values = values.join(",").to_ascii_lowercase();
    let has = |wish| values.split([',', ':', ' ']).any(|value| value.trim() == wish);
    (has("noindex") || has("none"), has("nofollow") || has("none"))
}

/// Returns the error without the layers around it.
fn failure(error: reqwest::Error) -> Failed {
    let error = error.without_url();
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let innermost = innermost.to_string();
    Failed::Other(match () {
        () if innermost.contains(NOT_PUBLIC) => NOT_PUBLIC.to_owned(),
        () if error.is_timeout() => "it does not answer in time".to_owned(),
        () => format!("it cannot be reached: {innermost}"),
    })
}
