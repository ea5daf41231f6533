//! The WhatsApp Cloud API as a [`Channel`].
//!
//! The contract: reading a webhook loses nothing that it says and fails only on a body that is no
//! JSON object; a send goes out once, and its error says whether the message was surely not taken
//! or whether nobody knows. Facts are from Meta's pages under
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/>, cited where used.
//!
//! # Layout
//! - `signature`: is the body from Meta?
//! - `webhook`: the body's entries and changes; `message`, `status`, `sender` read what is in them;
//!   `preference` what people set about marketing; `field` reads JSON whose fields may be absent or of another type.
//! - `send`: one POST to the Graph API; `failure` says what an answer means.

mod failure;
mod field;
mod message;
mod preference;
mod send;
mod sender;
mod signature;
mod status;
mod webhook;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::channel::{
    Accepted, Access, Channel, ChannelEvent, OutboundMessage, SendError, WebhookError,
};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::sealed::Secret;
use reqwest::Client;

use crate::http;

pub use failure::Refusal;
pub use send::MAX_TEXT_CHARS;

/// How the API is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long a connection may take, name look-up and TLS included; shorter than `timeout`, so
    /// that a dead network is told from a send that nobody knows about. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a send may take as a whole; after it the message counts as unknown. Default 30 s.
    pub timeout: Duration,
    /// How long an unused connection is kept. TtlUpdate than what servers allow (a minute or more),
    /// because a send on a connection that is just being closed is one that nobody knows about.
    /// Default 20 s.
    pub idle: Duration,
    /// How many unused connections are kept to one host. Default 64.
    pub idle_connections: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            idle: Duration::from_secs(20),
            idle_connections: NonZeroUsize::new(64).expect("64 is not zero"),
        }
    }
}

/// Why the channel cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client of the WhatsApp channel cannot be set up")]
pub struct SetupError(#[from] reqwest::Error);

/// The WhatsApp Cloud API. Cheap to share; holds the connections.
pub struct WhatsApp {
    client: Client,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for WhatsApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WhatsApp").finish_non_exhaustive()
    }
}

impl WhatsApp {
    /// A channel that calls the API as `options` say. The clock stamps what a webhook leaves
    /// unstamped, and turns the date of a `Retry-After` into a wait.
    ///
    /// # Errors
    /// When the HTTP client cannot be built, such as without TLS root certificates.
    pub fn new(options: &Options, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        // The client's own retries stay at their default, requests that HTTP/2 itself calls unprocessed
        // (RFC 9113, 8.7): those were never taken.
        let client = http::client()
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .pool_idle_timeout(options.idle)
            .pool_max_idle_per_host(options.idle_connections.get())
            .build()?;
        Ok(Self { client, clock })
    }
}

#[async_trait]
impl Channel for WhatsApp {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Whatsapp
    }

    fn verify(&self, app_secret: &Secret, signature: Option<&str>, body: &[u8]) -> Result<(), WebhookError> {
        signature::verify(app_secret, signature, body)
    }

    fn parse(&self, body: &[u8]) -> Result<Vec<ChannelEvent>, WebhookError> {
        webhook::parse(body, self.clock.now())
    }

    fn is_opt_out(&self, code: i64) -> bool {
        failure::is_opt_out(code)
    }

    async fn send(&self, access: &Access, message: &OutboundMessage) -> Result<Accepted, SendError> {
        send::send(&self.client, &*self.clock, access, message).await
    }
}
