//! Simulated Graph API: `POST /{version}/{phone_number_id}/messages`, and `/marketing_messages` beside it.
//!
//! It checks what Graph checks (token, shape, and limits where enabled), accepts the message and only
//! then answers, or fails as the injected faults say. Accepted messages stay in the ledger. Error
//! bodies are those of
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes>.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::stream;
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::sealed::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::dice::Dice;
use crate::fault::{Fate, Faults};
use crate::ledger::{Ledger, Taken};
use crate::limits::{Limits, Over, Pace};
use crate::rules::{RuleState, Rules, Sending, Violations, words};
use crate::wamid;
use crate::{Error, serve};

/// Maximum length of a text, in characters.
const MAX_TEXT: usize = 4096;
/// Maximum length of `biz_opaque_callback_data`, in characters.
const MAX_CALLBACK: usize = 512;

/// Options of the API.
#[derive(Debug, Clone)]
pub struct Options {
    /// Listen address; port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// Existing numbers, with the token that each accepts.
    pub numbers: HashMap<AccountId, Secret>,
    /// Enforced limits; `None` (the default) enforces none.
    pub limits: Option<Limits>,
    /// Enforced rules about contents and people; `None` (the default) enforces none.
    pub rules: Option<Rules>,
    /// Injected faults. Default: none.
    pub faults: Faults,
    /// Keeps accepted messages (the default). A long run under load would fill the memory with them;
    /// without, hooks still see each message once, and the API only counts.
    pub keeps_taken: bool,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            numbers: HashMap::new(),
            limits: None,
            rules: None,
            faults: Faults::default(),
            keeps_taken: true,
            seed: 0,
        }
    }
}

/// Counts of calls to the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests of any kind.
    pub requests: u64,
    /// Messages accepted, answered or not.
    pub taken: u64,
    /// Requests refused, by Graph's error code; injected errors too.
    pub refused: BTreeMap<i64, u64>,
    /// Messages that were answered as held.
    pub held: u64,
    /// Breaches of rules for which the API has no code.
    pub violations: Violations,
    /// Requests whose connection was closed without an answer.
    pub dropped: u64,
    /// Requests that hung first.
    pub hung: u64,
}

type Hook = Box<dyn Fn(&Arc<Taken>) + Send + Sync>;

/// The running API. Clones share it; dropping the last one stops it.
#[derive(Clone)]
pub struct GraphApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: Arc<watch::Sender<()>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    dice: Dice,
    limits: Option<Limits>,
    state: Mutex<Inner>,
}

struct Inner {
    numbers: HashMap<AccountId, Number>,
    faults: Faults,
    pace: Pace,
    rules: Option<Rules>,
    record: RuleState,
    ledger: Ledger,
    counts: Counts,
    hooks: Vec<Arc<Hook>>,
}

struct Number {
    token: Secret,
    revoked: bool,
}

impl GraphApi {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn start(options: Options, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let listen_error = |source| Error::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let numbers = options.numbers.into_iter();
        let numbers = numbers.map(|(id, token)| (id, Number { token, revoked: false })).collect();
        let shared = Arc::new(Shared {
            clock,
            dice: Dice::new(options.seed, 1),
            limits: options.limits,
            state: Mutex::new(Inner {
                numbers,
                faults: options.faults,
                pace: Pace::default(),
                rules: options.rules,
                record: RuleState::default(),
                ledger: Ledger::new(options.keeps_taken),
                counts: Counts::default(),
                hooks: Vec::new(),
            }),
        });
        let app = Router::new()
            .route("/{version}/{phone_number_id}/messages", post(messages))
            .route("/{version}/{phone_number_id}/marketing_messages", post(marketing_messages))
            .with_state(shared.clone());
        Ok(Self { address, shared, _stop: serve(listener, app) })
    }

    /// Returns the listen address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the `api_base` for a channel account.
    #[must_use]
    pub fn api_base(&self) -> String {
        format!("http://{}/v21.0", self.address)
    }

