//! Webhooks: `GET|POST /webhooks/<channel>/<account>`.
//!
//! Contract: 200 means that every event in the body is durable (I2). Any other status makes the channel
//! retry, or shows a fault of its configuration. Handshake, signature, body and its limit are the channel's; here its
//! account is found and each answer counted by its reason:
//!
//! | what comes | answer | counted as |
//! |---|---|---|
//! | everything is durable | 200 | `taken` |
//! | no JSON object, or not of the channel's shape | 400 | `body` |
//! | the signature is missing or wrong | 401 | `signature` |
//! | the verify token of a subscription is wrong | 403 | `verify_token` |
//! | no such channel or account | 404 | `account` |
//! | a subscription to a channel without handshake | 405 | `no_handshake` |
//! | over the channel's limit of a body | 413 | `too_large` |
//! | the log is full | 503, Retry-After | `full` |
//! | the stores do not answer, or the node is starting, stopping or at its limit | 503, Retry-After | `unavailable`, `not_ready`, `busy` |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use heddle_actors::intake::webhook::ReceptionError;
use heddle_actors::privacy::security::SecuritySignal;
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind};
use heddle_schemas::ports::channel::{Channel, ChannelEvent, HandshakeError, WebhookError};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::tenant::{ChannelAccount, Tenant};

use super::Shared;
use super::body::BodyError;

/// Maximum time that a webhook waits for capacity.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a body from which on reading it takes its own thread.
const LARGE: usize = 64 << 10;
/// When the channel may try again, in seconds.
const RETRY_SECONDS: &str = "5";

/// The routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/webhooks/{channel}/{account}", get(subscribe).post(receive))
}

/// Why a webhook is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Account,
    Signature,
    Body,
    TooLarge,
    Slow,
    VerifyToken,
    NoHandshake,
    Full,
    Unavailable,
    NotReady,
    Busy,
}

/// Results of webhooks, as labels.
pub(crate) const WEBHOOK_RESULTS: [&str; 13] = {
    let mut results = ["subscribed"; 13];
    results[1] = "taken";
    let mut index = 0;
    while index < Refusal::ALL.len() {
        results[index + 2] = Refusal::ALL[index].label();
        index += 1;
    }
    results
};

impl Refusal {
    const ALL: [Self; 11] = [
        Self::Account,
        Self::Signature,
        Self::Body,
        Self::TooLarge,
        Self::Slow,
        Self::VerifyToken,
        Self::NoHandshake,
        Self::Full,
        Self::Unavailable,
        Self::NotReady,
        Self::Busy,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Signature => "signature",
            Self::Body => "body",
            Self::TooLarge => "too_large",
            Self::Slow => "slow",
            Self::VerifyToken => "verify_token",
            Self::NoHandshake => "no_handshake",
            Self::Full => "full",
            Self::Unavailable => "unavailable",
            Self::NotReady => "not_ready",
            Self::Busy => "busy",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Body => StatusCode::BAD_REQUEST,
            Self::Signature => StatusCode::UNAUTHORIZED,
            Self::VerifyToken => StatusCode::FORBIDDEN,
            Self::NoHandshake => StatusCode::METHOD_NOT_ALLOWED,
            Self::Account => StatusCode::NOT_FOUND,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Full | Self::Unavailable | Self::NotReady | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Account => "no such account",
            Self::Signature => "the signature is missing or wrong",
            Self::Body => "the body is no JSON object, or not of the channel's shape",
            Self::TooLarge => "the body is over the channel's limit",
            Self::Slow => "the body did not arrive in time",
            Self::VerifyToken => "the verify token is wrong",
            Self::NoHandshake => "this channel has no handshake; post its webhooks",
            Self::Full => "the log is full",
            Self::Unavailable => "the store does not answer",
            Self::NotReady => "not ready",
            Self::Busy => "too many webhooks at once",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Refused::from(self).into_response()
    }
}

/// A refusal, and what its sender should know beside it.
struct Refused {
    refusal: Refusal,
    /// Only for a sender whose signature held: it may repeat parts of the body.
    detail: Option<String>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: None }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, text) = (self.refusal.status(), self.refusal.text());
        let text = self.detail.map_or_else(|| text.to_owned(), |detail| format!("{text}: {detail}"));
        let mut response = (status, text).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static(RETRY_SECONDS));
        }
        response
    }
}

