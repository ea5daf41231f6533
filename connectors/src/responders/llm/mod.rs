//! Responder with a language model: OpenAI's, DeepSeek's, Gemini's, or any behind one of their APIs.
//!
//! The tenant's models are called in their order until one answers. If one is at its own limit, the call waits; if
//! one fails, hangs or reports that it is too busy, the next is called. A call that may have been answered is never
//! repeated: only a call that never arrived, or was refused, is repeated, once and after a random pause.
//!
//! # Layout
//! - `prompt`: the request's text; [`privacy`]: the redaction of personal data in it.
//! - [`openai`], [`gemini`]: the APIs, a file each, behind [`Api`].
//! - `line`: the time at which a key may be used: in turn ([`queue`]), within this node's part of its limits
//!   ([`shares`]) and its use of them ([`allowance`]), and not while the breaker is open ([`breaker`]).
//! - `stats`: the metrics.

mod allowance;
mod breaker;
mod gemini;
mod line;
mod openai;
mod privacy;
mod prompt;
mod queue;
mod shares;
mod stats;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::responder::{
    Answer, Outgoing, Question, Responder, ResponderError, Sent, ToolCall, Usage,
};
use heddle_schemas::ports::state::State;
use heddle_schemas::tenant::{Model, PersonalData, Provider};
use rand::RngExt as _;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::allowance::Limits;
use self::line::{Line, Reservation, Sharing};
use self::privacy::Redactor;
use self::prompt::{NO_ANSWER, Prompt};
use self::stats::Stats;
use crate::http;

/// Maximum length of an answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Pause before a call that surely was not answered is repeated, in milliseconds.
const RETRY_PAUSE: std::ops::Range<u64> = 200..800;
/// Keys that are remembered before those without use are looked for; from then on when they are twice as many.
const KEYS: usize = 1_024;

/// Configuration of calls to providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Timeout of a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// Timeout of an answer; then the next model is called. Default 25 s.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), timeout: Duration::from_secs(25) }
    }
}

/// Error of setting the responder up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client of the LLM providers cannot be set up")]
pub struct SetupError(#[from] reqwest::Error);

/// An API of providers.
trait Api: Send + Sync {
    /// The call.
    fn request(&self, client: &Client, model: &Model, key: HeaderValue, prompt: &Prompt) -> RequestBuilder;

    /// Reads the answer of a call that went well.
    fn read(&self, body: &[u8]) -> Option<Reply>;

    /// Returns the time until a retry, if the body of a refusal states one.
    fn retry_after(&self, body: &[u8]) -> Option<Duration>;
}

/// Answer of a model.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    text: String,
    /// Tools that it calls.
    calls: Vec<ToolCall>,
    usage: Option<Usage>,
}

/// Reason for a model's missing answer.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// The model is too busy, or its limit is reached.
    Busy(Option<Duration>),
    /// The call did not arrive, or was answered with a fault of the provider's: it may be made again.
    Passing(String),
    /// The model has failed several times: its breaker is open.
    Suspended,
    /// The call was sent, and no readable answer came: it may have been made, and paid for.
    Lost(String),
    /// An answer came that cannot be read: it may have been paid for.
    Unreadable(String),
    /// The provider does not accept the key.
    Denied(String),
    /// The call cannot be repeated, or need not be: it concerns this request alone.
    Final(String),
}

/// Responder with language models. Cheap to share; holds connections, and the state of each key.
pub struct Llm {
    client: Client,
    clock: Arc<dyn Clock>,
    sharing: Arc<Sharing>,
    lines: Mutex<Lines>,
    stats: Stats,
}

/// State of each key.
struct Lines {
    known: HashMap<[u8; 32], Arc<Line>>,
    sweep_at: usize,
}

