//! A message on its way to a channel's API, and the ways in which sending fails.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::{Address, Content};
use crate::id::OutboundId;

/// A message on its way to the channel's API.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboundMessage {
    /// Its id; comes back in every status.
    pub id: OutboundId,
    /// Its recipient.
    pub to: Address,
    /// Its content.
    pub content: Content,
}

/// The meaning of a failed send for the account and for the message. A channel sorts its codes into these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The account sends too fast: slow down, then again.
    RateLimited,
    /// This pair of account and user is too fast: this pair alone pauses, as the profile's
    /// [`PairLimit`](super::profile::PairLimit) says.
    PairLimited,
    /// Passing trouble of the channel: again with backoff. The message was not accepted.
    Temporary,
    /// Accepted or not, and nothing tells which: connection lost after the request was sent, no answer in time.
    Unknown,
    /// This message will never be accepted.
    Final,
    /// As [`FailureClass::Final`], and the user wants no more of this kind.
    OptedOut,
    /// The credentials are invalid or expired: suspend the account until it has others.
    Unauthorized,
    /// The account is locked or unpaid, or its address is wrong: suspend it until an operator has acted.
    Blocked,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class:?}{}: {detail}", code.map(|code| format!(" (code {code})")).unwrap_or_default())]
pub struct SendError {
    /// Its meaning.
    pub class: FailureClass,
    /// The channel's code.
    pub code: Option<i64>,
    /// The channel's words; no address, text or token.
    pub detail: String,
    /// The wait before another attempt, where the channel asks for one.
    pub retry_after: Option<Duration>,
}

impl SendError {
    /// A failure without code or wait.
    #[must_use]
    pub fn new(class: FailureClass, detail: impl Into<String>) -> Self {
        Self { class, code: None, detail: detail.into(), retry_after: None }
    }
}

/// A message that the channel's API has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The channel's id of it.
    pub message_id: String,
}
