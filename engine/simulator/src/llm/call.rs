//! Call of a language model: what is read of it, and what becomes of it.

use std::time::Duration;

use serde::Deserialize;

use super::fault::Fate;

/// What is read of a call.
#[derive(Deserialize)]
pub(super) struct Request {
    pub(super) model: String,
    pub(super) messages: Vec<Message>,
}

#[derive(Deserialize)]
pub(super) struct Message {
    role: String,
    #[serde(default)]
    pub(super) content: Option<String>,
}

impl Request {
    /// Text of the last message of a user.
    pub(super) fn asked(&self) -> &str {
        let last = self.messages.iter().rev().find(|message| message.role == "user");
        last.and_then(|message| message.content.as_deref()).unwrap_or_default()
    }
}

/// A call within the limits.
pub(super) struct Call {
    pub(super) model: String,
    pub(super) asked: String,
    pub(super) prompt_tokens: u64,
    pub(super) answer_tokens: u64,
    pub(super) fate: Fate,
    pub(super) latency: Duration,
}

/// Answer to who asked this.
pub(super) fn answer(asked: &str) -> String {
    format!("You asked: {asked}")
}
