//! A simulated provider of language models: `POST /v1/chat/completions`, as OpenAI and many others have it
//! (<https://platform.openai.com/docs/api-reference/chat/create>).
//!
//! It answers with what it was asked last, so that answers can be told apart. Contract of its account:
//! - Each key has its limits of requests and tokens in any minute, wherever that begins, by the arrival of calls.
//!   A call over one of them is answered with 429 and counted as a violation; it takes nothing of the limits.
//! - Any other call is counted as a request, also where it is then made to fail. Its tokens are counted on arrival
//!   ([`Tokens`]), but where it is refused on purpose (429, 500): there no model has worked.
//! - A call is paid where a model has worked: it was answered, answered with a body that breaks off, or hangs; also
//!   where its caller was gone before. [`LlmApi::paid`] has each by what it asked.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::stream;
use heddle_schemas::ports::clock::Clock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::dice::Dice;
use super::{Error, serve};

const MINUTE: Duration = Duration::from_secs(60);

/// What a key may use in any minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub requests: NonZeroU64,
    /// Tokens, sent and received.
    pub tokens: NonZeroU64,
}

/// How tokens are counted. With the defaults a prompt has never more than one for three bytes and eight a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// Bytes of a text that are one token; what is left over is one more. Default 4.
    pub bytes: NonZeroU64,
    /// Tokens of a message beside its text. Default 4.
    pub message: u64,
    /// Tokens of an answer, whatever it says; `None` (the default) counts its text.
    pub answer: Option<u64>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { bytes: const { NonZeroU64::new(4).unwrap() }, message: 4, answer: None }
    }
}

impl Tokens {
    fn of(&self, text: &str) -> u64 {
        (text.len() as u64).div_ceil(self.bytes.get())
    }
}

/// How often which fault strikes. Shares are of all calls within the limits; their sum is at most 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// Share answered with 429 and a `Retry-After` though the limits are kept.
    pub rate_limited: f64,
    /// The `Retry-After` of those, in whole seconds.
    pub retry_after: Duration,
    /// Share answered with 500.
    pub server_error: f64,
    /// Share that hangs, and is then closed without an answer.
    pub hang: f64,
    /// How long those hang.
    pub hang_for: Duration,
    /// Share answered with a body that breaks off in the middle.
    pub truncated: f64,
}

impl Default for Faults {
    /// None.
    fn default() -> Self {
        Self {
            rate_limited: 0.0,
            retry_after: Duration::from_secs(1),
            server_error: 0.0,
            hang: 0.0,
            hang_for: Duration::from_secs(60),
            truncated: 0.0,
        }
    }
}

/// What becomes of a call within the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answer,
    RateLimited,
    ServerError,
    Hang,
    Truncated,
}

impl Faults {
    /// The fate of a call for which the dice show `roll`, a number of 0 to 1.
    fn fate(&self, roll: f64) -> Fate {
        let mut end = 0.0;
        for (share, fate) in [
            (self.rate_limited, Fate::RateLimited),
            (self.server_error, Fate::ServerError),
            (self.hang, Fate::Hang),
            (self.truncated, Fate::Truncated),
        ] {
            end += share;
            if roll < end {
                return fate;
            }
        }
        Fate::Answer
    }
}

/// How the provider behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// The keys there are, and what each may use; no limit where there is none.
    pub keys: HashMap<String, Option<Limits>>,
    /// How tokens are counted.
    pub tokens: Tokens,
    /// How long an answer takes. Default 500 ms.
    pub latency: Range<Duration>,
    /// What goes wrong. Default: nothing.
    pub faults: Faults,
    /// Whether each call is kept (the default). A long run under load would only fill memory with them: then the
    /// account tells sums alone.
    pub keeps_calls: bool,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            keys: HashMap::new(),
            tokens: Tokens::default(),
            latency: Duration::from_millis(500)..Duration::from_millis(500),
            faults: Faults::default(),
            keeps_calls: true,
            seed: 0,
        }
    }
}

/// What has come under a key.
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
    /// Of the calls, whose caller was gone before the answer.
    pub abandoned: u64,
    /// The most that were under way at once.
    pub most_at_once: u64,
}

/// A call that was paid. Times are those of the provider's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paid {
    /// When it came.
    pub arrived: Duration,
    /// When it was answered, broken off or given up by its caller; `None` while it is under way.
    pub ended: Option<Duration>,
    /// Whether its caller was gone before the answer.
    pub abandoned: bool,
}

/// Which limit a call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Requests,
    Tokens,
}

/// What was counted in the minute that ends now.
#[derive(Debug, Default)]
struct Window {
    counted: VecDeque<(Duration, u64)>,
    tokens: u64,
}

