//! Account of a provider of language models: the calls under each key, and the paid ones among them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use serde::Serialize;

use super::call::{Call, Request, answer};
use super::fault::{Fate, Faults};
use super::limits::{Limits, Over, Tokens, Window};
use crate::dice::Dice;

/// Counts of the calls under a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Calls within the limits.
    pub calls: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Calls over a limit.
    pub violations: u64,
    /// Of the calls, answered.
    pub answered: u64,
    /// Of the calls, refused with 429 on purpose.
    pub rate_limited: u64,
    /// Of the calls, failed with 500.
    pub server_errors: u64,
    /// Of the calls, hung.
    pub hung: u64,
    /// Of the calls, answered with a body that breaks off.
    pub truncated: u64,
    /// Of the calls, abandoned by the caller before the answer.
    pub abandoned: u64,
    /// Maximum number of concurrent calls.
    pub most_at_once: u64,
}

/// Paid call. Times are those of the provider's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paid {
    /// Time of arrival.
    pub arrived: Duration,
    /// Time at which it was answered, broken off or abandoned by its caller; `None` while it is in flight.
    pub ended: Option<Duration>,
    /// True where the caller disconnected before the answer.
    pub abandoned: bool,
}

/// Key with its calls.
#[derive(Default)]
pub(super) struct Key {
    pub(super) limits: Option<Limits>,
    pub(super) window: Window,
    pub(super) account: Account,
    pub(super) under_way: u64,
    /// Arrivals of the calls within the limits, with their tokens.
    pub(super) calls: Vec<(Duration, u64)>,
}

/// State that changes with each call.
pub(super) struct Inner {
    pub(super) keys: HashMap<String, Key>,
    pub(super) faults: Faults,
    pub(super) latency: Range<Duration>,
    pub(super) paid: HashMap<String, Vec<Paid>>,
}

/// The account, shared by the calls in flight.
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) dice: Dice,
    pub(super) tokens: Tokens,
    pub(super) keeps_calls: bool,
    pub(super) state: Mutex<Inner>,
}

/// Reason of a refused call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The key does not exist.
    UnknownKey,
    /// The call exceeds a limit of its key.
    Over(Over),
}

/// Call in flight: one dropped before its end was abandoned by its caller.
pub(super) struct UnderWay {
    pub(super) shared: Arc<Shared>,
    key: String,
    /// Its position among the paid calls for this question.
    paid: Option<(String, usize)>,
    ended: bool,
}

impl UnderWay {
    /// Ends the call, and counts its outcome.
    pub(super) fn end(mut self, count: impl FnOnce(&mut Account)) {
        self.ended = true;
        self.close(count, false);
    }

    fn close(&self, count: impl FnOnce(&mut Account), abandoned: bool) {
        let now = self.shared.clock.elapsed();
        let mut inner = self.shared.inner();
        if let Some(key) = inner.keys.get_mut(&self.key) {
            key.under_way -= 1;
            count(&mut key.account);
        }
        let paid = self.paid.as_ref().and_then(|(asked, place)| inner.paid.get_mut(asked)?.get_mut(*place));
        if let Some(paid) = paid {
            (paid.ended, paid.abandoned) = (Some(now), abandoned);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.ended {
            self.close(|account| account.abandoned += 1, true);
        }
    }
}

impl Shared {
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, if its key exists and its limits admit it.
    pub(super) fn take(self: &Arc<Self>, name: &str, request: Request) -> Result<(Call, UnderWay), Refused> {
        let texts = request.messages.iter().map(|message| message.content.as_deref().unwrap_or_default());
        let prompt_tokens = texts.map(|text| self.tokens.of(text) + self.tokens.message).sum();
        let asked = request.asked().to_owned();
        let answer_tokens = self.tokens.answer.unwrap_or_else(|| self.tokens.of(&answer(&asked)));
        let mut inner = self.inner();
        let inner = &mut *inner;
        // Read under the lock, so that the times are in order.
        let now = self.clock.elapsed();
        let fate = inner.faults.fate(self.dice.unit());
        let Some(key) = inner.keys.get_mut(name) else {
            return Err(Refused::UnknownKey);
        };
        let works = !matches!(fate, Fate::RateLimited | Fate::ServerError);
        let tokens = if works { prompt_tokens + answer_tokens } else { 0 };
        let over = key.limits.and_then(|limits| key.window.admit(&limits, tokens, now).err());
        if let Some(over) = over {
            key.account.violations += 1;
            return Err(Refused::Over(over));
        }
        key.account.calls += 1;
        key.account.tokens += tokens;
        key.under_way += 1;
        key.account.most_at_once = key.account.most_at_once.max(key.under_way);
        let mut paid = None;
        if self.keeps_calls {
            key.calls.push((now, tokens));
            if works {
                let of_it = inner.paid.entry(asked.clone()).or_default();
                paid = Some((asked.clone(), of_it.len()));
                of_it.push(Paid { arrived: now, ended: None, abandoned: false });
            }
        }
        let latency = match fate {
            Fate::Hang => inner.faults.hang_for,
            _ => self.dice.within(&inner.latency),
        };
        let call = Call { model: request.model, asked, prompt_tokens, answer_tokens, fate, latency };
        Ok((call, UnderWay { shared: self.clone(), key: name.to_owned(), paid, ended: false }))
    }
}
