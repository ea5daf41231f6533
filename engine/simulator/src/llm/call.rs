//! Call of a language model: its request and its fate.

use std::time::Duration;

use serde::Deserialize;

use super::fault::Fate;

/// Body of a call, as far as it is read.
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
    /// Returns the text of the last message of a user.
    pub(super) fn asked(&self) -> &str {
        let last = self.messages.iter().rev().find(|message| message.role == "user");
        last.and_then(|message| message.content.as_deref()).unwrap_or_default()
    }
}

/// Call within the limits.
pub(super) struct Call {
    pub(super) model: String,
    pub(super) asked: String,
    pub(super) prompt_tokens: u64,
    pub(super) answer_tokens: u64,
    pub(super) fate: Fate,
    pub(super) latency: Duration,
}

/// Returns the answer to this question.
pub(super) fn answer(asked: &str) -> String {
    format!("You asked: {asked}")
}