impl Window {
    /// Counts a call of so many tokens, or says which limit it is over. Times do not go back.
    fn admit(&mut self, limits: &Limits, tokens: u64, now: Duration) -> Result<(), Over> {
        while let Some((_, gone)) = self.counted.pop_front_if(|(at, _)| *at + MINUTE <= now) {
            self.tokens -= gone;
        }
        if self.counted.len() as u64 + 1 > limits.requests.get() {
            return Err(Over::Requests);
        }
        if self.tokens + tokens > limits.tokens.get() {
            return Err(Over::Tokens);
        }
        self.tokens += tokens;
        self.counted.push_back((now, tokens));
        Ok(())
    }
}

#[derive(Default)]
struct Key {
    limits: Option<Limits>,
    window: Window,
    account: Account,
    under_way: u64,
    /// Arrivals of the calls within the limits, with their tokens.
    calls: Vec<(Duration, u64)>,
}

struct Inner {
    keys: HashMap<String, Key>,
    faults: Faults,
    latency: Range<Duration>,
    paid: HashMap<String, Vec<Paid>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    dice: Dice,
    tokens: Tokens,
    keeps_calls: bool,
    state: Mutex<Inner>,
}

/// The running provider. Clones share it; when the last one is gone it takes no more connections.
#[derive(Clone)]
pub struct LlmApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: Arc<watch::Sender<()>>,
}

