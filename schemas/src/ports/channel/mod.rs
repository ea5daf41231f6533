//! A channel: its profile, the handshake and verification of its webhooks, their events, and sending.
//!
//! A channel is one folder of connectors and a line of its registry. Everything that differs between channels is
//! here: the engine asks the channel, or reads its [`ChannelProfile`], and names none of them.
//!
//! # Layout
//! - [`profile`]: limits, identity scopes and credentials, as constants of the channel.
//! - [`account`]: an account of a tenant on a channel, as it is configured.
//! - [`event`]: the events of a webhook.
//! - [`send`]: a message to send, and the ways in which sending fails.

pub mod account;
pub mod event;
pub mod profile;
pub mod send;

use async_trait::async_trait;
use http::HeaderMap;

pub use self::account::{ChannelAccount, Credentials};
pub use self::event::{Act, ChannelEvent, ReceivedMessage, ReceivedPreference, ReceivedStatus};
pub use self::profile::ChannelProfile;
pub use self::send::{Accepted, FailureClass, OutboundMessage, Scope, SendError};
use crate::id::{AccountId, ChannelKind};

/// Reason for which a webhook's body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The signature is missing or wrong.
    #[error("the signature is missing or wrong")]
    Signature,
    /// The body is no JSON, or not of the channel's shape.
    #[error("the body cannot be read: {0}")]
    Body(String),
}

/// Reason for which a webhook's subscription is not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The request does not show the account's secret.
    #[error("the verify token is wrong")]
    Refused,
    /// The channel subscribes webhooks without a handshake.
    #[error("this channel has no handshake")]
    Unsupported,
}

/// A channel.
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// Its limits, identity scopes and credentials.
    fn profile(&self) -> &'static ChannelProfile;

    /// Its kind.
    fn kind(&self) -> ChannelKind {
        self.profile().kind
    }

    /// The answer to a GET by which the provider subscribes a webhook of this account; `query` holds the decoded
    /// parameters in their order. Secrets are compared in constant time.
    ///
    /// # Errors
    /// [`HandshakeError`].
    fn handshake(
        &self,
        account: &ChannelAccount,
        query: &[(String, String)],
    ) -> Result<String, HandshakeError> {
        let _ = (account, query);
        Err(HandshakeError::Unsupported)
    }

    /// Checks that the raw body comes from the channel and is for this account, in constant time.
    ///
    /// # Errors
    /// [`WebhookError::Signature`].
    fn verify(&self, account: &ChannelAccount, headers: &HeaderMap, body: &[u8]) -> Result<(), WebhookError>;

    /// Reads the body of a webhook that came to this account. A body may speak of other accounts too; what the
    /// channel does not know becomes [`Content::Unknown`](crate::content::Content::Unknown) or
    /// [`ChannelEvent::Notice`], never an error.
    ///
    /// # Errors
    /// [`WebhookError::Body`].
    fn parse(&self, account: &AccountId, body: &[u8]) -> Result<Vec<ChannelEvent>, WebhookError>;

    /// Returns whether a failure with this code means that the person wants no more marketing.
    fn is_opt_out(&self, code: i64) -> bool;

    /// Sends a message, once: retrying is the account's decision.
    ///
    /// # Errors
    /// [`SendError`].
    async fn send(&self, account: &ChannelAccount, message: &OutboundMessage) -> Result<Accepted, SendError>;
}