impl Llm {
    /// Creates the responder. It shares the limits of keys with the other nodes through `state`; `node` is the name of
    /// this node and of its process, with a slash between them.
    ///
    /// # Errors
    /// If the HTTP client cannot be built, such as without TLS root certificates.
    pub fn new(
        options: &Options,
        state: Arc<dyn State>,
        clock: Arc<dyn Clock>,
        node: String,
    ) -> Result<Self, SetupError> {
        let client =
            http::client().connect_timeout(options.connect_timeout).timeout(options.timeout).build()?;
        let lines = Mutex::new(Lines { known: HashMap::new(), sweep_at: KEYS });
        let sharing = Arc::new(Sharing { state, clock: clock.clone(), node });
        Ok(Self { client, clock, sharing, lines, stats: Stats::new() })
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    fn line(&self, model: &Model) -> Arc<Line> {
        let mut hash = Sha256::new();
        hash.update(model.base());
        hash.update([0]);
        hash.update(model.api_key.expose());
        let Lines { known, sweep_at } = &mut *lock(&self.lines);
        if known.len() >= *sweep_at {
            let now = self.clock.elapsed();
            known.retain(|_, line| Arc::strong_count(line) > 1 || !line.is_idle(now));
            *sweep_at = (known.len() * 2).max(KEYS);
        }
        let hash: [u8; 32] = hash.finalize().into();
        known.entry(hash).or_insert_with(|| Arc::new(Line::new(&hash))).clone()
    }

    /// Calls one model, and once more if that is safe.
    async fn ask(&self, question: &Question, model: &Model, prompt: &Prompt) -> Result<Reply, Refusal> {
        let line = self.line(model);
        match self.call(&line, question, model, prompt).await {
            Err(Refusal::Passing(_)) => {
                let pause = rand::rng().random_range(RETRY_PAUSE);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                self.call(&line, question, model, prompt).await
            }
            outcome => outcome,
        }
    }

    async fn call(
        &self,
        line: &Arc<Line>,
        question: &Question,
        model: &Model,
        prompt: &Prompt,
    ) -> Result<Reply, Refusal> {
        let outcome = self.call_once(line, question, model, prompt).await;
        match &outcome {
            Ok(_) => {}
            Err(Refusal::Busy(_)) => self.stats.call(model.provider, "busy"),
            Err(Refusal::Passing(_)) => self.stats.call(model.provider, "passing"),
            Err(Refusal::Suspended) => self.stats.call(model.provider, "left_alone"),
            Err(Refusal::Lost(_) | Refusal::Unreadable(_)) => self.stats.call(model.provider, "lost"),
            Err(Refusal::Final(_) | Refusal::Denied(_)) => self.stats.call(model.provider, "failed"),
        }
        outcome
    }

    async fn call_once(
        &self,
        line: &Arc<Line>,
        question: &Question,
        model: &Model,
        prompt: &Prompt,
    ) -> Result<Reply, Refusal> {
        let api: &dyn Api = match model.provider {
            Provider::Openai | Provider::Deepseek => &openai::OpenAi,
            Provider::Gemini => &gemini::Gemini,
            Provider::Extractive => return Err(Refusal::Final("extractive is no model".into())),
        };
        let mut key = HeaderValue::from_str(model.api_key.expose())
            .map_err(|_| Refusal::Final("the key has characters that no header takes".into()))?;
        key.set_sensitive(true);
        // No call waits for room with a provider whose breaker is open.
        if !lock(&line.breaker).would_admit(self.clock.elapsed()) {
            return Err(Refusal::Suspended);
        }
        let began = self.clock.elapsed();
        let limits = Limits {
            requests: model.requests_per_minute.get().into(),
            tokens: model.tokens_per_minute.get().into(),
        };
        let reservation =
            line.reserve(&self.sharing, &question.tenant.id, limits, prompt.tokens().into()).await?;
        let mut reserved = Reserved { line, reservation, used: None };
        let called = self.clock.elapsed();
        self.stats.waited(model.provider, called.saturating_sub(began));
        if !lock(&line.breaker).admits(self.clock.elapsed()) {
            reserved.used = Some(0);
            return Err(Refusal::Suspended);
        }
        let mut outcome = Outcome { line, clock: &*self.clock, began: called, reported: false };
        let answered = self.exchange(api, model, key, prompt, &question.outgoing).await;
        match &answered {
            Ok((reply, headers)) => {
                outcome.answered();
                let took = self.clock.elapsed().saturating_sub(called);
                self.stats.answered(model.provider, took, reply.usage.unwrap_or_default());
                // Without a report the reservation counts.
                reserved.used = reply.usage.map(Usage::tokens);
                if let Some(wait) = exhausted(headers) {
                    line.hold(self.clock.elapsed() + wait);
                }
            }
            Err(Refusal::Busy(wait)) => {
                outcome.answered();
                reserved.used = Some(0);
                if let Some(wait) = wait {
                    line.hold(self.clock.elapsed() + *wait);
                }
            }
            Err(Refusal::Passing(_)) => {
                outcome.failed();
                reserved.used = Some(0);
            }
            Err(Refusal::Lost(_) | Refusal::Denied(_)) => outcome.failed(),
            // A call that may have been answered may have been counted.
            Err(Refusal::Unreadable(_) | Refusal::Final(_)) => outcome.answered(),
            Err(Refusal::Suspended) => {}
        }
        answered.map(|(reply, _)| reply)
    }

    async fn exchange(
        &self,
        api: &dyn Api,
        model: &Model,
        key: HeaderValue,
        prompt: &Prompt,
        outgoing: &Outgoing,
    ) -> Result<(Reply, HeaderMap), Refusal> {
        let request = api.request(&self.client, model, key, prompt).build();
        let request = request.map_err(|_| Refusal::Final("the address is none that can be called".into()))?;
        let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
        outgoing.add(Sent {
            at: self.clock.now(),
            provider: model.provider.as_str().to_owned(),
            model: model.model.clone(),
            bytes: body.len() as u64,
            sha256: hex::encode(Sha256::digest(body)),
        });
        let response = self.client.execute(request).await.map_err(|error| match () {
            () if error.is_connect() => Refusal::Passing("no connection came about".into()),
            () if error.is_timeout() => Refusal::Lost("no answer came in time".into()),
            () => Refusal::Lost("the connection was lost".into()),
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = http::read(response, MAX_ANSWER).await;
        if status.is_success() {
            let body = body.map_err(|detail| Refusal::Lost(detail.into()))?;
            let reply =
                api.read(&body).ok_or_else(|| Refusal::Unreadable("the answer cannot be read".into()))?;
            return Ok((reply, headers));
        }
        // The status has come, so the answer is known even where its body broke off.
        let body = body.unwrap_or_default();
        let wait = http::retry_after(&headers, self.clock.now()).or_else(|| api.retry_after(&body));
        Err(refused(status, &body, wait))
    }
}

/// Outcome of a call, reported to the breaker. A call that is dropped has none.
struct Outcome<'a> {
    line: &'a Line,
    clock: &'a dyn Clock,
    began: Duration,
    reported: bool,
}

impl Outcome<'_> {
    fn answered(&mut self) {
        self.reported = true;
        lock(&self.line.breaker).answered();
    }

    fn failed(&mut self) {
        self.reported = true;
        lock(&self.line.breaker).failed(self.began, self.clock.elapsed());
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if !self.reported {
            lock(&self.line.breaker).dropped();
        }
    }
}

/// A reservation, settled when it is dropped: with the known use, or whole.
struct Reserved<'a> {
    line: &'a Line,
    reservation: Reservation,
    used: Option<u64>,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(used) = self.used {
            self.line.settle(&self.reservation, used);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the meaning of a refusal. It repeats a code and nothing else of the answer, which may hold what was sent.
fn refused(status: StatusCode, body: &[u8], wait: Option<Duration>) -> Refusal {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let code =
        ["/error/code", "/error/status", "/error/type"].iter().find_map(|at| body.pointer(at)?.as_str());
    let code = code.filter(|code| {
        code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    let detail = format!("{}{}", status.as_u16(), code.map(|code| format!(", {code}")).unwrap_or_default());
    match status.as_u16() {
        // The balance is used up, which waiting does not change.
        429 if code == Some("insufficient_quota") => Refusal::Final(detail),
        429 => Refusal::Busy(wait),
        401 | 403 => Refusal::Denied(detail),
        408 | 500..=599 => match wait {
            Some(wait) => Refusal::Busy(Some(wait)),
            None => Refusal::Passing(detail),
        },
        _ => Refusal::Final(detail),
    }
}

/// Returns the time for which no call is accepted, if the headers of an answer say that no quota is left: OpenAI's
/// headers, which others have taken over.
fn exhausted(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: String| headers.get(name)?.to_str().ok().map(str::to_owned);
    ["requests", "tokens"]
        .iter()
        .filter_map(|what| {
            let left = text(format!("x-ratelimit-remaining-{what}"))?;
            let reset = text(format!("x-ratelimit-reset-{what}"))?;
            (left.trim() == "0").then(|| reset_in(reset.trim())).flatten()
        })
        .max()
}

/// Reads a duration such as `1s`, `6m0s`, `12ms` or `1m30.951s`.
fn reset_in(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let seconds = match &after[..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        sum += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = &after[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

#[async_trait]
impl Responder for Llm {
    fn calls_outside(&self) -> bool {
        true
    }

    fn calls_tools(&self) -> bool {
        true
    }

    fn most(&self, question: &Question) -> Usage {
        let (prompt, _) = prompt(question);
        let mut most = Usage::default();
        // Each may be paid for without an answer that can be used.
        question.tenant.llm.models().for_each(|model| most += prompt.most(&model));
        most
    }

    async fn answer(&self, question: Question) -> Result<Answer, ResponderError> {
        let llm = &question.tenant.llm;
        let (prompt, redactor) = prompt(&question);
        let mut failed = Vec::new();
        let mut busy: Option<Option<Duration>> = None;
        let mut used = Usage::default();
        for model in llm.models() {
            match self.ask(&question, &model, &prompt).await {
                Ok(reply) => {
                    // Without a report it counts with the most that it may have used.
                    used += reply.usage.map_or(prompt.most(&model), |usage| priced(usage, &model));
                    return Ok(Answer { usage: used, ..answer(&reply, redactor.as_ref(), &question) });
                }
                Err(Refusal::Busy(wait)) => {
                    // The shortest wait of those that can be called again.
                    busy = Some(match (busy.flatten(), wait) {
                        (Some(one), Some(other)) => Some(one.min(other)),
                        (one, other) => one.or(other),
                    });
                    failed.push(format!("{}: busy", model.provider.as_str()));
                }
                Err(Refusal::Suspended) => {
                    failed.push(format!("{}: suspended after several failures", model.provider.as_str()));
                }
                Err(Refusal::Lost(detail) | Refusal::Unreadable(detail)) => {
                    used += prompt.most(&model);
                    failed.push(format!("{}: {detail}", model.provider.as_str()));
                }
                Err(Refusal::Passing(detail) | Refusal::Denied(detail) | Refusal::Final(detail)) => {
                    failed.push(format!("{}: {detail}", model.provider.as_str()));
                }
            }
        }
        let detail = failed.join("; ");
        match busy {
            Some(retry_after) => Err(ResponderError::Busy { detail, retry_after, usage: used }),
            None => Err(ResponderError::Failed { detail, usage: used }),
        }
    }
}

/// Returns the request's text, and the redactor that restores the answer.
fn prompt(question: &Question) -> (Prompt, Option<Redactor>) {
    let hides = question.tenant.llm.personal_data == PersonalData::Replaced;
    let mut redactor = hides.then(|| {
        let names = question.name.iter().chain(&question.other_names);
        Redactor::of(names.map(String::as_str))
    });
    (Prompt::of(question, &mut redactor), redactor)
}

fn priced(usage: Usage, model: &Model) -> Usage {
    Usage { money: model.price.of(usage.input_tokens, usage.output_tokens), ..usage }
}

fn answer(reply: &Reply, redactor: Option<&Redactor>, question: &Question) -> Answer {
    let text = reply.text.trim();
    if !reply.calls.is_empty() {
        let text = Some(redactor.map_or_else(|| text.to_owned(), |redactor| redactor.restore(text)));
        let calls = reply.calls.iter().map(|call| {
            // A tool needs the original behind a placeholder.
            ToolCall { arguments: prompt::restored(&call.arguments, redactor), ..call.clone() }
        });
        let text = text.filter(|text| !text.is_empty());
        return Answer { text, calls: calls.collect(), ..Answer::none(Usage::default()) };
    }
    if text.is_empty() || text.contains(NO_ANSWER) {
        return Answer::none(Usage::default());
    }
    let text = redactor.map_or_else(|| text.to_owned(), |redactor| redactor.restore(text));
    let mut sources: Vec<String> = Vec::new();
    for passage in &question.passages {
        if !sources.contains(&passage.document) {
            sources.push(passage.document.clone());
        }
    }
    Answer { sources, ..Answer::text(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_maps_to_its_reaction() {
        let status = |status| StatusCode::from_u16(status).unwrap();
        let second = Some(Duration::from_secs(1));
        assert_eq!(refused(status(429), b"", second), Refusal::Busy(second));
        assert_eq!(refused(status(503), b"", second), Refusal::Busy(second));
        assert_eq!(refused(status(500), b"oops", None), Refusal::Passing("500".into()));
        let quota =
            br#"{"error":{"message":"secret","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        assert_eq!(refused(status(429), quota, None), Refusal::Final("429, insufficient_quota".into()));
        let key = br#"{"error":{"message":"Incorrect API key: sk-1","code":"invalid_api_key"}}"#;
        assert_eq!(refused(status(401), key, None), Refusal::Denied("401, invalid_api_key".into()));
        let odd = br#"{"error":{"code":"What the customer said"}}"#;
        assert_eq!(refused(status(400), odd, None), Refusal::Final("400".into()));
    }

    #[test]
    fn headers_tell_that_nothing_is_left() {
        let headers = |remaining: &'static str, reset: &'static str| {
            HeaderMap::from_iter([
                ("x-ratelimit-remaining-requests".parse().unwrap(), HeaderValue::from_static(remaining)),
                ("x-ratelimit-reset-requests".parse().unwrap(), HeaderValue::from_static(reset)),
            ])
        };
        assert_eq!(exhausted(&headers("0", "6m0s")), Some(Duration::from_secs(360)));
        assert_eq!(exhausted(&headers("0", "1m30.5s")), Some(Duration::from_millis(90_500)));
        assert_eq!(exhausted(&headers("0", "12ms")), Some(Duration::from_millis(12)));
        assert_eq!(exhausted(&headers("1", "6m0s")), None);
        assert_eq!(exhausted(&headers("0", "soon")), None);
    }
}