impl LlmApi {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn start(options: Options, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let listen_error = |source| Error::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let keys = options.keys.into_iter();
        let keys = keys.map(|(key, limits)| (key, Key { limits, ..Key::default() })).collect();
        let shared = Arc::new(Shared {
            clock,
            dice: Dice::new(options.seed, 4),
            tokens: options.tokens,
            keeps_calls: options.keeps_calls,
            state: Mutex::new(Inner {
                keys,
                faults: options.faults,
                latency: options.latency,
                paid: HashMap::new(),
            }),
        });
        let app = Router::new().route("/v1/chat/completions", post(complete)).with_state(shared.clone());
        Ok(Self { address, shared, _stop: serve(listener, app) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a model takes as `api_base`.
    #[must_use]
    pub fn api_base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Replaces what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.inner().faults = faults;
    }

    /// Replaces how long answers take from now on.
    pub fn set_latency(&self, latency: Range<Duration>) {
        self.shared.inner().latency = latency;
    }

    /// What has come under a key so far.
    #[must_use]
    pub fn account(&self, key: &str) -> Account {
        self.shared.inner().keys.get(key).map(|key| key.account).unwrap_or_default()
    }

    /// Requests and tokens that were counted from one time on and before another, by the provider's clock.
    #[must_use]
    pub fn counted(&self, key: &str, during: Range<Duration>) -> (u64, u64) {
        let inner = self.shared.inner();
        let calls = inner.keys.get(key).into_iter().flat_map(|key| &key.calls);
        let counted = calls.filter(|(at, _)| during.contains(at));
        counted.fold((0, 0), |(requests, tokens), (_, more)| (requests + 1, tokens + more))
    }

    /// Each paid call, by what it asked: the text of its last message of a user.
    #[must_use]
    pub fn paid(&self) -> HashMap<String, Vec<Paid>> {
        self.shared.inner().paid.clone()
    }
}

/// What is read of a call.
#[derive(Deserialize)]
struct Request {
    model: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Option<String>,
}

impl Request {
    fn asked(&self) -> &str {
        let last = self.messages.iter().rev().find(|message| message.role == "user");
        last.and_then(|message| message.content.as_deref()).unwrap_or_default()
    }
}

/// A call within the limits.
struct Call {
    model: String,
    asked: String,
    prompt_tokens: u64,
    answer_tokens: u64,
    fate: Fate,
    latency: Duration,
}

/// A call under way: one that is dropped before its end was given up by its caller.
struct UnderWay {
    shared: Arc<Shared>,
    key: String,
    /// Its place among what was paid for this question.
    paid: Option<(String, usize)>,
    ended: bool,
}

impl UnderWay {
    fn end(mut self, count: impl FnOnce(&mut Account)) {
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

async fn complete(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = key.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let Ok(request) = serde_json::from_slice::<Request>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "invalid_request_error", "The body is no valid request");
    };
    match shared.take(key, request) {
        Ok((call, under_way)) => perform(call, under_way).await,
        Err(refusal) => *refusal,
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, if its key and its limits let it through.
    fn take(self: &Arc<Self>, name: &str, request: Request) -> Result<(Call, UnderWay), Box<Response>> {
        let texts = request.messages.iter().map(|message| message.content.as_deref().unwrap_or_default());
        let prompt_tokens = texts.map(|text| self.tokens.of(text) + self.tokens.message).sum();
        let asked = request.asked().to_owned();
        let answer_tokens = self.tokens.answer.unwrap_or_else(|| self.tokens.of(&answer(&asked)));
        let mut inner = self.inner();
        let inner = &mut *inner;
        // Under the lock, so that times come in order.
        let now = self.clock.elapsed();
        let fate = inner.faults.fate(self.dice.unit());
        let Some(key) = inner.keys.get_mut(name) else {
            let refusal = refusal(StatusCode::UNAUTHORIZED, "invalid_api_key", "Incorrect API key provided");
            return Err(Box::new(refusal));
        };
        let works = !matches!(fate, Fate::RateLimited | Fate::ServerError);
        let tokens = if works { prompt_tokens + answer_tokens } else { 0 };
        let over = key.limits.and_then(|limits| key.window.admit(&limits, tokens, now).err());
        if let Some(over) = over {
            key.account.violations += 1;
            let message = match over {
                Over::Requests => "Rate limit reached for requests per min (RPM)",
                Over::Tokens => "Rate limit reached for tokens per min (TPM)",
            };
            return Err(Box::new(limited(message, MINUTE)));
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

async fn perform(call: Call, under_way: UnderWay) -> Response {
    if !call.latency.is_zero() {
        tokio::time::sleep(call.latency).await;
    }
    match call.fate {
        Fate::Answer => {
            let response = completion(&call);
            under_way.end(|account| account.answered += 1);
            (StatusCode::OK, [(CONTENT_TYPE, "application/json")], response.to_string()).into_response()
        }
        Fate::RateLimited => {
            let wait = under_way.shared.inner().faults.retry_after;
            under_way.end(|account| account.rate_limited += 1);
            limited("The engine is currently overloaded, please try again later", wait)
        }
        Fate::ServerError => {
            under_way.end(|account| account.server_errors += 1);
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "The server had an error")
        }
        Fate::Hang => {
            under_way.end(|account| account.hung += 1);
            broken(String::new())
        }
        Fate::Truncated => {
            under_way.end(|account| account.truncated += 1);
            let mut whole = completion(&call).to_string();
            whole.truncate(whole.len() / 2);
            broken(whole)
        }
    }
}

/// What is said to who asked this.
fn answer(asked: &str) -> String {
    format!("You asked: {asked}")
}

fn completion(call: &Call) -> Value {
    json!({
        "id": "chatcmpl-simulated",
        "object": "chat.completion",
        "created": 0,
        "model": call.model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": answer(&call.asked), "refusal": null },
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": call.answer_tokens,
            "total_tokens": call.prompt_tokens + call.answer_tokens,
        },
    })
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "message": message, "type": code, "param": null, "code": code } });
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn limited(message: &str, wait: Duration) -> Response {
    let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    response
}

/// An answer that ends in the middle: the server closes the connection behind these bytes.
fn broken(begun: String) -> Response {
    let promised = begun.len() + 200;
    let parts = [Ok(Bytes::from(begun)), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
    let headers = [(CONTENT_LENGTH, promised.to_string()), (CONTENT_TYPE, "application/json".to_owned())];
    (headers, Body::from_stream(stream::iter(parts))).into_response()
}

#[cfg(test)]
mod tests {
    use heddle_connectors::clock::SystemClock;
    use reqwest::Client;

    use super::*;

    fn limits(requests: u64, tokens: u64) -> Limits {
        Limits { requests: requests.try_into().unwrap(), tokens: tokens.try_into().unwrap() }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_minute_that_begins_anywhere_has_no_more_than_the_limits() {
        let (mut window, limits) = (Window::default(), limits(3, 100));
        let mut admit = |tokens, at| window.admit(&limits, tokens, at);
        // Counted by hand: three requests and 90 tokens from 0 s to 59.999 s.
        assert_eq!(admit(40, secs(0)), Ok(()));
        assert_eq!(admit(30, secs(30)), Ok(()));
        assert_eq!(admit(20, secs(59)), Ok(()));
        assert_eq!(admit(1, Duration::from_millis(59_999)), Err(Over::Requests));
        // At 60 s the first is out: two requests and 50 tokens are left, and 50 more fit, not 51.
        assert_eq!(admit(51, secs(60)), Err(Over::Tokens));
        assert_eq!(admit(50, secs(60)), Ok(()));
        // The second goes at 90 s, the third at 119 s: what was refused has taken nothing.
        assert_eq!(admit(1, secs(89)), Err(Over::Requests));
        assert_eq!(admit(30, secs(90)), Ok(()));
        assert_eq!(admit(21, secs(119)), Err(Over::Tokens));
        assert_eq!(admit(20, secs(119)), Ok(()));
    }

    #[test]
    fn shares_of_faults_follow_one_another() {
        let faults = Faults { rate_limited: 0.1, hang: 0.2, truncated: 0.2, ..Faults::default() };
        let fates = [0.0, 0.09, 0.11, 0.29, 0.31, 0.49, 0.51].map(|roll| faults.fate(roll));
        use Fate::{Answer, Hang, RateLimited, Truncated};
        assert_eq!(fates, [RateLimited, RateLimited, Hang, Hang, Truncated, Truncated, Answer]);
        assert_eq!(Faults::default().fate(0.0), Answer);
    }

    async fn ask(api: &LlmApi, key: &str, text: &str) -> reqwest::Result<(u16, Value)> {
        let body = json!({ "model": "m", "messages": [
            { "role": "system", "content": "Be kind." }, { "role": "user", "content": text },
        ] });
        let call = Client::new().post(format!("{}/chat/completions", api.api_base())).bearer_auth(key);
        let answer = call.json(&body).send().await?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await?))
    }

    async fn provider(options: Options) -> LlmApi {
        let keys = [("sk".to_owned(), Some(limits(4, 1_000)))].into();
        LlmApi::start(Options { keys, ..options }, Arc::new(SystemClock)).await.unwrap()
    }

    fn at_once() -> Options {
        Options { latency: Duration::ZERO..Duration::ZERO, ..Options::default() }
    }

    #[tokio::test]
    async fn it_answers_counts_and_refuses_what_is_over() {
        let api = provider(at_once()).await;
        assert_eq!(ask(&api, "other", "hello").await.unwrap().0, 401);
        for number in 0..4 {
            let (status, body) = ask(&api, "sk", &format!("number {number}")).await.unwrap();
            assert_eq!(status, 200);
            assert_eq!(body["choices"][0]["message"]["content"], format!("You asked: number {number}"));
            // "Be kind." has 8 bytes, "number 0" as well: 2 + 4 tokens each. The answer has 19: 5 tokens.
            assert_eq!(
                body["usage"],
                json!({ "prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17 })
            );
        }
        assert_eq!(ask(&api, "sk", "once more").await.unwrap().0, 429);
        let account = api.account("sk");
        assert_eq!((account.calls, account.answered, account.violations, account.tokens), (4, 4, 1, 68));
        assert_eq!(api.counted("sk", Duration::ZERO..Duration::MAX), (4, 68));
        assert!(api.paid()["number 3"][0].ended.is_some() && !api.paid().contains_key("once more"));
    }

    #[tokio::test]
    async fn each_fault_is_seen_and_counted_and_what_no_model_worked_on_is_not_paid() {
        let faults = |change: fn(&mut Faults)| {
            let mut faults = Faults { hang_for: Duration::ZERO, ..Faults::default() };
            change(&mut faults);
            faults
        };
        let api = provider(at_once()).await;
        api.set_faults(faults(|faults| faults.rate_limited = 1.0));
        assert_eq!(ask(&api, "sk", "a").await.unwrap().0, 429);
        api.set_faults(faults(|faults| faults.server_error = 1.0));
        assert_eq!(ask(&api, "sk", "b").await.unwrap().0, 500);
        api.set_faults(faults(|faults| faults.truncated = 1.0));
        assert!(ask(&api, "sk", "c").await.is_err());
        api.set_faults(faults(|faults| faults.hang = 1.0));
        assert!(ask(&api, "sk", "d").await.is_err());
        let Account { calls, rate_limited, server_errors, truncated, hung, violations, .. } =
            api.account("sk");
        assert_eq!((calls, rate_limited, server_errors, truncated, hung, violations), (4, 1, 1, 1, 1, 0));
        let mut paid: Vec<_> = api.paid().into_keys().collect();
        paid.sort();
        assert_eq!(paid, ["c", "d"]);
    }

    #[tokio::test]
    async fn who_goes_away_has_paid_all_the_same() {
        let api = provider(Options { latency: secs(30)..secs(30), ..Options::default() }).await;
        let gone = tokio::time::timeout(Duration::from_millis(300), ask(&api, "sk", "gone")).await;
        assert!(gone.is_err());
        let noticed = async {
            while api.account("sk").abandoned == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(secs(5), noticed).await.unwrap();
        let [paid] = api.paid()["gone"][..] else { panic!("paid once") };
        assert!(paid.abandoned && paid.ended.is_some());
    }
}
