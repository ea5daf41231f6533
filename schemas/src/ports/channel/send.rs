//! A message on its way to a channel's API, and the ways in which sending fails.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::Address;
use crate::id::OutboundId;
use crate::outgoing::OutgoingContent;

/// A message on its way to the channel's API.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboundMessage {
    /// Its id; comes back in every status.
    pub id: OutboundId,
    /// Its recipient.
    pub to: Address,
    /// Its content.
    pub content: OutgoingContent,
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
    /// Transient failure of the channel: retry with backoff. The message was not accepted.
    Temporary,
    /// Accepted or not: the connection was lost after the request was sent, or no answer came in time.
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

/// Extent of a failed send. The sender acts on messages, pairs, persons and numbers; the others are carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This message alone.
    Message,
    /// The pair of the number and the person.
    Pair,
    /// The person, from whichever number of the business.
    Person,
    /// The number, or the account that it stands for.
    #[default]
    Number,
    /// Every message of the same template.
    Template,
    /// Every number of the business account (WhatsApp: WABA).
    Waba,
    /// Every business account of the portfolio.
    Portfolio,
}

impl From<FailureClass> for Scope {
    /// The extent of a class, where the channel's code names no other.
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::PairLimited => Self::Pair,
            FailureClass::OptedOut => Self::Person,
            FailureClass::Final => Self::Message,
            _ => Self::Number,
        }
    }
}

/// Failure of a send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class:?}{}: {detail}", code.map(|code| format!(" (code {code})")).unwrap_or_default())]
pub struct SendError {
    /// Its meaning.
    pub class: FailureClass,
    /// Its extent.
    pub scope: Scope,
    /// The channel's code.
    pub code: Option<i64>,
    /// The channel's words; no address, text or token.
    pub detail: String,
    /// The wait before another attempt, where the channel asks for one.
    pub retry_after: Option<Duration>,
}

impl SendError {
    /// A failure without code or wait, of the extent of its class.
    #[must_use]
    pub fn new(class: FailureClass, detail: impl Into<String>) -> Self {
        Self { class, scope: class.into(), code: None, detail: detail.into(), retry_after: None }
    }
}

/// A message that the channel's API has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The channel's id of it.
    pub message_id: String,
    /// The channel holds it back until it has judged its quality: a status says whether it was sent.
    pub held: bool,
    /// Ids of the recipient that the answer shows: addresses of one person.
    pub shows: Vec<Address>,
}

impl Accepted {
    /// A message that was accepted under this id, and nothing more.
    #[must_use]
    pub fn new(message_id: impl Into<String>) -> Self {
        Self { message_id: message_id.into(), held: false, shows: Vec::new() }
    }
}
