//! The responder: what to answer in a turn.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::knowledge::Passage;
use crate::id::TurnId;
use crate::tenant::Tenant;

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

/// A turn to answer.
#[derive(Debug, Clone)]
pub struct Question {
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
}

/// What was used up by a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens sent.
    pub input_tokens: u64,
    /// Tokens received.
    pub output_tokens: u64,
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
    },
    /// Not at all; the fallback is said.
    #[error("the responder failed: {detail}")]
    Failed {
        /// What it said.
        detail: String,
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

    /// Answers a turn.
    ///
    /// # Errors
    /// [`ResponderError`].
    async fn answer(&self, question: Question) -> Result<Answer, ResponderError>;
}