/// The account that a path names, with its tenant and channel.
struct Addressed {
    kind: ChannelKind,
    channel: Arc<dyn Channel>,
    tenant: Arc<Tenant>,
    account: AccountId,
}

impl Addressed {
    fn account(&self) -> Option<&ChannelAccount> {
        self.tenant.channel(self.kind, &self.account)
    }
}

fn addressed(shared: &Shared, kind: ChannelKind, account: &str) -> Option<Addressed> {
    let account: AccountId = account.parse().ok()?;
    let channel = shared.node.ports.channels.get(&kind)?.clone();
    let tenant = shared.tenants.by_account(kind, &account)?;
    Some(Addressed { kind, channel, tenant, account })
}

async fn subscribe(
    State(shared): State<Arc<Shared>>,
    Path((channel, account)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let Ok(kind) = channel.parse::<ChannelKind>() else { return Refusal::Account.into_response() };
    let began = shared.node.ports.clock.elapsed();
    let answer = match addressed(&shared, kind, &account) {
        None => Err(Refusal::Account),
        Some(addressed) => match addressed.account() {
            None => Err(Refusal::Account),
            Some(account) => addressed.channel.handshake(account, &query).map_err(|error| match error {
                HandshakeError::Refused => Refusal::VerifyToken,
                HandshakeError::Unsupported => Refusal::NoHandshake,
            }),
        },
    };
    let took = shared.node.ports.clock.elapsed().saturating_sub(began);
    match answer {
        Ok(challenge) => {
            shared.metrics.webhook(kind, "subscribed", took);
            challenge.into_response()
        }
        Err(refusal) => {
            shared.metrics.webhook(kind, refusal.label(), took);
            refusal.into_response()
        }
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    Path((channel, account)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(kind) = channel.parse::<ChannelKind>() else { return Refusal::Account.into_response() };
    let clock = &shared.node.ports.clock;
    let began = clock.elapsed();
    shared.metrics.in_work(1);
    let taken = take(&shared, kind, &account, &headers, body).await;
    shared.metrics.in_work(-1);
    let took = clock.elapsed().saturating_sub(began);
    match taken {
        Ok(()) => {
            shared.metrics.webhook(kind, "taken", took);
            StatusCode::OK.into_response()
        }
        Err(refused) => {
            shared.metrics.webhook(kind, refused.refusal.label(), took);
            refused.into_response()
        }
    }
}

async fn take(
    shared: &Shared,
    kind: ChannelKind,
    account: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Refused> {
    if !shared.is_ready() {
        return Err(Refusal::NotReady.into());
    }
    let addressed = addressed(shared, kind, account).ok_or(Refusal::Account)?;
    // What is refused comes again, and may hold a status that is waited for.
    let counted = |refusal| {
        for account in addressed.tenant.channels.iter().filter(|account| account.kind == kind) {
            let (tenant, account) = (addressed.tenant.id.clone(), account.account.clone());
            shared.intake_gate.refused(&AccountKey { tenant, channel: kind, account });
        }
        refusal
    };
    let most = addressed.channel.profile().webhook_body_max;
    let held = shared.bodies.read(kind, &addressed.account, body, most).await.map_err(|error| {
        counted(match error {
            BodyError::TooLarge => Refusal::TooLarge,
            BodyError::Slow => Refusal::Slow,
            BodyError::Busy => Refusal::Busy,
        })
    })?;
    let body = &held.bytes;
    // Only now: a client that sends slowly, or nothing, keeps nobody else from a turn.
    let turn = tokio::time::timeout(PATIENCE, shared.at_once.acquire()).await;
    let _turn = turn.map_err(|_| counted(Refusal::Busy))?.map_err(|_| Refusal::NotReady)?;
    let account = addressed.account().ok_or(Refusal::Account)?;
    addressed.channel.verify(account, headers, body).map_err(|_| {
        shared.node.ports.security.saw(Some(&addressed.tenant.id), SecuritySignal::WebhookSignature);
        Refusal::Signature
    })?;
    let events = parse(&addressed, body).await.map_err(|error| match error {
        WebhookError::Signature => Refused::from(Refusal::Signature),
        WebhookError::Body(detail) => Refused { refusal: Refusal::Body, detail: Some(detail) },
    })?;
    for (tenant, events) in by_tenant(shared, &addressed, headers, body, events) {
        count(shared, kind, &events);
        shared.reception.accept(kind, &tenant, events).await.map_err(|error| refused(&tenant, &error))?;
    }
    Ok(())
}

/// Reads a body; a large one beside the threads that answer everybody.
async fn parse(addressed: &Addressed, body: &Bytes) -> Result<Vec<ChannelEvent>, WebhookError> {
    if body.len() <= LARGE {
        return addressed.channel.parse(&addressed.account, body);
    }
    let (channel, account, body) = (addressed.channel.clone(), addressed.account.clone(), body.clone());
    let read = tokio::task::spawn_blocking(move || channel.parse(&account, &body)).await;
    read.unwrap_or_else(|_| Err(WebhookError::Body("it cannot be read".into())))
}

/// Groups the events by tenant. A body may hold several accounts: those of another tenant are accepted only if that
/// tenant's own secret signed the body too. Events of unknown accounts are dropped.
fn by_tenant(
    shared: &Shared,
    addressed: &Addressed,
    headers: &HeaderMap,
    body: &Bytes,
    events: Vec<ChannelEvent>,
) -> Vec<(Arc<Tenant>, Vec<ChannelEvent>)> {
    let mut owners: BTreeMap<AccountId, Option<Arc<Tenant>>> = BTreeMap::new();
    let mut sorted: Vec<(Arc<Tenant>, Vec<ChannelEvent>)> = Vec::new();
    for event in events {
        let owner = match &event {
            ChannelEvent::Notice { .. } => Some(addressed.tenant.clone()),
            ChannelEvent::Message(heddle_schemas::ports::channel::ReceivedMessage { account, .. })
            | ChannelEvent::Status(heddle_schemas::ports::channel::ReceivedStatus { account, .. })
            | ChannelEvent::Preference(heddle_schemas::ports::channel::ReceivedPreference {
                account, ..
            }) => owners
                .entry(account.clone())
                .or_insert_with(|| {
                    let tenant = shared.tenants.by_account(addressed.kind, account)?;
                    let theirs = tenant.channel(addressed.kind, account)?;
                    let signed = *account == addressed.account
                        || addressed.channel.verify(theirs, headers, body).is_ok();
                    if !signed {
                        // The body is one tenant's, and speaks of what is another's.
                        shared.node.ports.security.saw(Some(&tenant.id), SecuritySignal::CrossTenant);
                    }
                    signed.then_some(tenant)
                })
                .clone(),
        };
        let Some(owner) = owner else {
            shared.node.ports.metrics.dropped("foreign_account");
            continue;
        };
        match sorted.iter_mut().find(|(tenant, _)| tenant.id == owner.id) {
            Some((_, events)) => events.push(event),
            None => sorted.push((owner, vec![event])),
        }
    }
    sorted
}

fn count(shared: &Shared, kind: ChannelKind, events: &[ChannelEvent]) {
    for (name, is_one) in [
        ("message", (|event| matches!(event, ChannelEvent::Message(_))) as fn(&ChannelEvent) -> bool),
        ("status", |event| matches!(event, ChannelEvent::Status(_))),
        ("preference", |event| matches!(event, ChannelEvent::Preference(_))),
        ("notice", |event| matches!(event, ChannelEvent::Notice { .. })),
    ] {
        shared.metrics.events(kind, name, events.iter().filter(|event| is_one(event)).count());
    }
}

fn refused(tenant: &Tenant, error: &ReceptionError) -> Refusal {
    tracing::warn!(tenant = %tenant.id, %error, "a webhook could not be accepted");
    match error {
        ReceptionError::Store(StoreError::Full { .. })
        | ReceptionError::Keys(KeysError::Store(StoreError::Full { .. })) => Refusal::Full,
        // One record alone is over the limit: the same body will never fit.
        ReceptionError::Store(StoreError::TooLarge { .. }) => Refusal::TooLarge,
        ReceptionError::Store(_) | ReceptionError::Keys(_) => Refusal::Unavailable,
    }
}
