//! Turn under way: the tenant's permit and quota, the claim of an outside call, retrieval, the responder.
//!
//! A turn runs beside its conversation, which goes on recording. A responder that fails, hangs or panics ends it with
//! the fallback, and a spent quota as the tenant's configuration says. A call outside is claimed before it is made
//! ([`claim`]): an owner that finds a claim without a decision adopts it, and makes one more attempt or says the
//! fallback. Stored data whose read may fail for good (documents, quota, the journal of tools) is read before the
//! claim, so that a fault in it costs no attempt.
//!
//! # Layout
//! - [`claim`]: the row that names the attempt and the messages it covers.
//! - `call`: the outside call, and the tools on the way to an answer.

mod call;
pub mod claim;

use std::pin::pin;
use std::sync::Arc;

use futures::FutureExt as _;
use heddle_schemas::content::{Asks, Content};
use heddle_schemas::id::{ConversationId, MessageKey, TurnId};
use heddle_schemas::ports::channel::ChannelProfile;
use heddle_schemas::ports::keys::Cipher;
use heddle_schemas::ports::knowledge::{KnowledgeError, Passage};
use heddle_schemas::ports::responder::{Outgoing, Question, Responder, Said, Sent, Usage};
use heddle_schemas::ports::state::{Fence, StoreError};
use heddle_schemas::record::event::{HandOver, Outcome};
use heddle_schemas::tenant::{Resource, Tenant, WhenSpent};
use heddle_schemas::time::Timestamp;

use self::call::Called;
pub use self::claim::Claim;
use super::contact_limits::{Left, TurnUsage};
use super::fault::is_over;
use super::split::split;
use crate::context::Context;
use crate::intake::consent;
use crate::invariants::{CALLS_PER_TURN, Invariant, are_calls_allowed};
use crate::partition::commit::read;
use crate::tenant::quota::amounts::Amounts;
use crate::tenant::quota::{Hold, QuotaError};
use crate::tenant::turns::TurnPermit;

/// How often the outside is called for one turn, crashes included.
pub const ATTEMPTS: u32 = CALLS_PER_TURN;
/// How many passages a responder is given.
const PASSAGES: usize = 5;

/// A message of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Id of the message.
    pub key: MessageKey,
    /// Its text; `None` for a picture without caption and the like.
    pub text: Option<String>,
    /// True where it is nothing but an opt-out.
    pub is_stop: bool,
}

/// Text of a customer's message.
#[derive(Debug, Clone)]
pub struct Wrote {
    /// The text.
    pub text: Box<str>,
    /// True where it is nothing but an opt-out.
    pub is_stop: bool,
}

impl Wrote {
    /// Returns the text of a message; `None` where it has none that can be answered.
    #[must_use]
    pub fn of(profile: Option<&ChannelProfile>, tenant: &Tenant, content: &Content) -> Option<Self> {
        let Asks::Answer(text) = content.asks() else { return None };
        Some(Self { text: text.into(), is_stop: consent::is_stop(profile, tenant, content) })
    }
}

/// A turn to run.
pub struct Turn {
    /// Context of the node.
    pub context: Arc<Context>,
    /// In which conversation.
    pub conversation: ConversationId,
    /// Tenant of the conversation.
    pub tenant: Arc<Tenant>,
    /// Responder that answers.
    pub responder: Arc<dyn Responder>,
    /// Under which ownership.
    pub fence: Fence,
    /// The contact's key.
    pub cipher: Arc<dyn Cipher>,
    /// Since when it waits, as far as this process has made it wait.
    pub since: Timestamp,
    /// The messages it covers, in order; at least one.
    pub asked: Vec<Asked>,
    /// Earlier messages.
    pub history: Vec<Said>,
    /// The customer's name, where it is known.
    pub name: Option<String>,
    /// Other names that the customer was known by.
    pub other_names: Vec<String>,
    /// Claim of an earlier owner, which this turn adopts: it covers the same messages.
    pub claim: Option<Claim>,
    /// Allowance that the contact has left.
    pub left: Left,
    /// True when the contact is over a limit: the fallback is said.
    pub is_limited: bool,
}

/// A turn that has run.
#[derive(Debug)]
pub struct Ended {
    /// The messages it answers.
    pub covered: Vec<MessageKey>,
    /// Replies, a text a message; none where the quota is spent.
    pub texts: Vec<String>,
    /// Outcome of the turn.
    pub outcome: Outcome,
    /// Documents on which the reply rests.
    pub sources: Vec<String>,
    /// Data sent to providers.
    pub sent: Vec<Sent>,
    /// Use by its calls outside.
    pub usage: Usage,
    /// Calls to the outside that were made for it.
    pub attempts: u32,
    /// Number of the turn in the journal of its quota lease.
    pub number: u32,
    /// Its quota reservation; `None` where the quota is spent.
    pub hold: Option<Hold>,
    /// Why the conversation is a human's from now on.
    pub hand_over: Option<HandOver>,
    /// Calls of tools.
    pub tool_calls: u32,
    /// Ends of appointments that were booked.
    pub booked: Vec<Timestamp>,
    /// True when the contact was over a limit.
    pub is_limited: bool,
}

