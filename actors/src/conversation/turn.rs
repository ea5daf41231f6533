//! One turn on its way: the tenant's permit, the claim of an outside call, retrieval, the responder.
//!
//! A turn runs beside its conversation, which goes on recording. It ends in an [`Ended`], whatever
//! happens: a responder that fails, hangs or panics ends it with the fallback. A call to the outside is
//! claimed before ([`Claim`]): an owner that finds a claim without a decision adopts it whole, and makes
//! one more attempt or says the fallback.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use heddle_schemas::id::{ConversationId, MessageKey, TurnId};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::{KnowledgeError, Passage};
use heddle_schemas::ports::responder::{Answer, Question, Responder, ResponderError, Said};
use heddle_schemas::ports::state::{StoreError, Swap};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::Epoch;
use serde::{Deserialize, Serialize};

use crate::commit::read;
use crate::ports::Context;

/// How often the outside is called for one turn, crashes included.
pub const ATTEMPTS: u32 = 2;
/// How many passages a responder is given.
const PASSAGES: usize = 5;
/// The pause before a busy responder is asked again, where it names none.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Who calls the outside for a turn, and which messages the turn covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Under which ownership.
    pub epoch: Epoch,
    /// Which call it is, from 1.
    pub attempt: u32,
    /// What the turn answers.
    pub covered: Vec<MessageKey>,
}

/// A message of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub key: MessageKey,
    /// Its text; `None` for a picture without caption and the like.
    pub text: Option<String>,
}

/// A turn to run.
pub struct Turn {
    /// What it needs of the node.
    pub context: Arc<Context>,
    /// In which conversation.
    pub conversation: ConversationId,
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// Who answers.
    pub responder: Arc<dyn Responder>,
    /// Under which ownership.
    pub epoch: Epoch,
    /// The messages it covers, in order; at least one.
    pub asked: Vec<Asked>,
    /// What was said before.
    pub history: Vec<Said>,
    /// What the customer is called, where that is known.
    pub name: Option<String>,
}

/// A turn that has run.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The messages it answers.
    pub covered: Vec<MessageKey>,
    /// The answer; `None` for the fallback.
    pub answer: Option<Answer>,
    /// Calls to the outside that were made for it.
    pub attempts: u32,
}

impl Turn {
    /// Its id: that of the first message it covers.
    #[must_use]
    pub fn id(&self) -> TurnId {
        TurnId(self.asked[0].key)
    }

    /// Runs it: waits for the tenant's permit, claims, asks.
    ///
    /// # Errors
    /// When the store is closed or has another owner: then nobody waits for the outcome.
    pub async fn run(mut self) -> Result<Ended, StoreError> {
        let _permit = self.context.turns.admit(&self.tenant.id).await.ok_or(StoreError::Closed)?;
        let mut attempts = 0;
        if self.responder.calls_outside() && self.has_text() {
            let (attempt, covered) = self.claim().await?;
            self.asked.retain(|asked| covered.contains(&asked.key));
            if attempt > ATTEMPTS {
                return Ok(Ended { covered, answer: None, attempts: ATTEMPTS });
            }
            attempts = attempt;
        }
        self.decide(attempts).await
    }

    /// Asks the responder, without permit or claim: the whole turn where nothing outside is called.
    ///
    /// # Errors
    /// As [`Turn::run`].
    pub async fn decide(self, attempts: u32) -> Result<Ended, StoreError> {
        let covered = self.asked.iter().map(|asked| asked.key).collect();
        let answer = match self.has_text() {
            true => {
                let passages = self.passages().await?;
                self.ask(attempts.max(1), passages).await
            }
            false => None,
        };
        Ok(Ended { covered, answer: answer.filter(|answer| answer.text.is_some()), attempts })
    }

    fn has_text(&self) -> bool {
        self.asked.iter().any(|asked| asked.text.is_some())
    }

