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

/// Speaker of an utterance.
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
    /// By whom.
    pub by: Speaker,
    /// Text of the utterance.
    pub text: String,
}

/// A tool that a responder may have called before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name: letters, digits and underscores.
    pub name: &'static str,
    /// Description for the responder to read: what the tool does and when to call it.
    pub description: String,
    /// JSON Schema of its arguments, an object.
    pub parameters: Value,
}

/// A call of a tool that a responder asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The responder's name of the call.
    pub id: String,
    /// Name of the tool, as the responder gives it; there may be no tool of this name.
    pub name: String,
    /// Its arguments, as JSON.
    pub arguments: Value,
    /// Mark that the responder wants returned beside the call; only the responder reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// Tools that were called on the way to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When they were asked for.
    pub at: Timestamp,
    /// Text that the responder sent with the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The calls, in order.
    pub calls: Vec<ToolCall>,
    /// Results of the calls, as JSON, in the order of the calls; fewer while some are still to be made.
    pub results: Vec<Value>,
}

/// One thing that left for a provider: what can be compared with what the provider has, and no text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// When.
    pub at: Timestamp,
    /// To which provider, as it is configured.
    pub provider: String,
    /// To which of its models.
    pub model: String,
    /// Number of bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Record of everything that leaves in a turn, written before it leaves. Clones share one record.
#[derive(Debug, Clone, Default)]
pub struct Outgoing(Arc<Mutex<Vec<Sent>>>);

impl Outgoing {
    /// This is about to leave.
    pub fn add(&self, sent: Sent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
    }

    /// Takes the entries out of the record and returns them.
    #[must_use]
    pub fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A turn to answer.
#[derive(Debug, Clone)]
pub struct Question {
    /// When it is answered.
    pub at: Timestamp,
    /// For whom.
    pub tenant: Arc<Tenant>,
    /// Id of the turn.
    pub turn: TurnId,
    /// Number of the attempt at the turn, from 1.
    pub attempt: u32,
    /// Messages of the customer in this turn, in order.
    pub messages: Vec<String>,
    /// Utterances before this turn, in order.
    pub history: Vec<Said>,
    /// Passages of the tenant's documents about the messages, the best first.
    pub passages: Vec<Passage>,
    /// Name of the customer, where that is known.
    pub name: Option<String>,
    /// Other names that the customer was called by: they stand in what was said before.
    pub other_names: Vec<String>,
    /// Tools that may be called.
    pub tools: Vec<Tool>,
    /// Those that have been, in this turn.
    pub steps: Vec<Step>,
    /// Where is written down what leaves.
    pub outgoing: Outgoing,
}

/// Tokens and money used by a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens sent.
    pub input_tokens: u64,
    /// Tokens received.
    pub output_tokens: u64,
    /// Cost of the tokens.
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

/// Answer of a responder, or the tools to call before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text; `None` when nothing is known, and the tenant's fallback is said.
    pub text: Option<String>,
    /// Documents the answer rests on.
    pub sources: Vec<String>,
    /// Usage of the call.
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

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResponderError {
    /// Not now.
    #[error("the responder is busy: {detail}")]
    Busy {
        /// Detail that the responder gave.
        detail: String,
        /// When to try again, where it said so.
        retry_after: Option<Duration>,
        /// Usage that the call may have caused all the same.
        usage: Usage,
    },
    /// Not at all; the fallback is said.
    #[error("the responder failed: {detail}")]
    Failed {
        /// Detail that the responder gave.
        detail: String,
        /// Usage that the call may have caused all the same.
        usage: Usage,
    },
}

/// A responder.
#[async_trait]
pub trait Responder: Send + Sync + 'static {
    /// Returns whether answering calls the outside. Such a call is claimed before and never made twice for
    /// one turn, but by the stated policy; answering without it may be repeated freely.
    fn calls_outside(&self) -> bool;

    /// Returns whether it reads [`Question::passages`]; where it does not, none are looked up.
    fn reads_passages(&self) -> bool {
        true
    }

    /// Returns whether it has tools called; where it does not, it is offered none.
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
