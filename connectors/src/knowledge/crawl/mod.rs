//! Crawler of one site's pages: one after another, politely and within bounds.
//!
//! A crawl stays within one site: the scheme, host and port that its first page is found at, after redirects.
//! It visits the nearest pages first, requests one page at a time with a pause in between, follows
//! `robots.txt` (RFC 9309), pages' own wishes (`noindex`, `nofollow`), and its bounds of pages, depth,
//! bytes and time. Every hop of a redirect is checked as a link is; only public addresses are reached, see
//! [`address`]. No proxy is used, whatever the environment says: it would resolve names itself. Answers are
//! requested uncompressed, so none grows when it is read.
//!
//! It runs in the command that adds a site, not in a node: a caller of a node's API cannot make it reach
//! for addresses of their choice, and a slow site blocks no other work.
//!
//! # Layout
//! - [`address`]: the addresses that may be reached.
//! - `fetch`: one page or file of a site.

pub mod address;
mod fetch;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use robotxt::{AccessResult, Robots};
use sha2::{Digest, Sha256};
use tokio::time::Sleep;

use self::address::{Rule, is_public};
use self::fetch::{Answer, Failed, Fetcher};
use super::extract::{File, Kind, html};

/// The name that `robots.txt` may speak to.
const AGENT: &str = "heddle";
/// Bytes of `robots.txt` that are read: one more than count (RFC 9309, 2.5: at least 500 KiB do).
const ROBOTS_BYTES: usize = robotxt::BYTE_LIMIT + 1;
/// Maximum pause that a site may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Maximum number of addresses that wait, for each page that may be taken.
const WAITING_A_PAGE: usize = 100;
/// Bytes of a document's id.
const ID_BYTES: usize = 512;

/// The bounds of a crawl.
#[derive(Clone)]
pub struct Options {
    /// Pages that are taken. Default: 100.
    pub max_pages: NonZeroUsize,
    /// Links from the first page on to a page. Default: 5.
    pub max_depth: usize,
    /// Bytes of one page or file. Default: 8 MiB.
    pub page_bytes: NonZeroUsize,
    /// Bytes of all together. Default: 128 MiB.
    pub total_bytes: NonZeroUsize,
    /// Timeout of one page. Default: 20 s.
    pub page_timeout: Duration,
    /// Timeout of the whole crawl. Default: 15 minutes.
    pub total_timeout: Duration,
    /// Minimum pause between two requests; a site may ask for more. Default: 500 ms.
    pub pause: Duration,
    /// Addresses that may be reached. Default: [`is_public`]; any other is for tests.
    pub addresses: Rule,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_pages: const { NonZeroUsize::new(100).unwrap() },
            max_depth: 5,
            page_bytes: const { NonZeroUsize::new(8 << 20).unwrap() },
            total_bytes: const { NonZeroUsize::new(128 << 20).unwrap() },
            page_timeout: Duration::from_secs(20),
            total_timeout: Duration::from_secs(15 * 60),
            pause: Duration::from_millis(500),
            addresses: Arc::new(is_public),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_pages", &self.max_pages)
            .field("max_depth", &self.max_depth)
            .finish_non_exhaustive()
    }
}

/// Error of beginning a crawl.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{url}: {why}")]
pub struct CrawlError {
    /// The page that it was to begin with.
    pub url: String,
    /// Cause.
    pub why: String,
}

/// Outcome of visiting an address.
#[derive(Debug, Clone)]
pub enum Visit {
    /// A page or file to add; its id is its address.
    Found(File),
    /// An address was skipped.
    Skipped {
        /// Address that was skipped.
        url: String,
        /// Reason.
        why: String,
    },
    /// The crawl ends before all pages were visited.
    Stopped {
        /// Bound that was reached.
        why: String,
    },
}

