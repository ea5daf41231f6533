//! One turn on its way: the tenant's permit and quota, the claim of an outside call, retrieval, the responder.
//!
//! A turn runs beside its conversation, which goes on recording. It ends in an [`Ended`], whatever
//! happens: a responder that fails, hangs or panics ends it with the fallback, and a quota that is spent as the
//! tenant's configuration says. A call to the outside is claimed before ([`Claim`]): an owner that finds a claim
//! without a decision adopts it whole, and makes one more attempt or says the fallback.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use heddle_schemas::id::{ConversationId, MessageKey, TurnId};
use heddle_schemas::ports::keys::Cipher;
use heddle_schemas::ports::knowledge::{KnowledgeError, Passage};
use heddle_schemas::ports::responder::{
    Answer, Outgoing, Question, Responder, ResponderError, Said, Sent, Step, Usage,
};
use heddle_schemas::ports::state::{Batch, Fence, StoreError, Swap};
use heddle_schemas::record::event::{HandOver, Outcome};
use heddle_schemas::table::{Key, SpentBy};
use heddle_schemas::tenant::{Resource, Tenant, WhenSpent};
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::split::split;
use crate::context::Context;
use crate::conversation::tools;
use crate::conversation::tools::journal::Journal;
use crate::partition::commit::{commit, read};
use crate::tenant::quota::amounts::Amounts;
use crate::tenant::quota::{Hold, QuotaError};

/// How often the outside is called for one turn, crashes included.
pub const ATTEMPTS: u32 = 2;
/// How often tools are called on the way to an answer, and how many at once.
const STEPS: usize = 3;
const CALLS: usize = 4;
/// How many passages a responder is given.
const PASSAGES: usize = 5;
/// The pause before a busy responder is asked again, where it names none.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Characters of an answer for each of its tokens, more than any model has.
const TOKEN_CHARACTERS: usize = 8;

/// Who calls the outside for a turn, and which messages the turn covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Under which ownership.
    pub epoch: heddle_schemas::topic::Epoch,
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
    pub fence: Fence,
    /// The contact's key.
    pub cipher: Arc<dyn Cipher>,
    /// Since when it waits, as far as this process has made it wait.
    pub since: Timestamp,
    /// The messages it covers, in order; at least one.
    pub asked: Vec<Asked>,
    /// What was said before.
    pub history: Vec<Said>,
    /// What the customer is called, where that is known.
    pub name: Option<String>,
}

/// A turn that has run.
#[derive(Debug)]
pub struct Ended {
    /// The messages it answers.
    pub covered: Vec<MessageKey>,
    /// What is said, a text a message; nothing where the quota is spent.
    pub texts: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The documents that what is said rests on.
    pub sources: Vec<String>,
    /// What left for providers.
    pub sent: Vec<Sent>,
    /// What its calls to the outside used.
    pub usage: Usage,
    /// Calls to the outside that were made for it.
    pub attempts: u32,
    /// The number that it is written down under in the journal of its chunk.
    pub number: u32,
    /// What it has taken of the quota; nothing where that is spent.
    pub hold: Option<Hold>,
    /// Why the conversation is a human's from now on.
    pub hand_over: Option<HandOver>,
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
    /// When the store is closed or has another owner: then nobody waits for the outcome.
    pub async fn run(mut self) -> Result<Ended, StoreError> {
        let waited = self.context.ports.clock.now().since(self.since);
        let left = self.context.options.answer_deadline.saturating_sub(waited);
        let admitted = tokio::time::timeout(left, self.context.turns.admit(&self.tenant.id)).await;
        let Ok(admitted) = admitted else {
            // It asks nobody, so it needs neither permit nor claim; one that was claimed before keeps what it covers.
            self.context.ports.metrics.turn_overdue();
            return self.fallback(Usage::default()).await;
        };
        let _permit = admitted.ok_or(StoreError::Closed)?;
        if !(self.responder.calls_outside() && self.has_text()) || self.ends_in_stop_word() {
            return self.decide().await;
        }
        let (attempt, covered) = self.claim().await?;
        self.asked.retain(|asked| covered.contains(&asked.key));
        if attempt > ATTEMPTS {
            let ended = self.fallback(Usage::default()).await?;
            return Ok(Ended { covered, attempts: ATTEMPTS, number: attempt, ..ended });
        }
        let ended = self.call(attempt).await?;
        Ok(Ended { covered, attempts: attempt, number: attempt, ..ended })
    }

    /// Asks a responder that asks nobody outside, without permit or claim: the whole turn.
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
                // Who asks nobody outside mostly answers at once, and needs no timer.
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

