//! One POST to `/{phone_number_id}/messages`, or the endpoint beside it, and its outcome.
//!
//! The API has no idempotency key, so the question about a failure is if the message was surely
//! not accepted. It was not if no connection came about, or if the API answered with an error. If
//! the request may have left and no readable answer came back, the outcome is unknown:
//! [`FailureClass::Unknown`]. No error holds the token, the text or an address.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/text-messages>.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_schemas::content::Address;
use heddle_schemas::ports::channel::{
    Accepted, ChannelAccount, FailureClass, OutboundMessage, Scope, SendError,
};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::sealed::Secret;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::endpoint::Endpoints;
use super::failure::Refusal;
use super::profile::{ACCESS_TOKEN, PROFILE};
use super::{body, field, sender};
use crate::channels::call::{self, without_address};
use crate::egress::Egress;
use crate::http;

/// Maximum length of an answer, in bytes. The API's own are a few hundred.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Serialize)]
struct Request<'a> {
    messaging_product: &'static str,
    recipient_type: &'static str,
    /// A phone number; it wins where both are given, so only one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    /// A business-scoped id, for who has no known number.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field that is named as the type.
    #[serde(flatten)]
    content: BTreeMap<&'static str, Value>,
    biz_opaque_callback_data: String,
}

/// Sends a message, once.
pub(super) async fn send(
    (client, egress, endpoints): (&Client, &Egress, &Endpoints),
    clock: &dyn Clock,
    account: &ChannelAccount,
    message: &OutboundMessage,
) -> Result<Accepted, SendError> {
    let request = request(message)?;
    let endpoint = endpoints.of(&account.account, &message.content);
    let (base, path) = (account.api_base.trim_end_matches('/'), endpoint.path());
    let url = format!("{base}/{}/{path}", account.account);
    egress.check(&url).map_err(call::forbidden)?;
    let response = client
        .post(url)
        .header(AUTHORIZATION, bearer(account)?)
        .json(&request)
        .send()
        .await
        .map_err(|error| call::not_answered(&error))?;
    let status = response.status();
    let retry_after = http::retry_after(response.headers(), clock.now());
    let body = read(response).await;
    if status.is_success() {
        return accepted(body);
    }
    // The status has come, so the answer is known even where its body broke off.
    let refused = refused(status, retry_after, body.ok().as_ref(), message);
    match endpoints.learn(&account.account, &message.content, endpoint, refused.code) {
        true => Err(SendError { class: FailureClass::Temporary, scope: Scope::Message, ..refused }),
        false => Err(refused),
    }
}

fn request(message: &OutboundMessage) -> Result<Request<'_>, SendError> {
    if let Some(refusal) = call::refusal(&message.content, &PROFILE.content) {
        return Err(refusal);
    }
    let (kind, content) = body::of(&message.content).map_err(|error| unsendable(&error.to_string()))?;
    let Address { phone, user_id, parent_user_id, .. } = &message.to;
    let scoped = user_id.as_deref().or(parent_user_id.as_deref());
    if phone.is_none() && scoped.is_none() {
        return Err(unsendable("the address has neither a phone number nor a user id"));
    }
    Ok(Request {
        messaging_product: "whatsapp",
        recipient_type: "individual",
        to: phone.as_deref(),
        recipient: scoped.filter(|_| phone.is_none()),
        kind,
        content: BTreeMap::from([(kind, content)]),
        biz_opaque_callback_data: message.id.to_string(),
    })
}

fn bearer(account: &ChannelAccount) -> Result<HeaderValue, SendError> {
    let token = account.credential(ACCESS_TOKEN).map_or("", Secret::expose);
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| error(FailureClass::Unauthorized, "the token has characters that no header takes"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn error(class: FailureClass, detail: &str) -> SendError {
    SendError::new(class, detail)
}

fn unsendable(detail: &str) -> SendError {
    error(FailureClass::Final, detail)
}

async fn read(response: Response) -> Result<Value, &'static str> {
    let body = http::read(response, MAX_ANSWER).await?;
    serde_json::from_slice(&body).map_err(|_| "the answer is no JSON")
}

/// The `message_status` of a message that is paced: it is released, or fails with 132015
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/templates/template-pacing>).
const HELD: &str = "held_for_quality_assessment";

/// `{"messages":[{"id":"wamid...","message_status":"accepted"}]}`. A success without an id may have been taken or not.
fn accepted(body: Result<Value, &'static str>) -> Result<Accepted, SendError> {
    let body = body.map_err(|detail| error(FailureClass::Unknown, detail))?;
    let message = body.pointer("/messages/0");
    let held =
        message.and_then(|message| field::text(message, "message_status")).is_some_and(|it| it == HELD);
    match message.and_then(|message| field::text(message, "id")) {
        Some(message_id) => Ok(Accepted { message_id, held, shows: shown(&body) }),
        None => Err(error(FailureClass::Unknown, "the answer holds no message id")),
    }
}

/// The recipient's ids: `{"contacts":[{"input":"+16505551234","wa_id":"16505551234","user_id":"US.1..."}]}`, where
/// `input` repeats what was sent to. The number of a person may differ in both, by a national variant.
fn shown(body: &Value) -> Vec<Address> {
    let Some(contact) = body.pointer("/contacts/0") else { return Vec::new() };
    let sent_to = field::text(contact, "input").and_then(|input| PROFILE.read_id(&input)).unwrap_or_default();
    vec![sender::written(contact, ["wa_id", "user_id", "parent_user_id"]), sent_to]
}

fn refused(
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Option<&Value>,
    message: &OutboundMessage,
) -> SendError {
    let graph = body.and_then(|body| body.get("error")).filter(|error| error.is_object());
    let code = graph.and_then(|error| field::integer(error, "code"));
    let kind = graph.and_then(|error| field::text(error, "type"));
    let refusal = Refusal {
        status: status.as_u16(),
        code,
        subcode: graph.and_then(|error| field::integer(error, "error_subcode")),
        kind: kind.as_deref(),
        is_transient: graph
            .and_then(|error| error.get("is_transient"))
            .and_then(Value::as_bool)
            .unwrap_or(false),
    };
    let (class, scope) = refusal.classify();
    let detail = match graph {
        Some(graph) => without_address(&describe(graph), &message.to),
        None => format!("HTTP {} without an error of the API", status.as_u16()),
    };
    SendError { class, scope, code, detail, retry_after }
}

/// The error's message, and its details where they say more.
fn describe(graph: &Value) -> String {
    let message = field::text(graph, "message");
    let details = graph.get("error_data").and_then(|data| field::text(data, "details"));
    let parts: Vec<String> = [message, details].into_iter().flatten().collect();
    if parts.is_empty() { "an error without a message".into() } else { parts.join(": ") }
}
