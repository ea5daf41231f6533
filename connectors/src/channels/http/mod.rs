//! A program of one's own as a [`Channel`]: signed JSON webhooks in, signed JSON posts out.
//!
//! Both ways follow the Standard Webhooks specification
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>): a website chat, or an
//! automation such as Zapier or Make, posts what a visitor writes and gets the replies posted to the account's URL.
//! deploy/docs/channels/http.md documents the payloads; `fixtures` holds some of each.
//!
//! The contract: a webhook that is signed and readable loses nothing, and an event type that this build does not know
//! becomes a notice. A send goes out once, under a `webhook-id` that is the same for each attempt at one message, so
//! that the receiver recognises a repetition.
//!
//! # Layout
//! - [`PROFILE`]: limits, ids and credentials.
//! - `signature`: signing and verification; `inbound`: the events of a webhook; `send`: one post and its answer.

mod inbound;
mod profile;
mod send;
mod signature;

use std::sync::Arc;

use async_trait::async_trait;
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::channel::{
    Accepted, Channel, ChannelAccount, ChannelEvent, ChannelProfile, OutboundMessage, SendError, WebhookError,
};
use heddle_schemas::ports::clock::Clock;
use reqwest::Client;
use reqwest::header::HeaderMap;

use super::client::{self, Options, SetupError};
use crate::egress::Egress;

pub use profile::{PROFILE, SIGNING_SECRET, WEBHOOK_SECRET};

/// The channel to programs of one's own. Cheap to share; holds the connections.
pub struct Http {
    client: Client,
    egress: Egress,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// Creates the channel. The clock stamps what it sends, and decides which webhooks are too old.
    ///
    /// # Errors
    /// If the HTTP client cannot be built, such as without TLS root certificates.
    pub fn new(options: &Options, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        Ok(Self { client: client::client(options)?, egress: options.egress.clone(), clock })
    }
}

#[async_trait]
impl Channel for Http {
    fn profile(&self) -> &'static ChannelProfile {
        &PROFILE
    }

    fn verify(&self, account: &ChannelAccount, headers: &HeaderMap, body: &[u8]) -> Result<(), WebhookError> {
        signature::verify(account.credential(WEBHOOK_SECRET), headers, body, self.clock.now())
    }

    fn parse(&self, account: &AccountId, body: &[u8]) -> Result<Vec<ChannelEvent>, WebhookError> {
        inbound::parse(account, body, self.clock.now()).map(|event| vec![event])
    }

    /// A visitor says so in words, which every channel's texts are searched for.
    fn is_opt_out(&self, _code: i64) -> bool {
        false
    }

    async fn send(&self, account: &ChannelAccount, message: &OutboundMessage) -> Result<Accepted, SendError> {
        send::send((&self.client, &self.egress), &*self.clock, account, message).await
    }
}
