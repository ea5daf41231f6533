//! Webhooks: `GET|POST /webhooks/<channel>/<account>`.
//!
//! Contract: 200 means that every event in the body is durable (I2). Any other status makes the channel
//! retry, or shows a fault of its configuration. Each answer is counted by its reason:
//!
//! | what comes | answer | counted as |
//! |---|---|---|
//! | everything is durable | 200 | `taken` |
//! | no JSON object | 400 | `body` |
//! | the signature is missing or wrong | 401 | `signature` |
//! | the verify token of a subscription is wrong | 403 | `verify_token` |
//! | no such channel or account | 404 | `account` |
//! | over 3 MiB | 413 | `too_large` |
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
use heddle_actors::privacy::security::Sighting;
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind};
use heddle_schemas::ports::channel::{Channel, ChannelEvent, WebhookError};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::tenant::{ChannelAccount, Tenant};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::Shared;

/// The largest body. Meta's payloads are at most 3 MB
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview>).
pub const MAX_BODY: usize = 3 << 20;
/// The header with the signature.
const SIGNATURE: &str = "x-hub-signature-256";
/// Maximum time that a webhook waits for capacity.
const PATIENCE: Duration = Duration::from_secs(5);
/// Timeout for the arrival of a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
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
    Full,
    Unavailable,
    NotReady,
    Busy,
}

impl Refusal {
    fn label(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Signature => "signature",
            Self::Body => "body",
            Self::TooLarge => "too_large",
            Self::Slow => "slow",
            Self::VerifyToken => "verify_token",
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
            Self::Body => "the body is no JSON object",
            Self::TooLarge => "the body is over 3 MiB",
            Self::Slow => "the body did not arrive in time",
            Self::VerifyToken => "the verify token is wrong",
            Self::Full => "the log is full",
            Self::Unavailable => "the store does not answer",
            Self::NotReady => "not ready",
            Self::Busy => "too many webhooks at once",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.text()).into_response();
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static(RETRY_SECONDS));
        }
        response
    }
}

/// The parameters of a subscription.
#[derive(Deserialize)]
struct Subscription {
    #[serde(rename = "hub.mode", default)]
    mode: String,
    #[serde(rename = "hub.verify_token", default)]
    verify_token: String,
    #[serde(rename = "hub.challenge", default)]
    challenge: String,
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
    Query(asked): Query<Subscription>,
) -> Response {
    let Ok(kind) = channel.parse::<ChannelKind>() else { return Refusal::Account.into_response() };
    let began = shared.node.ports.clock.elapsed();
    let answer = match addressed(&shared, kind, &account) {
        None => Err(Refusal::Account),
        Some(addressed) => {
            let expected = addressed.account().map_or("", |account| account.verify_token.expose());
            let same = expected.as_bytes().ct_eq(asked.verify_token.as_bytes());
            if asked.mode == "subscribe" && !expected.is_empty() && bool::from(same) {
                Ok(asked.challenge)
            } else {
                Err(Refusal::VerifyToken)
            }
        }
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
        Err(refusal) => {
            shared.metrics.webhook(kind, refusal.label(), took);
            refusal.into_response()
        }
    }
}

async fn take(
    shared: &Shared,
    kind: ChannelKind,
    account: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Refusal> {
    if !shared.is_ready() {
        return Err(Refusal::NotReady);
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
    let turn = tokio::time::timeout(PATIENCE, shared.at_once.acquire()).await;
    let _turn = turn.map_err(|_| counted(Refusal::Busy))?.map_err(|_| Refusal::NotReady)?;
    let body = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY))
        .await
        .map_err(|_| counted(Refusal::Slow))?
        .map_err(|_| counted(Refusal::TooLarge))?;
    let signature = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
    let secret = addressed.account().map(|account| &account.app_secret).ok_or(Refusal::Account)?;
    addressed.channel.verify(secret, signature, &body).map_err(|_| {
        shared.node.ports.security.saw(Some(&addressed.tenant.id), Sighting::WebhookSignature);
        Refusal::Signature
    })?;
    let events = addressed.channel.parse(&body).map_err(|error| match error {
        WebhookError::Signature => Refusal::Signature,
        WebhookError::Body(_) => Refusal::Body,
    })?;
    for (tenant, events) in by_tenant(shared, &addressed, signature, &body, events) {
        count(shared, kind, &events);
        shared.reception.accept(kind, &tenant, events).await.map_err(|error| refused(&tenant, &error))?;
    }
    Ok(())
}

/// Groups the events by tenant. A body may hold several numbers of one app: those of another tenant are accepted
/// only if that tenant's own secret signed the body too. Events of unknown numbers are dropped.
fn by_tenant(
    shared: &Shared,
    addressed: &Addressed,
    signature: Option<&str>,
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
                    let secret = &tenant.channel(addressed.kind, account)?.app_secret;
                    let theirs = *account == addressed.account
                        || addressed.channel.verify(secret, signature, body).is_ok();
                    if !theirs {
                        // The body is one tenant's, and speaks of what is another's.
                        shared.node.ports.security.saw(Some(&tenant.id), Sighting::CrossTenant);
                    }
                    theirs.then_some(tenant)
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
    tracing::warn!(tenant = %tenant.id, %error, "a webhook could not be taken in");
    match error {
        ReceptionError::Store(StoreError::Full { .. })
        | ReceptionError::Keys(KeysError::Store(StoreError::Full { .. })) => Refusal::Full,
        // One record alone is over the limit: the same body will never fit.
        ReceptionError::Store(StoreError::TooLarge { .. }) => Refusal::TooLarge,
        ReceptionError::Store(_) | ReceptionError::Keys(_) => Refusal::Unavailable,
    }
}
