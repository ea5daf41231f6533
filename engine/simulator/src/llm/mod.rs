//! Simulated provider of language models: `POST /v1/chat/completions`, as OpenAI and many others offer it
//! (<https://platform.openai.com/docs/api-reference/chat/create>).
//!
//! It answers with the last question it was asked, so that answers can be distinguished. Contract of its account:
//! - Each key has limits of requests and tokens in any sliding minute, by the arrival of calls. A call over one of
//!   them is answered with 429 and counted as a violation; it uses none of the limits.
//! - Any other call is counted as a request, even where it is then made to fail. Its tokens are counted on arrival
//!   ([`Tokens`]), unless it is refused on purpose (429, 500): then no model has run.
//! - A call is paid where a model has run: it was answered, answered with a truncated body, or hangs; also where its
//!   caller disconnected before. [`LlmApi::paid`] lists each by its question.
//!
//! # Layout
//! - `limits`: limits and tokens; `fault`: injected faults; `call`: one call;
//!   `account`: the calls of each key, and the paid ones; `http`: the API.

mod account;
mod call;
mod fault;
mod http;
mod limits;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use heddle_schemas::ports::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use self::account::{Account, Paid};
use self::account::{Inner, Key, Shared};
pub use self::fault::Faults;
pub use self::limits::{Limits, Tokens};
use crate::dice::Dice;
use crate::{Error, serve};

/// Options of the provider.
#[derive(Debug, Clone)]
pub struct Options {
    /// Listen address; port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// Existing keys with their limits; `None` sets no limit.
    pub keys: HashMap<String, Option<Limits>>,
    /// Counting of tokens.
    pub tokens: Tokens,
    /// Latency of an answer. Default 500 ms.
    pub latency: Range<Duration>,
    /// Injected faults. Default: none.
    pub faults: Faults,
    /// Keeps each call (the default). A long run under load would fill the memory with them; without, the account
    /// holds only totals.
    pub keeps_calls: bool,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            keys: HashMap::new(),
            tokens: Tokens::default(),
            latency: Duration::from_millis(500)..Duration::from_millis(500),
            faults: Faults::default(),
            keeps_calls: true,
            seed: 0,
        }
    }
}

/// The running provider. Clones share it; dropping the last one stops it.
#[derive(Clone)]
pub struct LlmApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: Arc<watch::Sender<()>>,
}

impl LlmApi {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn start(options: Options, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let listen_error = |source| Error::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let keys = options.keys.into_iter();
        let keys = keys.map(|(key, limits)| (key, Key { limits, ..Key::default() })).collect();
        let shared = Arc::new(Shared {
            clock,
            dice: Dice::new(options.seed, 4),
            tokens: options.tokens,
            keeps_calls: options.keeps_calls,
            state: Mutex::new(Inner {
                keys,
                faults: options.faults,
                latency: options.latency,
                paid: HashMap::new(),
            }),
        });
        let app =
            Router::new().route("/v1/chat/completions", post(http::complete)).with_state(shared.clone());
        Ok(Self { address, shared, _stop: serve(listener, app) })
    }

    /// Returns the listen address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the `api_base` for a tenant's model.
    #[must_use]
    pub fn api_base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Replaces the injected faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.inner().faults = faults;
    }

    /// Replaces the latency of answers from now on.
    pub fn set_latency(&self, latency: Range<Duration>) {
        self.shared.inner().latency = latency;
    }

    /// Returns the counts of a key so far.
    #[must_use]
    pub fn account(&self, key: &str) -> Account {
        self.shared.inner().keys.get(key).map(|key| key.account).unwrap_or_default()
    }

    /// Returns the requests and tokens counted in a time range, by the provider's clock.
    #[must_use]
    pub fn counted(&self, key: &str, during: Range<Duration>) -> (u64, u64) {
        let inner = self.shared.inner();
        let calls = inner.keys.get(key).into_iter().flat_map(|key| &key.calls);
        let counted = calls.filter(|(at, _)| during.contains(at));
        counted.fold((0, 0), |(requests, tokens), (_, more)| (requests + 1, tokens + more))
    }

    /// Returns the paid calls by their question: the text of the last message of a user.
    #[must_use]
    pub fn paid(&self) -> HashMap<String, Vec<Paid>> {
        self.shared.inner().paid.clone()
    }
}
