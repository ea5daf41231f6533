//! The responder: what to answer in a turn.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::knowledge::Passage;
use crate::id::TurnId;
use crate::money::Money;
use crate::tenant::Tenant;
use crate::time::Timestamp;

/// Speaker in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The customer.
    Customer,
    /// The agent.
    Agent,
}

/// Something said earlier in the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The speaker.
    pub by: Speaker,
    /// The text.
    pub text: String,
}

/// A tool that a responder may have called before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name: letters, digits and underscores.
    pub name: &'static str,
    /// Its effect and when to call it, for the responder to read.
    pub description: String,
    /// JSON Schema of its arguments, an object.
    pub parameters: Value,
}

/// A call of a tool that a responder asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The responder's name of the call.
    pub id: String,
    /// The name of the tool, as the responder gives it; there may be none of this name.
    pub name: String,
    /// Its arguments, as JSON.
    pub arguments: Value,
    /// Opaque value that the responder wants back beside the call; the engine does not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// Tools that were called on the way to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Time at which they were asked for.
    pub at: Timestamp,
    /// The responder's text beside the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The calls, in order.
    pub calls: Vec<ToolCall>,
    /// Results of the calls, as JSON, in the order of the calls; fewer while some are still to be made.
    pub results: Vec<Value>,
}

/// Record of one request to a provider, to be compared with the provider's own records; it holds no text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The time.
    pub at: Timestamp,
    /// The provider, as it is configured.
    pub provider: String,
    /// The provider's model.
    pub model: String,
    /// The number of bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Requests of a turn to providers, recorded before they are sent. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Outgoing(Arc<Mutex<Vec<Sent>>>);

impl Outgoing {
    /// Records a request that is about to be sent.
    pub fn add(&self, sent: Sent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
    }

    /// Takes the recorded requests.
    #[must_use]
    pub fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A turn to answer.
#[derive(Debug, Clone)]
pub struct Question {
    /// The time of the answer.
    pub at: Timestamp,
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// The turn.
    pub turn: TurnId,
    /// The number of the attempt at it, from 1.
    pub attempt: u32,
    /// The customer's messages in this turn, in order.
    pub messages: Vec<String>,
    /// Earlier messages, in order.
    pub history: Vec<Said>,
    /// Passages of the tenant's documents about it, the best first.
    pub passages: Vec<Passage>,
    /// The customer's name, where it is known.
    pub name: Option<String>,
    /// Other names that the customer was called by; they occur in earlier messages.
    pub other_names: Vec<String>,
    /// Tools that may be called.
    pub tools: Vec<Tool>,
    /// Tools called so far in this turn.
    pub steps: Vec<Step>,
    /// Record of the requests to providers.
    pub outgoing: Outgoing,
}

/// Usage of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens sent.
    pub input_tokens: u64,
    /// Tokens received.
    pub output_tokens: u64,
    /// The cost of the tokens.
    pub money: Money,
}

impl Usage {
    /// Tokens sent and received.
    #[must_use]
    pub fn tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.money = Money::from_micros(self.money.as_micros().saturating_add(other.money.as_micros()));
    }
}

/// Answer of a responder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text; `None` when nothing is known, and the tenant's fallback is said.
    pub text: Option<String>,
    /// Documents the answer rests on.
    pub sources: Vec<String>,
    /// The usage.
    pub usage: Usage,
    /// Tools to call first: then it is no answer yet, and its text is not said.
    pub calls: Vec<ToolCall>,
}

impl Answer {
    /// One that says nothing, as when nothing is known.
    #[must_use]
    pub fn none(usage: Usage) -> Self {
        Self { text: None, sources: Vec::new(), usage, calls: Vec::new() }
    }

    /// One that says this, resting on no document.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::none(Usage::default()) }
    }
}

/// Failure to answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResponderError {
    /// Not now.
    #[error("the responder is busy: {detail}")]
    Busy {
        /// The responder's error.
        detail: String,
        /// Time to wait before a retry, where the responder gave one.
        retry_after: Option<Duration>,
        /// The usage that it may have had all the same.
        usage: Usage,
    },
    /// Not at all; the fallback is said.
    #[error("the responder failed: {detail}")]
    Failed {
        /// The responder's error.
        detail: String,
        /// The usage that it may have had all the same.
        usage: Usage,
    },
}

/// A responder.
#[async_trait]
pub trait Responder: Send + Sync + 'static {
    /// Returns whether answering calls an external service. Such a call is claimed before and never made twice for one
    /// turn, except by the stated policy; answering without it may be repeated freely.
    fn calls_outside(&self) -> bool;

    /// Returns whether it reads [`Question::passages`]; where it does not, none are searched for.
    fn reads_passages(&self) -> bool {
        true
    }

    /// Returns whether it calls tools; where it does not, none are offered.
    fn calls_tools(&self) -> bool {
        false
    }

    /// The most that answering once may use, whatever becomes of the calls.
    fn most(&self, _: &Question) -> Usage {
        Usage::default()
    }

    /// Answers a turn, or asks for tools to be called first.
    ///
    /// # Errors
    /// [`ResponderError`].
    async fn answer(&self, question: Question) -> Result<Answer, ResponderError>;
}
