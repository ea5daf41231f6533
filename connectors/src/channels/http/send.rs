//! One signed post to the account's URL, and its answer.
//!
//! A 2xx accepts the message. `webhook-id` is made of the message's id and the same for each attempt at it, which the
//! specification has receivers use as idempotency key. An error holds no text, address or secret, and nothing of the
//! answer's body, which may repeat them.

use heddle_schemas::content::Address;
use heddle_schemas::id::{AccountId, OutboundId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::channel::{Accepted, ChannelAccount, FailureClass, OutboundMessage, SendError};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::time::{Timestamp, rfc3339};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response};
use serde::Serialize;
use serde_json::Value;

use super::profile::{PROFILE, SIGNING_SECRET, WEBHOOK_SECRET};
use super::signature::{self, ID, SIGNATURE, TIMESTAMP};
use crate::channels::call;
use crate::egress::Egress;
use crate::http;

/// Bytes that are read of an answer.
const MAX_ANSWER: usize = 64 * 1024;
/// Characters of a receiver's id of a message.
const MAX_ID: usize = 256;

/// A post's body, in the structure that the specification recommends.
#[derive(Serialize)]
struct Webhook<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(with = "rfc3339")]
    timestamp: Timestamp,
    data: Message<'a>,
}

#[derive(Serialize)]
struct Message<'a> {
    outbound_id: OutboundId,
    account: &'a AccountId,
    to: Recipient<'a>,
    /// The text; of another content the same in words, for a receiver that shows texts alone.
    text: &'a str,
    /// The content, where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a OutgoingContent>,
}