impl Ended {
    /// A turn over these messages in which nothing is said.
    #[must_use]
    pub fn silent(covered: Vec<MessageKey>) -> Self {
        Self {
            covered,
            texts: Vec::new(),
            outcome: Outcome::Silent,
            sources: Vec::new(),
            sent: Vec::new(),
            usage: Usage::default(),
            attempts: 0,
            number: 0,
            hold: None,
            hand_over: None,
            tool_calls: 0,
            booked: Vec::new(),
            is_limited: false,
        }
    }

    /// Returns its use, as it counts for the contact.
    #[must_use]
    pub fn of_contact(&self) -> TurnUsage {
        TurnUsage {
            is_outside: self.attempts > 0,
            tokens: self.usage.tokens(),
            tool_calls: self.tool_calls,
            booked: self.booked.clone(),
            is_limited: self.is_limited,
        }
    }
}

impl Turn {
    /// Its id: that of the first message it covers.
    #[must_use]
    pub fn id(&self) -> TurnId {
        TurnId(self.asked[0].key)
    }

    /// Characters of one message at most. Without its channel nothing is sent, and nothing needs to be split.
    fn text_max(&self) -> usize {
        let profile = self.context.ports.profile(self.conversation.channel);
        profile.map_or(usize::MAX, |profile| profile.text_max.get())
    }

    /// Runs it: waits for the tenant's permit, claims, asks.
    ///
    /// # Errors
    /// Errors that a retry does not fix: the store is closed or has another owner, and then no caller waits for the
    /// outcome; or a stored value cannot be read, and then the turn can be run again later.
    pub async fn run(mut self) -> Result<Ended, StoreError> {
        if self.is_limited {
            let ended = self.fallback(Usage::default()).await?;
            return Ok(Ended { is_limited: true, ..ended });
        }
        let Some(_permit) = self.admitted().await? else {
            // It makes no call, so it needs neither permit nor claim.
            self.context.ports.metrics.turn_overdue();
            return self.fallback(Usage::default()).await;
        };
        if !(self.responder.calls_outside() && self.has_text()) || self.ends_in_stop_word() {
            return self.decide().await;
        }
        loop {
            let epoch = self.fence.epoch;
            let mine = Claim::next(self.claim.as_ref(), epoch, || self.covered());
            if mine.attempt > ATTEMPTS {
                let ended = self.fallback(Usage::default()).await?;
                return Ok(Ended { attempts: ATTEMPTS, number: mine.attempt, ..ended });
            }
            let interruptions = mine.attempt.saturating_sub(1);
            let metrics = &self.context.ports.metrics;
            metrics.check(Invariant::OneEffect, are_calls_allowed(mine.attempt, interruptions), || {
                format!(
                    "turn {} of {} calls its model for the {}th time",
                    self.id(),
                    self.conversation,
                    mine.attempt
                )
            });
            match self.call(&mine).await? {
                Called::Ended(ended) => return Ok(ended),
                // Rare: an owner that is fenced by now claimed it between the reading and the writing.
                Called::Claimed(other) => {
                    self.asked.retain(|asked| other.covered.contains(&asked.key));
                    self.claim = Some(other);
                }
            }
        }
    }

    /// Waits for the tenant's permit; `None` where that takes longer than the answer may.
    async fn admitted(&self) -> Result<Option<TurnPermit>, StoreError> {
        let waited = self.context.ports.clock.now().since(self.since);
        let left = self.context.options.answer_deadline.saturating_sub(waited);
        if left.is_zero() {
            return Ok(None);
        }
        match tokio::time::timeout(left, self.context.turns.admit(&self.tenant.id)).await {
            Ok(Some(permit)) => Ok(Some(permit)),
            // The node is shutting down.
            Ok(None) => Err(StoreError::Closed),
            Err(_) => Ok(None),
        }
    }

    /// Runs the whole turn with a responder that makes no call outside, without permit or claim.
    ///
    /// # Errors
    /// As [`Turn::run`].
    pub async fn decide(self) -> Result<Ended, StoreError> {
        if self.ends_in_stop_word() {
            return self.confirm_stop().await;
        }
        let answer = match self.has_text() {
            true => {
                let question = self.question(1, self.passages().await?);
                let mut asking = pin!(self.ask(question));
                // A responder that makes no call outside mostly answers at once, and needs no timer.
                match asking.as_mut().now_or_never() {
                    Some(answer) => answer.ok(),
                    None => {
                        self.in_time(self.context.options.answer_timeout, asking).await.and_then(Result::ok)
                    }
                }
            }
            false => None,
        };
        match answer.and_then(|answer| Some((answer.text?, answer.sources, answer.usage))) {
            Some((text, sources, usage)) => {
                let texts = split(text, self.text_max());
                let need = Amounts { messages: texts.len() as u64, ..Amounts::NONE };
                match self.take(need).await? {
                    Ok(hold) => Ok(self.said(texts, Outcome::Answered, sources, usage, Some(hold))),
                    Err(resource) => self.spent(resource).await,
                }
            }
            None => self.fallback(Usage::default()).await,
        }
    }