    /// Claims the next attempt. Returns it with the messages that the turn covers.
    async fn claim(&self) -> Result<(u32, Vec<MessageKey>), StoreError> {
        let ports = &self.context.ports;
        let key = Key::claim(&self.conversation, self.id());
        let expires = Some(ports.clock.now().after(self.context.options.marker_ttl));
        let mut found = read(&ports.metrics, || ports.state.get(&key)).await?;
        loop {
            let mine = self.next_claim(found.as_deref());
            if mine.attempt > ATTEMPTS {
                return Ok((mine.attempt, mine.covered));
            }
            let value = heddle_schemas::record::encode(&mine);
            let swap = ports.state.compare_and_set(&key, found.clone(), Some(value.clone()), expires).await;
            found = match swap {
                Ok(Swap::Done) => {
                    if mine.attempt > 1 {
                        ports.metrics.repeated_call();
                    }
                    return Ok((mine.attempt, mine.covered));
                }
                Ok(Swap::Found(other)) => other,
                Err(error) if error.is_transient() => {
                    // Whether it happened is not known; if it did, this very claim is found, and is ours.
                    let now = read(&ports.metrics, || ports.state.get(&key)).await?;
                    if now.as_ref() == Some(&value) {
                        return Ok((mine.attempt, mine.covered));
                    }
                    now
                }
                Err(error) => return Err(error),
            };
        }
    }

    fn next_claim(&self, found: Option<&[u8]>) -> Claim {
        let found = found.and_then(|found| serde_json::from_slice::<Claim>(found).ok());
        match found {
            Some(earlier) => Claim { epoch: self.epoch, attempt: earlier.attempt + 1, ..earlier },
            None => Claim {
                epoch: self.epoch,
                attempt: 1,
                covered: self.asked.iter().map(|asked| asked.key).collect(),
            },
        }
    }

    async fn ask(&self, attempt: u32, passages: Vec<Passage>) -> Option<Answer> {
        let options = &self.context.options;
        let asking = async {
            loop {
                match self.responder.answer(self.question(attempt, passages.clone())).await {
                    Ok(answer) => return Some(answer),
                    Err(ResponderError::Busy { detail, retry_after }) => {
                        tracing::debug!(tenant = %self.tenant.id, detail, "the responder is busy");
                        tokio::time::sleep(retry_after.unwrap_or(BUSY_PAUSE)).await;
                    }
                    Err(ResponderError::Failed { detail }) => {
                        tracing::warn!(tenant = %self.tenant.id, detail, "the responder failed; the fallback is said");
                        return None;
                    }
                }
            }
        };
        let mut asking = pin!(asking);
        // Who asks nobody outside mostly answers at once, and needs no timer.
        if let Some(answer) = asking.as_mut().now_or_never() {
            return answer;
        }
        tokio::time::timeout(options.answer_timeout, asking).await.unwrap_or_else(|_| {
            tracing::warn!(tenant = %self.tenant.id, "no answer in time; the fallback is said");
            None
        })
    }

    fn question(&self, attempt: u32, passages: Vec<Passage>) -> Question {
        Question {
            tenant: self.tenant.clone(),
            turn: self.id(),
            attempt,
            messages: self.asked.iter().filter_map(|asked| asked.text.clone()).collect(),
            history: self.history.clone(),
            passages,
            name: self.name.clone(),
        }
    }

    /// What the tenant's documents say to it. A store that is away is waited for: a turn fails only by what
    /// is asked outside.
    async fn passages(&self) -> Result<Vec<Passage>, StoreError> {
        if !self.responder.reads_passages() {
            return Ok(Vec::new());
        }
        let texts: Vec<_> = self.asked.iter().filter_map(|asked| asked.text.as_deref()).collect();
        let (ports, query) = (&self.context.ports, texts.join("\n"));
        read(&ports.metrics, || async {
            match ports.knowledge.search(&self.tenant.id, &query, PASSAGES).await {
                Ok(found) => Ok(found),
                Err(KnowledgeError::Store(error) | KnowledgeError::Keys(KeysError::Store(error))) => {
                    Err(error)
                }
                Err(error) => {
                    tracing::error!(tenant = %self.tenant.id, %error, "documents cannot be searched");
                    Ok(Vec::new())
                }
            }
        })
        .await
    }
}