    /// Replaces the injected faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.inner().faults = faults;
    }

    /// Revokes the number's token (error 190), or makes it valid again.
    pub fn set_revoked(&self, account: &AccountId, revoked: bool) {
        if let Some(number) = self.shared.inner().numbers.get_mut(account) {
            number.revoked = revoked;
        }
    }

    /// Counts a message that a customer sent to the number, whose limit covers both directions together.
    pub fn count_in(&self, account: &AccountId) {
        let now = self.shared.clock.elapsed();
        self.shared.inner().pace.count_in(account, now);
    }

    /// Replaces the rules from now on, such as after a template was paused.
    pub fn set_rules(&self, rules: Option<Rules>) {
        self.shared.inner().rules = rules;
    }

    /// Takes note that a person wrote to the number, which opens the reply window for them.
    pub fn heard(&self, account: &AccountId, from: &str) {
        let now = self.shared.clock.elapsed();
        self.shared.inner().record.heard(account, from, now);
    }

    /// Calls `hook` with each message accepted from now on, before its sender gets the answer. The hook
    /// must neither block nor call this API.
    pub fn on_taken(&self, hook: impl Fn(&Arc<Taken>) + Send + Sync + 'static) {
        self.shared.inner().hooks.push(Arc::new(Box::new(hook)));
    }

    /// Returns all accepted messages, in order.
    #[must_use]
    pub fn taken(&self) -> Vec<Arc<Taken>> {
        self.shared.inner().ledger.all()
    }

    /// Returns the number of accepted messages.
    #[must_use]
    pub fn taken_count(&self) -> usize {
        self.shared.inner().ledger.len()
    }

    /// Returns the messages accepted for one person, in order.
    #[must_use]
    pub fn taken_for(&self, recipient: &str) -> Vec<Arc<Taken>> {
        self.shared.inner().ledger.to(recipient)
    }

    /// Returns how often each `biz_opaque_callback_data` was accepted: once is correct.
    #[must_use]
    pub fn times_taken(&self) -> HashMap<String, u32> {
        self.shared.inner().ledger.times()
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.inner().counts.clone()
    }
}

/// Body of a send request; a field of another type counts as absent.
#[derive(Deserialize)]
struct Request {
    messaging_product: Option<String>,
    to: Option<String>,
    recipient: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<Text>,
    biz_opaque_callback_data: Option<String>,
    /// Among them, the field that is named as the type.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct Text {
    body: String,
}

/// Valid message.
struct Message {
    account: AccountId,
    to: String,
    text: String,
    /// The field `template`, where it is one.
    template: Option<Value>,
    callback: Option<String>,
    /// It is held, for an assessment of its quality or by the tier.
    held: bool,
}

/// Graph error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: u16,
    pub(crate) code: i64,
    message: &'static str,
}

pub(crate) const fn refusal(status: u16, code: i64, message: &'static str) -> Refusal {
    Refusal { status, code, message }
}

async fn messages(
    State(shared): State<Arc<Shared>>,
    Path((_version, number)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    send(&shared, &number, &headers, &body, false).await
}

async fn marketing_messages(
    State(shared): State<Arc<Shared>>,
    Path((_version, number)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    send(&shared, &number, &headers, &body, true).await
}

async fn send(
    shared: &Shared,
    number: &str,
    headers: &HeaderMap,
    body: &[u8],
    is_marketing: bool,
) -> Response {
    match shared.judge(number, headers, body, is_marketing) {
        Ok((message, fate, latency)) => shared.perform(message, fate, latency).await,
        Err(refusal) => shared.refuse(refusal),
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides whether the request is valid, and its fate.
    fn judge(
        &self,
        number: &str,
        headers: &HeaderMap,
        body: &[u8],
        is_marketing_endpoint: bool,
    ) -> Result<(Message, Fate, Duration), Refusal> {
        let now = self.clock.elapsed();
        let mut inner = self.inner();
        inner.counts.requests += 1;
        let account = inner.authorized(number, headers)?;
        let mut message = readable(account, body)?;
        if let Some(limits) = &self.limits {
            inner.pace.admit(limits, &message.account, &message.to, now).map_err(|over| match over {
                Over::Number => refusal(429, 130_429, "(#130429) Rate limit hit"),
                Over::Pair => refusal(
                    429,
                    131_056,
                    "(#131056) (Business Account, Consumer Account) pair rate limit hit",
                ),
            })?;
        }
        inner.apply_rules(&mut message, is_marketing_endpoint, now)?;
        let fate = inner.faults.fate(self.dice.unit());
        Ok((message, fate, self.dice.within(&inner.faults.latency)))
    }

    async fn perform(&self, message: Message, fate: Fate, latency: Duration) -> Response {
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match fate {
            Fate::Answer => {
                let held = message.held;
                answer(&self.take(message), held)
            }
            Fate::ServerError => self.refuse(refusal(500, 131_000, "(#131000) Something went wrong")),
            Fate::RateLimited => {
                let wait = self.inner().faults.retry_after.as_secs();
                let mut response = self.refuse(refusal(429, 130_429, "(#130429) Rate limit hit"));
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait));
                response
            }
            Fate::TakenThenDropped => {
                self.take(message);
                self.drop_connection()
            }
            Fate::Dropped => self.drop_connection(),
            Fate::HangTaken => {
                self.take(message);
                self.hang().await
            }
            Fate::HangUntaken => self.hang().await,
        }
    }

    fn take(&self, message: Message) -> Arc<Taken> {
        let message_held = message.held;
        let taken = Taken {
            order: 0,
            wamid: wamid::new(&message.to, wamid::From::Business, &self.dice),
            account: message.account,
            to: message.to,
            text: message.text,
            outbound: message.callback.as_deref().and_then(|id| id.parse().ok()),
            callback: message.callback,
            at: self.clock.elapsed(),
        };
        let (taken, hooks) = {
            let mut inner = self.inner();
            inner.counts.taken += 1;
            inner.counts.held += u64::from(message_held);
            (inner.ledger.take(taken), inner.hooks.clone())
        };
        hooks.iter().for_each(|hook| hook(&taken));
        taken
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        *self.inner().counts.refused.entry(refusal.code).or_default() += 1;
        let body = json!({ "error": {
            "message": refusal.message,
            "type": "OAuthException",
            "code": refusal.code,
            "error_data": { "messaging_product": "whatsapp", "details": refusal.message },
            "fbtrace_id": hex::encode(self.dice.bytes::<8>()),
        } });
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }

    async fn hang(&self) -> Response {
        let long = {
            let mut inner = self.inner();
            inner.counts.hung += 1;
            inner.faults.hang_for
        };
        tokio::time::sleep(long).await;
        self.drop_connection()
    }

    /// Returns a body that fails before it has begun: the server closes the connection in the middle of
    /// the answer, or before it.
    fn drop_connection(&self) -> Response {
        self.inner().counts.dropped += 1;
        let broken = stream::once(async { Err::<Bytes, _>(io::Error::from(io::ErrorKind::ConnectionReset)) });
        ([(CONTENT_LENGTH, "200")], Body::from_stream(broken)).into_response()
    }
}

impl Inner {
    /// Applies the rules to a message, which is marked where it is held.
    fn apply_rules(
        &mut self,
        message: &mut Message,
        is_marketing_endpoint: bool,
        now: Duration,
    ) -> Result<(), Refusal> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let Message { account, to, template, .. } = &*message;
        let sending = Sending { account, to, template: template.as_ref(), is_marketing_endpoint };
        let allowed = self.record.admit(rules, &sending, now)?;
        if let Some(violation) = allowed.violation {
            *self.counts.violations.entry(violation).or_default() += 1;
        }
        message.held = allowed.held;
        Ok(())
    }

    fn authorized(&self, number: &str, headers: &HeaderMap) -> Result<AccountId, Refusal> {
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let account = number.parse::<AccountId>().ok();
        let known = account.as_ref().and_then(|account| self.numbers.get(account));
        match (account, known, token) {
            (Some(account), Some(known), Some(token)) if !known.revoked && token == known.token.expose() => {
                Ok(account)
            }
            (_, None, Some(_)) => Err(refusal(
                400,
                100,
                "Unsupported post request. The object does not exist or lacks permissions",
            )),
            _ => Err(refusal(401, 190, "Error validating access token")),
        }
    }
}

