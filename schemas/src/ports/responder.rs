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

/// Who said something.
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
    /// What.
    pub text: String,
}

/// A tool that a responder may have called before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name: letters, digits and underscores.
    pub name: &'static str,
    /// What it does and when to call it, for the responder to read.
    pub description: String,
    /// JSON Schema of its arguments, an object.
    pub parameters: Value,
}

/// A call of a tool that a responder asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The responder's name of the call.
    pub id: String,
    /// Which tool, as the responder names it; there may be none of this name.
    pub name: String,
    /// Its arguments, as JSON.
    pub arguments: Value,
    /// What the responder wants to see again beside the call; nobody else reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// Tools that were called on the way to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When they were asked for.
    pub at: Timestamp,
    /// What the responder said with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The calls, in order.
    pub calls: Vec<ToolCall>,
    /// What they gave, as JSON, in the order of the calls; fewer while some are still to be made.
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
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

/// What has left in a turn, written down before it does. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Outgoing(Arc<Mutex<Vec<Sent>>>);

impl Outgoing {
    /// This is about to leave.
    pub fn add(&self, sent: Sent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
    }

    /// What has left.
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
    /// Which turn.
    pub turn: TurnId,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// What the customer says in this turn, in order.
    pub messages: Vec<String>,
    /// What was said before, in order.
    pub history: Vec<Said>,
    /// What the tenant's documents say about it, the best first.
    pub passages: Vec<Passage>,
    /// What the customer is called, where that is known.
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

/// What was used up by a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens sent.
    pub input_tokens: u64,
    /// Tokens received.
    pub output_tokens: u64,
    /// What they cost.
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

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text; `None` when nothing is known, and the tenant's fallback is said.
    pub text: Option<String>,
    /// Documents the answer rests on.
    pub sources: Vec<String>,
    /// What it used.
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
        /// What it said.
        detail: String,
        /// When to try again, where it said so.
        retry_after: Option<Duration>,
        /// What it may have used all the same.
        usage: Usage,
    },
    /// Not at all; the fallback is said.
    #[error("the responder failed: {detail}")]
    Failed {
        /// What it said.
        detail: String,
        /// What it may have used all the same.
        usage: Usage,
    },
}

/// A responder.
#[async_trait]
pub trait Responder: Send + Sync + 'static {
    /// Whether answering calls the outside. Such a call is claimed before and never made twice for
    /// one turn, but by the stated policy; answering without it may be repeated freely.
    fn calls_outside(&self) -> bool;

    /// Whether it reads [`Question::passages`]; where it does not, none are looked up.
    fn reads_passages(&self) -> bool {
        true
    }

    /// Whether it has tools called; where it does not, it is offered none.
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