/// A crawl under way.
pub struct Crawl {
    options: Options,
    fetcher: Fetcher,
    site: Url,
    robots: Robots,
    pause: Duration,
    deadline: Pin<Box<Sleep>>,
    first: Option<(Url, Answer)>,
    waiting: VecDeque<(Url, usize)>,
    seen: HashSet<String>,
    contents: HashSet<[u8; 32]>,
    pages: usize,
    bytes: usize,
    is_over: bool,
}

impl Crawl {
    /// Begins with this page: reads the site's `robots.txt` and the page itself.
    ///
    /// # Errors
    /// [`CrawlError`]: no address of a page, one that may not be reached, `robots.txt` forbids it, or it does
    /// not answer.
    pub async fn begin(url: &str, options: Options) -> Result<Self, CrawlError> {
        let failed = |why: String| CrawlError { url: url.to_owned(), why };
        let mut start: Url = url.parse().map_err(|error| failed(format!("it is no address: {error}")))?;
        start.set_fragment(None);
        let fetcher = Fetcher::new(&options).map_err(failed)?;
        let mut deadline = Box::pin(tokio::time::sleep(options.total_timeout));
        let begun = async {
            let mut robots = robots(&fetcher, &start).await?;
            let mut at = start;
            // The first page may redirect to the actual site, such as from http to https.
            for _ in 0..=fetch::MOST_HOPS {
                if !robots.is_url_allowed(&at) {
                    return Err(format!("the site's robots.txt forbids {at}"));
                }
                match fetcher.get(&at).await.map_err(|failed| failed.to_string())? {
                    Answer::Redirect(to) => {
                        fetcher.check(&to).map_err(|why| format!("it leads to {to}: {why}"))?;
                        if to.origin() != at.origin() {
                            robots = self::robots(&fetcher, &to).await?;
                        }
                        at = to;
                    }
                    answer => return Ok((at, robots, answer)),
                }
            }
            Err("it leads from one address to the next without an end".to_owned())
        };
        let (site, robots, answer) = tokio::select! {
            begun = begun => begun.map_err(failed)?,
            () = &mut deadline => return Err(failed("it does not answer in time".into())),
        };
        let wanted = robots.crawl_delay().unwrap_or_default();
        let pause = wanted.min(LONGEST_PAUSE).max(options.pause);
        let seen = HashSet::from([site.as_str().to_owned()]);
        Ok(Self {
            options,
            fetcher,
            robots,
            pause,
            deadline,
            first: Some((site.clone(), answer)),
            site,
            waiting: VecDeque::new(),
            seen,
            contents: HashSet::new(),
            pages: 0,
            bytes: 0,
            is_over: false,
        })
    }

    /// The next address, once it has been read or left out; `None` at the end.
    pub async fn next(&mut self) -> Option<Visit> {
        if self.is_over {
            return None;
        }
        if let Some((url, answer)) = self.first.take() {
            return Some(self.visited(url, 0, Ok(answer)));
        }
        let (url, depth) = self.waiting.pop_front()?;
        if self.pages >= self.options.max_pages.get() {
            return Some(self.stop(format!("the limit of {} pages is reached", self.pages)));
        }
        if self.bytes >= self.options.total_bytes.get() {
            return Some(self.stop(format!("{} bytes are read, more are not", self.bytes)));
        }
        let pause = self.pause;
        let answer = async {
            tokio::time::sleep(pause).await;
            self.fetcher.get(&url).await
        };
        let answer = tokio::select! {
            answer = answer => answer,
            () = &mut self.deadline => {
                let timeout = self.options.total_timeout;
                return Some(self.stop(format!("it has reached its time limit of {timeout:?}")));
            }
        };
        Some(self.visited(url, depth, answer))
    }

    fn stop(&mut self, why: String) -> Visit {
        self.is_over = true;
        let left = self.waiting.len() + 1;
        Visit::Stopped { why: format!("{why}; {left} known addresses were left out") }
    }