    /// Asks a responder that calls the outside, of which an attempt is claimed, and calls the tools that it asks for.
    async fn call(&self, attempt: u32) -> Result<Ended, StoreError> {
        let mut question = self.question(attempt, self.passages().await?);
        let journal = self.journal();
        let mut rounds = 1;
        if self.responder.calls_tools() {
            question.tools = tools::offered(&self.tenant, question.at);
            rounds += if question.tools.is_empty() { 0 } else { STEPS as u64 };
        }
        if attempt > 1 && rounds > 1 {
            question.steps = journal.steps(STEPS).await?;
        }
        let once = self.responder.most(&question);
        let most = Amounts::of_usage(once);
        let characters = self.tenant.llm.answer_tokens.get() as usize * TOKEN_CHARACTERS;
        let pieces = characters.div_ceil(self.text_max()).max(1);
        let need = Amounts { messages: pieces as u64, ..most };
        // With tools it may take several calls; where little is left, the first may have to do.
        let liked = Amounts { messages: need.messages, ..most.times(rounds) };
        let taken = self.context.quotas.take_at_least(&self.tenant, liked, need).await;
        let hold = match told(taken)? {
            Ok(hold) => hold,
            Err(resource) => return self.spent(resource).await,
        };
        let by = SpentBy::new(self.conversation.contact, self.id(), attempt);
        let reserved = self.context.quotas.reserved(&self.tenant, &hold, &by);
        let ports = &self.context.ports;
        let batch = Batch { fence: Some(self.fence), writes: vec![reserved], ..Batch::default() };
        commit(&*ports.state, &ports.metrics, |_| batch.clone()).await?;

        let outgoing = question.outgoing.clone();
        let mut ended = self.converse(question, once, &journal, hold.taken()).await?;
        ended.texts.truncate(pieces);
        Ok(Ended { sent: outgoing.take(), hold: Some(hold), ..ended })
    }

    /// Asks, calls tools and asks again, until there is an answer or what it may use does not suffice. `most` is what
    /// asking this question may use.
    async fn converse(
        &self,
        mut question: Question,
        mut most: Usage,
        journal: &Journal,
        allowed: Amounts,
    ) -> Result<Ended, StoreError> {
        let clock = &self.context.ports.clock;
        let deadline = clock.elapsed() + self.context.options.answer_timeout;
        let fallback = |usage| {
            let texts = split(self.tenant.agent.fallback.clone(), self.text_max());
            self.said(texts, Outcome::Fallback, Vec::new(), usage, None)
        };
        let mut used = Usage::default();
        loop {
            let unfinished = question.steps.last().is_some_and(|step| step.results.len() < step.calls.len());
            if let Some(text) = self.work_off(&mut question.steps, journal).await? {
                let texts = split(text, self.text_max());
                let ended = self.said(texts, Outcome::Answered, Vec::new(), used, None);
                return Ok(Ended { hand_over: Some(HandOver::Agent), ..ended });
            }
            if unfinished {
                // What tools gave is sent along.
                most = self.responder.most(&question);
            }
            let needed = Amounts::of_usage(used).plus(Amounts::of_usage(most));
            if question.steps.len() > STEPS || allowed.short_of(needed).is_some() {
                tracing::warn!(tenant = %self.tenant.id, "too many tools were called for a turn; the fallback is said");
                return Ok(fallback(used));
            }
            let left = deadline.saturating_sub(clock.elapsed());
            // Who did not answer in time may have used all of it.
            let asked = self.in_time(left, self.ask(question.clone())).await.unwrap_or(Err(most));
            match asked {
                Ok(answer) if !answer.calls.is_empty() => {
                    used += answer.usage;
                    let mut calls = answer.calls;
                    calls.truncate(CALLS);
                    let at = clock.now();
                    question.steps.push(Step { at, text: answer.text, calls, results: Vec::new() });
                }
                Ok(Answer { text: Some(text), sources, usage, .. }) => {
                    used += usage;
                    let texts = split(text, self.text_max());
                    return Ok(self.said(texts, Outcome::Answered, sources, used, None));
                }
                Ok(Answer { usage, .. }) | Err(usage) => {
                    used += usage;
                    return Ok(fallback(used));
                }
            }
        }
    }

    /// Makes the calls of the last step that have no result. Returns what is said where one of them hands the
    /// conversation over.
    async fn work_off(&self, steps: &mut [Step], journal: &Journal) -> Result<Option<String>, StoreError> {
        let Some((last, before)) = steps.split_last_mut() else { return Ok(None) };
        let number = u8::try_from(before.len()).unwrap_or(u8::MAX);
        if last.results.len() < last.calls.len() {
            journal.write(number, last).await?;
            for (index, call) in (0_u8..).zip(&last.calls).skip(last.results.len()) {
                let at = tools::At {
                    ports: &self.context.ports,
                    tenant: &self.tenant,
                    conversation: &self.conversation,
                    turn: self.id(),
                    place: (number, index),
                    name: self.name.as_deref(),
                    now: last.at,
                };
                last.results.push(tools::call(&at, call).await?);
            }
            journal.write(number, last).await?;
        }
        let mut done = last.calls.iter().zip(&last.results);
        let hands_over = done.any(|(call, result)| tools::hands_over(call, result));
        let text = last.text.as_deref().unwrap_or(&self.tenant.tools.hand_over_text);
        Ok(hands_over.then(|| text.to_owned()))
    }