#[derive(Serialize)]
struct Recipient<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// Posts a message, once.
pub(super) async fn send(
    (client, egress): (&Client, &Egress),
    clock: &dyn Clock,
    account: &ChannelAccount,
    message: &OutboundMessage,
) -> Result<Accepted, SendError> {
    let now = clock.now();
    let body = body(&account.account, message, now)?;
    // Signed parts are separated by full stops, so the id has none.
    let id = format!("msg_{}", message.id).replace('.', "_");
    let seconds = (now.as_micros() / 1_000_000).to_string();
    let secret = account.credential(SIGNING_SECRET).or_else(|| account.credential(WEBHOOK_SECRET));
    let signature =
        secret.and_then(|secret| signature::sign(secret, &id, &seconds, &body)).ok_or_else(|| {
            SendError::new(FailureClass::Unauthorized, "the account has no secret to sign with")
        })?;
    egress.check_whole(&account.api_base).map_err(call::forbidden)?;
    let response = client
        .post(&account.api_base)
        .header(CONTENT_TYPE, "application/json")
        .header(ID, id)
        .header(TIMESTAMP, seconds)
        .header(SIGNATURE, signature)
        .body(body)
        .send()
        .await
        .map_err(|error| call::not_answered(&error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(Accepted::new(receivers_id(response).await.unwrap_or_else(|| message.id.to_string())));
    }
    let status = status.as_u16();
    let class = classify(status);
    Err(SendError {
        class,
        scope: class.into(),
        code: Some(status.into()),
        detail: format!("HTTP {status}"),
        retry_after: http::retry_after(response.headers(), now),
    })
}

fn body(account: &AccountId, message: &OutboundMessage, now: Timestamp) -> Result<Vec<u8>, SendError> {
    let unsendable = |why: &str| SendError::new(FailureClass::Final, why);
    if let Some(refusal) = call::refusal(&message.content, &PROFILE.content) {
        return Err(refusal);
    }
    let in_words = message.content.in_words();
    let Address { chat, name, .. } = &message.to;
    let chat = chat.as_ref().filter(|chat| chat.account == *account);
    let chat = chat.ok_or_else(|| unsendable("the address has no id on this account"))?;
    let webhook = Webhook {
        kind: "message.send",
        timestamp: now,
        data: Message {
            outbound_id: message.id,
            account,
            to: Recipient { id: &chat.id, name: name.as_deref() },
            text: &in_words,
            content: Some(&message.content).filter(|content| content.as_text().is_none()),
        },
    };
    Ok(serde_json::to_vec(&webhook).expect("texts and ids are always JSON"))
}

/// `{"id": ...}`, where the receiver answers with its own id of the message.
async fn receivers_id(response: Response) -> Option<String> {
    let body = http::read(response, MAX_ANSWER).await.ok()?;
    let id = match serde_json::from_slice::<Value>(&body).ok()?.get("id")? {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    (!id.is_empty() && id.chars().nth(MAX_ID).is_none()).then_some(id)
}

/// The class of an answer that is no success.
///
/// A 503 says that the server did not handle the request (RFC 9110, 15.6.4); behind another 5xx it may have. 410 is
/// final for its message only: a receiver also answers so for a chat that has ended, and the account goes on.
fn classify(status: u16) -> FailureClass {
    match status {
        401 | 403 => FailureClass::Unauthorized,
        408 | 425 | 503 => FailureClass::Temporary,
        429 => FailureClass::RateLimited,
        // Redirects are not followed, as the specification recommends: an operator has to write the new address.
        300..=399 => FailureClass::Blocked,
        400..=499 => FailureClass::Final,
        _ => FailureClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use heddle_schemas::content::ChatId;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_767_268_805);

    fn message(account: &str) -> OutboundMessage {
        let chat = Box::new(ChatId { account: account.parse().unwrap(), id: "visitor-7".into() });
        OutboundMessage {
            id: "000102030405060708090a0b0c0d0e0f.101112131415161718191a1b1c1d1e1f.0".parse().unwrap(),
            to: Address { chat: Some(chat), name: Some("Ann".into()), ..Address::default() },
            content: OutgoingContent::text("From nine to five."),
        }
    }

    #[test]
    fn a_post_is_what_is_documented() {
        let body = body(&"shop".parse().unwrap(), &message("shop"), NOW).unwrap();
        let documented: Value = serde_json::from_slice(include_bytes!("fixtures/send.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), documented);
    }

    #[test]
    fn another_content_than_text_goes_as_json_and_in_words() {
        let content: OutgoingContent = serde_json::from_value(serde_json::json!({
            "type": "interactive",
            "body": "Shall I book it?",
            "action": { "buttons": [{ "id": "yes", "title": "Yes" }, { "id": "no", "title": "No" }] },
        }))
        .unwrap();
        let message = OutboundMessage { content, ..message("shop") };
        let body = body(&"shop".parse().unwrap(), &message, NOW).unwrap();
        let documented: Value = serde_json::from_slice(include_bytes!("fixtures/send_buttons.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), documented);
    }

    #[test]
    fn a_template_is_refused_by_name_since_there_is_none_here() {
        let content = OutgoingContent::Template(heddle_schemas::outgoing::Template::new("offer", "de"));
        let error = body(&"shop".parse().unwrap(), &OutboundMessage { content, ..message("shop") }, NOW);
        let error = error.unwrap_err();
        assert_eq!(error.class, FailureClass::Final);
        assert_eq!(
            error.detail,
            "the channel carries no template; it carries text, media, interactive, location, reaction"
        );
    }

    #[test]
    fn an_id_of_another_account_is_nobody_here() {
        let error = body(&"shop".parse().unwrap(), &message("support"), NOW).unwrap_err();
        assert_eq!(error.class, FailureClass::Final);
        let unaddressed = OutboundMessage { to: Address::default(), ..message("shop") };
        assert_eq!(body(&"shop".parse().unwrap(), &unaddressed, NOW).unwrap_err().class, FailureClass::Final);
    }

    #[test]
    fn every_status_has_its_class() {
        use FailureClass::{Blocked, Final, RateLimited, Temporary, Unauthorized, Unknown};
        for (status, class) in [
            (301, Blocked),
            (307, Blocked),
            (400, Final),
            (401, Unauthorized),
            (403, Unauthorized),
            (404, Final),
            (408, Temporary),
            (410, Final),
            (413, Final),
            (425, Temporary),
            (429, RateLimited),
            (500, Unknown),
            (502, Unknown),
            (503, Temporary),
            (504, Unknown),
        ] {
            assert_eq!(classify(status), class, "{status}");
        }
    }
}
