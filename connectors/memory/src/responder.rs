//! A responder that a test scripts, and that counts its calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::id::TurnId;
use heddle_schemas::ports::responder::{Answer, Question, Responder, ResponderError, Usage};

use super::faults::pause;

/// Script of one call.
#[derive(Debug, Clone)]
pub struct Response {
    /// Duration of the call.
    pub after: Duration,
    /// Result; `None` never answers.
    pub result: Option<Result<Answer, ResponderError>>,
}

impl Response {
    /// Answers this text at once; each word of question and answer counts as one token.
    #[must_use]
    pub fn text(question: &Question, text: impl Into<String>) -> Self {
        let text = text.into();
        let words = |text: &str| text.split_whitespace().count() as u64;
        let usage = Usage {
            input_tokens: question.messages.iter().map(|message| words(message)).sum(),
            output_tokens: words(&text),
            ..Usage::default()
        };
        let sources = question.passages.iter().map(|passage| passage.document.clone()).collect();
        Self {
            after: Duration::ZERO,
            result: Some(Ok(Answer { text: Some(text), sources, ..Answer::none(usage) })),
        }
    }

    /// Fails at once.
    #[must_use]
    pub fn error(error: ResponderError) -> Self {
        Self { after: Duration::ZERO, result: Some(Err(error)) }
    }

    /// The same, after this time.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

/// More words than a script says at once.
const MOST_WORDS: u64 = 1_000;

type Script = dyn Fn(&Question) -> Response + Send + Sync;

/// A scripted responder. By default it answers the messages of the turn, a line each, at once and
/// without an outside call.
pub struct ScriptedResponder {
    calls_outside: bool,
    script: Arc<Script>,
    calls: Mutex<BTreeMap<(TurnId, u32), u32>>,
}

impl Default for ScriptedResponder {
    fn default() -> Self {
        Self::new(false, |question| Response::text(question, question.messages.join("\n")))
    }
}

impl ScriptedResponder {
    /// Creates a responder that answers as `script` says, and reports `calls_outside`.
    #[must_use]
    pub fn new(calls_outside: bool, script: impl Fn(&Question) -> Response + Send + Sync + 'static) -> Self {
        Self { calls_outside, script: Arc::new(script), calls: Mutex::default() }
    }

    /// Returns the number of calls of each turn, by attempt. A call counts when it begins, even if its
    /// answer is dropped.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<(TurnId, u32), u32> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(TurnId, u32), u32>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Responder for ScriptedResponder {
    fn calls_outside(&self) -> bool {
        self.calls_outside
    }

    fn calls_tools(&self) -> bool {
        self.calls_outside
    }

    fn most(&self, question: &Question) -> Usage {
        let words = question.messages.iter().map(|message| message.split_whitespace().count() as u64);
        Usage { input_tokens: words.sum(), output_tokens: MOST_WORDS, ..Usage::default() }
    }

    async fn answer(&self, question: Question) -> Result<Answer, ResponderError> {
        *self.lock().entry((question.turn, question.attempt)).or_default() += 1;
        let Response { after, result } = (self.script)(&question);
        pause(after).await;
        match result {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }
}

impl std::fmt::Debug for ScriptedResponder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedResponder")
            .field("calls_outside", &self.calls_outside)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use heddle_schemas::id::MessageKey;
    use heddle_schemas::ports::responder::Outgoing;
    use heddle_schemas::tenant::Tenant;
    use heddle_schemas::time::Timestamp;

    use super::*;

    fn question(attempt: u32) -> Question {
        Question {
            at: Timestamp::EPOCH,
            tools: Vec::new(),
            steps: Vec::new(),
            outgoing: Outgoing::default(),
            other_names: Vec::new(),
            tenant: Arc::new(Tenant::from_toml("id = \"acme\"\nname = \"Acme\"").unwrap()),
            turn: TurnId(MessageKey::from_bytes([1; 16])),
            attempt,
            messages: vec!["one two".into(), "three".into()],
            history: Vec::new(),
            passages: Vec::new(),
            name: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_counted_by_attempt_even_when_they_are_dropped() {
        let slow = |question: &Question| Response::text(question, "late").after(Duration::from_secs(60));
        let responder = ScriptedResponder::new(true, slow);
        let given_up = tokio::time::timeout(Duration::from_secs(1), responder.answer(question(1))).await;
        assert!(given_up.is_err());
        responder.answer(question(2)).await.unwrap();
        responder.answer(question(2)).await.unwrap();
        let counts: Vec<_> = responder.calls().into_iter().map(|((_, attempt), n)| (attempt, n)).collect();
        assert_eq!(counts, [(1, 1), (2, 2)]);
    }

    #[tokio::test]
    async fn by_default_it_repeats_the_messages() {
        let answer = ScriptedResponder::default().answer(question(1)).await.unwrap();
        assert_eq!(answer.text.as_deref(), Some("one two\nthree"));
        assert_eq!(answer.usage, Usage { input_tokens: 3, output_tokens: 3, ..Usage::default() });
    }
}