    /// Says the fallback, where there is a message left for it.
    ///
    /// # Errors
    /// As [`Turn::run`].
    pub async fn fallback(&self, usage: Usage) -> Result<Ended, StoreError> {
        let texts = split(self.tenant.agent.fallback.clone(), self.text_max());
        match self.take(Amounts { messages: 1, ..Amounts::NONE }).await? {
            Ok(hold) => Ok(self.said(texts, Outcome::Fallback, Vec::new(), usage, Some(hold))),
            Err(_) => Ok(self.silent()),
        }
    }

    /// Returns the end of a turn whose quota is spent.
    async fn spent(&self, resource: Resource) -> Result<Ended, StoreError> {
        match (self.tenant.quota.when_spent, resource) {
            (WhenSpent::HandOver, _) => Ok(Ended { hand_over: Some(HandOver::Quota), ..self.silent() }),
            (WhenSpent::Silence, _) | (WhenSpent::Fallback, Resource::Messages) => Ok(self.silent()),
            (WhenSpent::Fallback, Resource::Tokens | Resource::Money) => {
                Box::pin(self.fallback(Usage::default())).await
            }
        }
    }

    /// Returns true when the customer's last message is a stop word that is answered with the tenant's own text. Where
    /// other messages follow it, those are answered.
    fn ends_in_stop_word(&self) -> bool {
        !self.tenant.consent.stopped_text.is_empty() && self.asked.last().is_some_and(|asked| asked.is_stop)
    }

    async fn confirm_stop(&self) -> Result<Ended, StoreError> {
        let texts = vec![self.tenant.consent.stopped_text.clone()];
        match self.take(Amounts { messages: 1, ..Amounts::NONE }).await? {
            Ok(hold) => Ok(self.said(texts, Outcome::Answered, Vec::new(), Usage::default(), Some(hold))),
            Err(_) => Ok(self.silent()),
        }
    }

    fn silent(&self) -> Ended {
        Ended::silent(self.covered())
    }

    /// The messages that it covers.
    #[must_use]
    pub fn covered(&self) -> Vec<MessageKey> {
        self.asked.iter().map(|asked| asked.key).collect()
    }

    fn said(
        &self,
        texts: Vec<String>,
        outcome: Outcome,
        sources: Vec<String>,
        usage: Usage,
        hold: Option<Hold>,
    ) -> Ended {
        Ended { texts, outcome, sources, usage, hold, ..self.silent() }
    }

    async fn take(&self, need: Amounts) -> Result<Result<Hold, Resource>, StoreError> {
        or_spent(self.context.quotas.take(&self.tenant, need).await)
    }

    fn has_text(&self) -> bool {
        self.asked.iter().any(|asked| asked.text.is_some())
    }

    fn question(&self, attempt: u32, passages: Vec<Passage>) -> Question {
        Question {
            at: self.context.ports.clock.now(),
            tools: Vec::new(),
            steps: Vec::new(),
            outgoing: Outgoing::default(),
            tenant: self.tenant.clone(),
            turn: self.id(),
            attempt,
            messages: self.asked.iter().filter_map(|asked| asked.text.clone()).collect(),
            history: self.history.clone(),
            passages,
            name: self.name.clone(),
            other_names: self.other_names.clone(),
        }
    }

    /// Searches the tenant's documents. Retries while the store is unavailable; documents that cannot be read are left
    /// out of the answer.
    async fn passages(&self) -> Result<Vec<Passage>, StoreError> {
        if !self.responder.reads_passages() {
            return Ok(Vec::new());
        }
        let texts: Vec<_> = self.asked.iter().filter_map(|asked| asked.text.as_deref()).collect();
        let (ports, query) = (&self.context.ports, texts.join("\n"));
        read(&ports.metrics, || async {
            let found = ports.knowledge.search(&self.tenant.id, &query, PASSAGES).await;
            let found = found.map_err(|error| match error {
                KnowledgeError::Store(error) => Ok(error),
                KnowledgeError::Keys(error) => error.passing().map_err(KnowledgeError::Keys),
                other => Err(other),
            });
            match found {
                Ok(found) => Ok(found),
                Err(Ok(error)) if error.is_transient() || is_over(&error) => Err(error),
                Err(Ok(error)) => {
                    tracing::error!(tenant = %self.tenant.id, %error, "documents cannot be read");
                    Ok(Vec::new())
                }
                Err(Err(error)) => {
                    tracing::error!(tenant = %self.tenant.id, %error, "documents cannot be searched");
                    Ok(Vec::new())
                }
            }
        })
        .await
    }
}

/// Separates the reservation, or the resource that is spent, from other errors.
fn or_spent(taken: Result<Hold, QuotaError>) -> Result<Result<Hold, Resource>, StoreError> {
    match taken {
        Ok(hold) => Ok(Ok(hold)),
        Err(QuotaError::Spent(resource)) => Ok(Err(resource)),
        Err(QuotaError::Store(error)) => Err(error),
    }
}