    fn visited(&mut self, url: Url, depth: usize, answer: Result<Answer, Failed>) -> Visit {
        let skipped = |why: String| Visit::Skipped { url: url.to_string(), why };
        let file = match answer {
            Ok(Answer::File(file)) => file,
            Ok(Answer::Redirect(to)) => {
                let why =
                    if to.origin() == self.site.origin() { "it leads to" } else { "it leaves the site for" };
                let why = format!("{why} {to}");
                self.wait_for(&to, depth);
                return skipped(why);
            }
            Err(failed @ Failed::Busy) => {
                self.waiting.push_front((url, depth));
                return self.stop(failed.to_string());
            }
            Err(failed) => return skipped(failed.to_string()),
        };
        self.bytes += file.bytes.len();
        let mut no_index = file.no_index;
        if Kind::of_type(&file.content_type) == Some(Kind::Html) {
            let links = html::links(&file.bytes, None);
            no_index |= links.no_index;
            if !links.no_follow && !file.no_follow {
                let base = links.base.and_then(|base| url.join(&base).ok());
                let base = base.unwrap_or_else(|| url.clone());
                for link in links.links.iter().filter_map(|link| base.join(&link.href).ok()) {
                    self.wait_for(&link, depth + 1);
                }
            }
        }
        if no_index {
            return skipped("it asks not to be indexed".into());
        }
        if Kind::of_type(&file.content_type).is_none() {
            return skipped(format!("{} is not accepted", file.content_type));
        }
        if url.as_str().len() > ID_BYTES {
            return skipped(format!("its address is longer than {ID_BYTES} bytes"));
        }
        if !self.contents.insert(Sha256::digest(&file.bytes).into()) {
            return skipped("it is the same as another page".into());
        }
        self.pages += 1;
        let content_type = Some(file.content_type);
        Visit::Found(File { id: url.into(), title: None, content_type, bytes: file.bytes })
    }

    /// Queues an address, if it may be visited.
    fn wait_for(&mut self, url: &Url, depth: usize) {
        let mut url = url.clone();
        url.set_fragment(None);
        let most = self.options.max_pages.get().saturating_mul(WAITING_A_PAGE);
        let is_ours = url.origin() == self.site.origin() && depth <= self.options.max_depth;
        if is_ours
            && self.seen.len() < most
            && !self.seen.contains(url.as_str())
            && self.fetcher.check(&url).is_ok()
            && self.robots.is_url_allowed(&url)
        {
            self.seen.insert(url.as_str().to_owned());
            self.waiting.push_back((url, depth));
        }
    }
}

impl fmt::Debug for Crawl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crawl").field("site", &self.site).field("pages", &self.pages).finish_non_exhaustive()
    }
}

/// Reads the site's rules for crawlers. A site without `robots.txt` permits everything; one that cannot answer now
/// is not crawled (RFC 9309, 2.3.1.3 and 2.3.1.4).
async fn robots(fetcher: &Fetcher, site: &Url) -> Result<Robots, String> {
    fetcher.check(site)?;
    let mut at = site.join("/robots.txt").map_err(|error| error.to_string())?;
    let mut answer = fetcher.get_whole(&at, ROBOTS_BYTES).await;
    for _ in 0..fetch::MOST_HOPS {
        let Ok(Answer::Redirect(to)) = answer else { break };
        fetcher.check(&to).map_err(|why| format!("its robots.txt leads to {to}: {why}"))?;
        at = to;
        answer = fetcher.get_whole(&at, ROBOTS_BYTES).await;
    }
    let access = match &answer {
        Ok(Answer::File(file)) => AccessResult::Successful(&file.bytes),
        Ok(Answer::Redirect(_)) => AccessResult::TooManyRedirects,
        Err(Failed::Refused(_)) => AccessResult::Unavailable,
        Err(failed) => return Err(format!("its robots.txt cannot be read, so nothing of it is: {failed}")),
    };
    Ok(Robots::from_access(access, AGENT))
}

#[cfg(test)]
mod tests;
