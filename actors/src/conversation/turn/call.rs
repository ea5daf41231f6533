//! The outside call of a turn: quota, claim, reservation, the responder, and the tools on the way to an answer.

use std::time::Duration;

use heddle_schemas::ports::responder::{Answer, Question, ResponderError, Step, Usage};
use heddle_schemas::ports::state::{Batch, StoreError};
use heddle_schemas::record::event::{HandOver, Outcome};
use heddle_schemas::table::SpentBy;

use super::claim::{self, Claim};
use super::{Ended, Turn, or_spent};
use crate::conversation::split::split;
use crate::conversation::tools;
use crate::conversation::tools::journal::Journal;
use crate::partition::commit::commit;
use crate::tenant::quota::Hold;
use crate::tenant::quota::amounts::Amounts;

/// Maximum number of rounds of tool calls before an answer, and of calls in a round.
const STEPS: usize = 3;
const CALLS: usize = 4;
/// The pause before a busy responder is asked again, where it names none.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Characters of an answer for each of its tokens, more than any model has.
const TOKEN_CHARACTERS: usize = 8;

/// Result of an attempt.
pub(super) enum Called {
    /// It ended the turn.
    Ended(Ended),
    /// It was not made: another owner claimed the turn.
    Claimed(Claim),
}

impl Turn {
    /// Makes an attempt: takes the most that it may cost, claims it, and asks.
    pub(super) async fn call(&self, mine: &Claim) -> Result<Called, StoreError> {
        let attempt = mine.attempt;
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
        let hold = match or_spent(taken)? {
            Ok(hold) => hold,
            Err(resource) => {
                let ended = self.spent(resource).await?;
                return Ok(Called::Ended(Ended { attempts: attempt - 1, number: attempt, ..ended }));
            }
        };
        let hold = match self.claimed(mine, hold).await? {
            Ok(hold) => hold,
            Err(other) => return Ok(Called::Claimed(other)),
        };
        let outgoing = question.outgoing.clone();
        let mut ended = self.converse(&mut question, once, &journal, hold.taken()).await?;
        ended.texts.truncate(pieces);
        let done = || question.steps.iter().flat_map(|step| step.calls.iter().zip(&step.results));
        ended.tool_calls = u32::try_from(done().count()).unwrap_or(u32::MAX);
        ended.booked =
            done().filter_map(|(call, result)| tools::booked(&self.tenant, call, result)).collect();
        let (sent, hold) = (outgoing.take(), Some(hold));
        Ok(Called::Ended(Ended { sent, hold, attempts: attempt, number: attempt, ..ended }))
    }

    /// Claims an attempt and records its highest possible cost. Where another owner claimed the turn, returns that
    /// claim, and the reservation is free again.
    async fn claimed(&self, mine: &Claim, hold: Hold) -> Result<Result<Hold, Claim>, StoreError> {
        let ports = &self.context.ports;
        let expires = ports.clock.now().after(self.context.options.marker_ttl);
        let earlier = self.claim.as_ref();
        match claim::write(ports, &self.conversation, self.id(), earlier, mine, expires).await {
            Ok(None) => {}
            Ok(Some(other)) => {
                hold.settle(Amounts::NONE);
                return Ok(Err(other));
            }
            Err(error) => {
                hold.settle(Amounts::NONE);
                return Err(error);
            }
        }
        if mine.attempt > 1 {
            ports.metrics.repeated_call();
        }
        let by = SpentBy::new(self.conversation.contact, self.id(), mine.attempt);
        let reserved = self.context.quotas.reserved(&self.tenant, &hold, &by);
        let batch = Batch { fence: Some(self.fence), writes: vec![reserved], ..Batch::default() };
        commit(&*ports.state, &ports.metrics, |_| batch.clone()).await?;
        Ok(Ok(hold))
    }

    /// Asks, calls tools and asks again, until there is an answer or the rest of the reservation does not suffice.
    /// `most` is the highest possible cost of this question.
    async fn converse(
        &self,
        question: &mut Question,
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
                // Results of tools are sent along.
                most = self.responder.most(question);
            }
            let needed = Amounts::of_usage(used).plus(Amounts::of_usage(most));
            if question.steps.len() > STEPS || allowed.short_of(needed).is_some() {
                tracing::warn!(tenant = %self.tenant.id, "too many tools were called for a turn; the fallback is said");
                return Ok(fallback(used));
            }
            let left = deadline.saturating_sub(clock.elapsed());
            // A responder that did not answer in time may have used all of it.
            let asked = self.in_time(left, self.ask(question.clone())).await.unwrap_or(Err(most));
            match asked {
                Ok(answer) if !answer.calls.is_empty() => {
                    used += answer.usage;
                    let mut calls = answer.calls;
                    let done: usize = question.steps.iter().map(|step| step.calls.len()).sum();
                    calls.truncate(CALLS.min(self.left.tool_calls.saturating_sub(done)));
                    if calls.is_empty() {
                        self.context.ports.metrics.contact_limited("tool_calls");
                        return Ok(fallback(used));
                    }
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

    /// Makes the calls of the last step that have no result. Returns the reply where one of them hands the conversation
    /// over.
    async fn work_off(&self, steps: &mut [Step], journal: &Journal) -> Result<Option<String>, StoreError> {
        let Some((last, before)) = steps.split_last_mut() else { return Ok(None) };
        let number = u8::try_from(before.len()).unwrap_or(u8::MAX);
        if last.results.len() < last.calls.len() {
            journal.write(number, last).await?;
            let done = before.iter().flat_map(|step| step.calls.iter().zip(&step.results));
            let booked =
                done.filter(|(call, result)| tools::booked(&self.tenant, call, result).is_some()).count();
            let mut bookings_left = self.left.bookings.saturating_sub(booked);
            for (call, result) in last.calls.iter().zip(&last.results) {
                bookings_left -=
                    usize::from(bookings_left > 0 && tools::booked(&self.tenant, call, result).is_some());
            }
            for (index, call) in (0_u8..).zip(&last.calls).skip(last.results.len()) {
                let at = tools::At {
                    ports: &self.context.ports,
                    tenant: &self.tenant,
                    conversation: &self.conversation,
                    turn: self.id(),
                    place: (number, index),
                    name: self.name.as_deref(),
                    now: last.at,
                    bookings_left,
                };
                let result = tools::call(&at, call).await?;
                bookings_left -=
                    usize::from(bookings_left > 0 && tools::booked(&self.tenant, call, &result).is_some());
                last.results.push(result);
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

    /// Asks until there is an answer. The error holds the use of a failure.
    pub(super) async fn ask(&self, question: Question) -> Result<Answer, Usage> {
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

    /// Returns the result, unless it takes too long.
    pub(super) async fn in_time<T>(&self, left: Duration, asking: impl Future<Output = T>) -> Option<T> {
        let answered = tokio::time::timeout(left, asking).await.ok();
        if answered.is_none() {
            tracing::warn!(tenant = %self.tenant.id, "no answer in time; the fallback is said");
        }
        answered
    }
}
