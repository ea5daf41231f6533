//! A simulated provider of language models: `POST /v1/chat/completions`, as OpenAI and many others have it
//! (<https://platform.openai.com/docs/api-reference/chat/create>).
//!
//! It answers with what it was asked last, so that answers can be told apart. Contract of its account:
//! - Each key has its limits of requests and tokens in any minute, wherever that begins, by the arrival of calls.
//!   A call over one of them is answered with 429 and counted as a violation; it takes nothing of the limits.
//! - Any other call is counted as a request, also where it is then made to fail. Its tokens are counted on arrival
//!   ([`Tokens`]), but where it is refused on purpose (429, 500): there no model has worked.
//! - A call is paid where a model has worked: it was answered, answered with a body that breaks off, or hangs; also
//!   where its caller was gone before. [`LlmApi::paid`] has each by what it asked.
//!
//! # Layout
//! - `limits`: limits and tokens; `fault`: what goes wrong; `call`: one call;
//!   `account`: the calls of each key, and which were paid; `http`: the API.

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

/// How the provider behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// The keys there are, and what each may use; no limit where there is none.
    pub keys: HashMap<String, Option<Limits>>,
    /// How tokens are counted.
    pub tokens: Tokens,
    /// How long an answer takes. Default 500 ms.
    pub latency: Range<Duration>,
    /// What goes wrong. Default: nothing.
    pub faults: Faults,
    /// Whether each call is kept (the default). A long run under load would only fill memory with them: then the
    /// account tells sums alone.
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

/// The running provider. Clones share it; when the last one is gone it takes no more connections.
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a model takes as `api_base`.
    #[must_use]
    pub fn api_base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Replaces what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.inner().faults = faults;
    }

    /// Replaces how long answers take from now on.
    pub fn set_latency(&self, latency: Range<Duration>) {
        self.shared.inner().latency = latency;
    }

    /// What has come under a key so far.
    #[must_use]
    pub fn account(&self, key: &str) -> Account {
        self.shared.inner().keys.get(key).map(|key| key.account).unwrap_or_default()
    }

    /// Requests and tokens that were counted from one time on and before another, by the provider's clock.
    #[must_use]
    pub fn counted(&self, key: &str, during: Range<Duration>) -> (u64, u64) {
        let inner = self.shared.inner();
        let calls = inner.keys.get(key).into_iter().flat_map(|key| &key.calls);
        let counted = calls.filter(|(at, _)| during.contains(at));
        counted.fold((0, 0), |(requests, tokens), (_, more)| (requests + 1, tokens + more))
    }

    /// Each paid call, by what it asked: the text of its last message of a user.
    #[must_use]
    pub fn paid(&self) -> HashMap<String, Vec<Paid>> {
        self.shared.inner().paid.clone()
    }
}