/// Decodes the message of a well-formed request.
fn readable(account: AccountId, body: &[u8]) -> Result<Message, Refusal> {
    let request: Request = serde_json::from_slice(body)
        .map_err(|_| refusal(400, 100, "(#100) The parameters are no valid JSON"))?;
    if request.messaging_product.as_deref() != Some("whatsapp") {
        return Err(refusal(400, 100, "(#100) The parameter messaging_product is required"));
    }
    // `to` takes precedence where both are given.
    let to = request.to.or(request.recipient).filter(|to| !to.is_empty());
    let to = to.ok_or(refusal(400, 100, "(#100) The parameter to is required"))?;
    let kind = request.kind.as_deref().unwrap_or("text");
    let content = request.rest.get(kind);
    let text = match (kind, request.text) {
        ("text", Some(text)) if !text.body.is_empty() => Some(text.body),
        ("text", _) => None,
        _ => content.and_then(|content| words(kind, content)),
    };
    let template = content.filter(|_| kind == "template").cloned();
    let Some(text) = text else {
        return match kind {
            "text" => Err(refusal(400, 100, "(#100) The parameter text['body'] is required")),
            _ => Err(refusal(400, 131_008, "(#131008) Required parameter is missing")),
        };
    };
    if text.chars().count() > MAX_TEXT {
        return Err(refusal(400, 100, "(#100) Param text['body'] must be at most 4096 characters long"));
    }
    let callback = request.biz_opaque_callback_data;
    if callback.as_ref().is_some_and(|data| data.chars().count() > MAX_CALLBACK) {
        return Err(refusal(
            400,
            100,
            "(#100) Param biz_opaque_callback_data must be at most 512 characters long",
        ));
    }
    Ok(Message { account, to, text, template, callback, held: false })
}

fn answer(taken: &Taken, held: bool) -> Response {
    // The answer to a send by scoped id holds no `wa_id`.
    let contact = match taken.is_to_phone() {
        true => json!({ "input": taken.to, "wa_id": taken.to }),
        false => json!({ "input": taken.to, "user_id": taken.to }),
    };
    // `.../templates/template-pacing`: the status stands beside the id of a template that is paced.
    let message = match held {
        true => json!({ "id": taken.wamid, "message_status": "held_for_quality_assessment" }),
        false => json!({ "id": taken.wamid }),
    };
    let body = json!({
        "messaging_product": "whatsapp",
        "contacts": [contact],
        "messages": [message],
    });
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