    fn journal(&self) -> Journal {
        let context = &self.context;
        Journal {
            ports: context.ports.clone(),
            conversation: self.conversation.clone(),
            turn: self.id(),
            fence: self.fence,
            cipher: self.cipher.clone(),
            expires: context.ports.clock.now().after(context.options.marker_ttl),
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

    /// What becomes of it where a quota is spent.
    async fn spent(&self, resource: Resource) -> Result<Ended, StoreError> {
        match (self.tenant.quota.when_spent, resource) {
            (WhenSpent::HandOver, _) => Ok(Ended { hand_over: Some(HandOver::Quota), ..self.silent() }),
            (WhenSpent::Silence, _) | (WhenSpent::Fallback, Resource::Messages) => Ok(self.silent()),
            (WhenSpent::Fallback, Resource::Tokens | Resource::Money) => {
                Box::pin(self.fallback(Usage::default())).await
            }
        }
    }

    /// Whether the customer's last word is a stop word that is answered with the tenant's own text. Where more
    /// follows it, that is what is answered.
    fn ends_in_stop_word(&self) -> bool {
        let last = self.asked.last().and_then(|asked| asked.text.as_deref());
        !self.tenant.consent.stopped_text.is_empty()
            && last.is_some_and(|text| self.tenant.is_stop_word(text))
    }

    async fn confirm_stop(&self) -> Result<Ended, StoreError> {
        let texts = vec![self.tenant.consent.stopped_text.clone()];
        match self.take(Amounts { messages: 1, ..Amounts::NONE }).await? {
            Ok(hold) => Ok(self.said(texts, Outcome::Answered, Vec::new(), Usage::default(), Some(hold))),
            Err(_) => Ok(self.silent()),
        }
    }

    fn silent(&self) -> Ended {
        self.said(Vec::new(), Outcome::Silent, Vec::new(), Usage::default(), None)
    }

    fn said(
        &self,
        texts: Vec<String>,
        outcome: Outcome,
        sources: Vec<String>,
        usage: Usage,
        hold: Option<Hold>,
    ) -> Ended {
        let covered = self.asked.iter().map(|asked| asked.key).collect();
        Ended {
            covered,
            texts,
            outcome,
            sources,
            sent: Vec::new(),
            usage,
            attempts: 0,
            number: 0,
            hold,
            hand_over: None,
        }
    }

    async fn take(&self, need: Amounts) -> Result<Result<Hold, Resource>, StoreError> {
        told(self.context.quotas.take(&self.tenant, need).await)
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
            Some(earlier) => Claim { epoch: self.fence.epoch, attempt: earlier.attempt + 1, ..earlier },
            None => Claim {
                epoch: self.fence.epoch,
                attempt: 1,
                covered: self.asked.iter().map(|asked| asked.key).collect(),
            },
        }
    }

    /// Asks until there is an answer. Of a failure, what it used.
    async fn ask(&self, question: Question) -> Result<Answer, Usage> {
        let mut used = Usage::default();
        loop {
            match self.responder.answer(question.clone()).await {
                Ok(mut answer) => {
                    answer.usage += used;
                    return Ok(answer);
                }
                Err(ResponderError::Busy { detail, retry_after, usage }) => {
                    used += usage;
                    if used != Usage::default() {
                        // No more was taken than one round of calls may use.
                        tracing::warn!(tenant = %self.tenant.id, detail, "a responder is busy after a call that may count; the fallback is said");
                        return Err(used);
                    }
                    tracing::debug!(tenant = %self.tenant.id, detail, "the responder is busy");
                    tokio::time::sleep(retry_after.unwrap_or(BUSY_PAUSE)).await;
                }
                Err(ResponderError::Failed { detail, usage }) => {
                    used += usage;
                    tracing::warn!(tenant = %self.tenant.id, detail, "the responder failed; the fallback is said");
                    return Err(used);
                }
            }
        }
    }

    /// What it gives, unless that takes too long.
    async fn in_time<T>(&self, left: Duration, asking: impl Future<Output = T>) -> Option<T> {
        let answered = tokio::time::timeout(left, asking).await.ok();
        if answered.is_none() {
            tracing::warn!(tenant = %self.tenant.id, "no answer in time; the fallback is said");
        }
        answered
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
            let found = ports.knowledge.search(&self.tenant.id, &query, PASSAGES).await;
            let found = found.map_err(|error| match error {
                KnowledgeError::Store(error) => Ok(error),
                KnowledgeError::Keys(error) => error.passing().map_err(KnowledgeError::Keys),
                other => Err(other),
            });
            match found {
                Ok(found) => Ok(found),
                Err(Ok(error)) => Err(error),
                Err(Err(error)) => {
                    tracing::error!(tenant = %self.tenant.id, %error, "documents cannot be searched");
                    Ok(Vec::new())
                }
            }
        })
        .await
    }
}

/// What was taken, or which resource is spent.
fn told(taken: Result<Hold, QuotaError>) -> Result<Result<Hold, Resource>, StoreError> {
    match taken {
        Ok(hold) => Ok(Ok(hold)),
        Err(QuotaError::Spent(resource)) => Ok(Err(resource)),
        Err(QuotaError::Store(error)) => Err(error),
    }
}
