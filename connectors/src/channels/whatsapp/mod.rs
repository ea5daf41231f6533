//! The WhatsApp Cloud API as a [`Channel`].
//!
//! The contract: reading a webhook loses nothing that it says and fails only on a body that is no
//! JSON object; a send goes out once, and its error says that the message was surely not accepted,
//! or that its outcome is unknown. Facts are from Meta's pages under
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/>, cited where used.
//!
//! # Layout
//! - [`PROFILE`]: limits, ids and credentials.
//! - `handshake`: the GET by which Meta subscribes a webhook; `signature`: verification of a body.
//! - `webhook`: the body's entries and changes; `message`, `status`, `sender` read what is in them;
//!   `preference` what people set about marketing; `field` reads JSON whose fields may be absent or of another type.
//! - `send`: one POST to the Graph API, with the `body` of each kind of content to the `endpoint` that takes it;
//!   `failure` sorts its answers.

mod body;
mod endpoint;
mod failure;
mod field;
mod handshake;
mod message;
mod preference;
mod profile;
mod send;
mod sender;
mod signature;
mod status;
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::channel::{
    Accepted, Channel, ChannelAccount, ChannelEvent, ChannelProfile, HandshakeError, OutboundMessage,
    SendError, WebhookError,
};
use heddle_schemas::ports::clock::Clock;
use reqwest::Client;
use reqwest::header::HeaderMap;

use self::endpoint::Endpoints;
use super::client;
pub use super::client::{Options, SetupError};
use crate::egress::Egress;

pub use failure::Refusal;
pub use profile::{ACCESS_TOKEN, APP_SECRET, PROFILE, VERIFY_TOKEN};

/// The WhatsApp Cloud API. Cheap to share; holds the connections.
pub struct WhatsApp {
    client: Client,
    egress: Egress,
    clock: Arc<dyn Clock>,
    endpoints: Endpoints,
}

impl std::fmt::Debug for WhatsApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WhatsApp").finish_non_exhaustive()
    }
}

impl WhatsApp {
    /// Creates the channel. The clock stamps parts of a webhook that have no time of their
    /// own, and turns the date of a `Retry-After` into a wait.
    ///
    /// # Errors
    /// If the HTTP client cannot be built, such as without TLS root certificates.
    pub fn new(options: &Options, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        Ok(Self {
            client: client::client(options)?,
            egress: options.egress.clone(),
            clock,
            endpoints: Endpoints::default(),
        })
    }
}

#[async_trait]
impl Channel for WhatsApp {
    fn profile(&self) -> &'static ChannelProfile {
        &PROFILE
    }

    fn handshake(
        &self,
        account: &ChannelAccount,
        query: &[(String, String)],
    ) -> Result<String, HandshakeError> {
        handshake::answer(account.credential(VERIFY_TOKEN), query)
    }

    fn verify(&self, account: &ChannelAccount, headers: &HeaderMap, body: &[u8]) -> Result<(), WebhookError> {
        signature::verify(account.credential(APP_SECRET), headers, body)
    }

    /// A body says itself of which numbers it speaks, so `account` adds nothing.
    fn parse(&self, _account: &AccountId, body: &[u8]) -> Result<Vec<ChannelEvent>, WebhookError> {
        webhook::parse(body, self.clock.now())
    }

    fn is_opt_out(&self, code: i64) -> bool {
        failure::is_opt_out(code)
    }

    async fn send(&self, account: &ChannelAccount, message: &OutboundMessage) -> Result<Accepted, SendError> {
        let to = (&self.client, &self.egress, &self.endpoints);
        send::send(to, &*self.clock, account, message).await
    }
}
