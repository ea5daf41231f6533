//! The events of a webhook: one a body, in the payload structure that the specification recommends.
//!
//! `{"type": ..., "timestamp": ..., "data": {...}}`
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#payload-structure>).
//! Unknown fields are ignored. An unknown type becomes a notice; a known one that lacks a required field is refused, so
//! that the sender's developer sees it.

use heddle_schemas::content::{Address, ChatId, Content, Context};
use heddle_schemas::id::{AccountId, OutboundId};
use heddle_schemas::ports::channel::{Act, ChannelEvent, ReceivedMessage, ReceivedStatus, WebhookError};
use heddle_schemas::record::inbound::{DeliveryFailure, DeliveryStatus};
use heddle_schemas::record::ingress::Label;
use heddle_schemas::time::{Timestamp, rfc3339};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::channels::call::redact;

/// A webhook's body.
#[derive(Deserialize)]
struct Webhook {
    #[serde(rename = "type")]
    kind: String,
    /// Time of the event, by the sender's clock.
    #[serde(with = "rfc3339")]
    timestamp: Timestamp,
    data: Value,
}

/// `message.received`: somebody wrote.
#[derive(Deserialize)]
struct Message {
    /// The sender's id of it; the same one again is a duplicate.
    id: Label,
    from: Sender,
    text: String,
    /// The sender's id of the message that it answers.
    reply_to: Option<Label>,
}

#[derive(Deserialize)]
struct Sender {
    /// The id of the chat or person; replies go to it.
    id: Label,
    name: Option<Label>,
}

/// `message.status`: how far a message of ours has come.
#[derive(Deserialize)]
struct Status {
    outbound_id: OutboundId,
    /// The receiver's id of it, where it answered with one.
    id: Option<Label>,
    status: Reached,
    /// Code of the failure.
    code: Option<u32>,
    reason: Option<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Reached {
    Sent,
    Delivered,
    Read,
    Failed,
}

/// Reads a body. A time ahead of `now` is that of a clock that is fast, and becomes `now`.
pub(super) fn parse(account: &AccountId, body: &[u8], now: Timestamp) -> Result<ChannelEvent, WebhookError> {
    let Webhook { kind, timestamp, data } = read(serde_json::from_slice(body))?;
    let at = timestamp.min(now);
    match kind.as_str() {
        "message.received" => message(account, data, at),
        "message.status" => status(account, data, at),
        _ => Ok(ChannelEvent::Notice { account: Some(account.clone()), field: kind, value: data }),
    }
}

fn read<T: DeserializeOwned>(read: Result<T, serde_json::Error>) -> Result<T, WebhookError> {
    read.map_err(|error| WebhookError::Body(error.to_string()))
}

fn message(account: &AccountId, data: Value, sent_at: Timestamp) -> Result<ChannelEvent, WebhookError> {
    let Message { id, from, text, reply_to } = read(serde_json::from_value(data))?;
    let chat = Box::new(ChatId { account: account.clone(), id: from.id.into() });
    Ok(ChannelEvent::Message(ReceivedMessage {
        account: account.clone(),
        id: id.into(),
        from: Address { chat: Some(chat), name: from.name.map(Into::into), ..Address::default() },
        sent_at,
        act: Act::Say(Content::Text { body: text }),
        context: Context { replies_to: reply_to.map(Into::into), ..Context::default() },
    }))
}

fn status(account: &AccountId, data: Value, at: Timestamp) -> Result<ChannelEvent, WebhookError> {
    let Status { outbound_id, id, status, code, reason } = read(serde_json::from_value(data))?;
    let failure = (status == Reached::Failed).then(|| DeliveryFailure {
        code: code.unwrap_or_default().into(),
        title: redact(&reason.unwrap_or_default()),
    });
    Ok(ChannelEvent::Status(ReceivedStatus {
        account: account.clone(),
        // As `send` has it, where the receiver answered with none.
        message_id: id.map_or_else(|| outbound_id.to_string(), Into::into),
        outbound: Some(outbound_id),
        status: match status {
            Reached::Sent => DeliveryStatus::Sent,
            Reached::Delivered => DeliveryStatus::Delivered,
            Reached::Read => DeliveryStatus::Read,
            Reached::Failed => DeliveryStatus::Failed,
        },
        at,
        failure,
        pricing: None,
        recipient: Address::default(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const MESSAGE: &[u8] = include_bytes!("fixtures/message.json");
    const DELIVERED: &[u8] = include_bytes!("fixtures/delivered.json");
    const FAILED: &[u8] = include_bytes!("fixtures/failed.json");

    fn shop() -> AccountId {
        "shop".parse().unwrap()
    }

    fn read(body: &[u8]) -> ChannelEvent {
        parse(&shop(), body, NOW).unwrap()
    }

    /// The fixture with one value replaced, or without it.
    fn with(body: &[u8], pointer: &str, value: Option<Value>) -> Vec<u8> {
        let mut body: Value = serde_json::from_slice(body).unwrap();
        match value {
            Some(value) => *body.pointer_mut(pointer).unwrap() = value,
            None => {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
            }
        }
        body.to_string().into_bytes()
    }

    #[test]
    fn a_visitors_message_is_read_whole() {
        let ChannelEvent::Message(message) = read(MESSAGE) else { panic!() };
        assert_eq!((message.account, message.id.as_str()), (shop(), "m-1"));
        let chat = Box::new(ChatId { account: shop(), id: "visitor-7".into() });
        let from = Address { chat: Some(chat), name: Some("Ann".into()), ..Address::default() };
        assert_eq!(message.from, from);
        assert_eq!(message.act, Act::Say(Content::Text { body: "When are you open?".into() }));
        assert_eq!(message.sent_at, Timestamp::from_secs(1_767_268_800));
        assert_eq!(message.context.replies_to, None);
    }

    #[test]
    fn a_name_and_what_it_answers_may_be_there_or_not() {
        let ChannelEvent::Message(message) = read(&with(MESSAGE, "/data/from/name", None)) else { panic!() };
        assert_eq!(message.from.name, None);
        let mut body: Value = serde_json::from_slice(MESSAGE).unwrap();
        body["data"]["reply_to"] = json!("m-0");
        body["data"]["of_a_later_version"] = json!({});
        let ChannelEvent::Message(message) = read(body.to_string().as_bytes()) else { panic!() };
        assert_eq!(message.context.replies_to.as_deref(), Some("m-0"));
    }

    #[test]
    fn a_status_leads_to_the_message_that_was_posted() {
        let ChannelEvent::Status(status) = read(DELIVERED) else { panic!() };
        let outbound = "000102030405060708090a0b0c0d0e0f.101112131415161718191a1b1c1d1e1f.0";
        assert_eq!(status.outbound, Some(outbound.parse().unwrap()));
        assert_eq!((status.message_id.as_str(), status.status), ("chat-4711", DeliveryStatus::Delivered));
        assert_eq!(status.failure, None);
        let ChannelEvent::Status(status) = read(FAILED) else { panic!() };
        assert_eq!((status.message_id.as_str(), status.status), (outbound, DeliveryStatus::Failed));
        let failure = DeliveryFailure { code: 3, title: "visitor [redacted] left".into() };
        assert_eq!(status.failure, Some(failure), "no number is kept");
    }

    #[test]
    fn a_fast_clock_does_not_send_into_the_future() {
        let ahead = with(MESSAGE, "/timestamp", Some(json!("2199-01-01T00:00:00+02:00")));
        let ChannelEvent::Message(message) = read(&ahead) else { panic!() };
        assert_eq!(message.sent_at, NOW);
    }

    #[test]
    fn an_unknown_type_becomes_a_notice() {
        let other = with(MESSAGE, "/type", Some(json!("visitor.typing")));
        let ChannelEvent::Notice { account, field, value } = read(&other) else { panic!() };
        assert_eq!((account, field.as_str()), (Some(shop()), "visitor.typing"));
        assert_eq!(value["from"]["id"], "visitor-7");
    }

    #[test]
    fn what_a_message_or_status_needs_is_named() {
        for (body, pointer, name) in [
            (MESSAGE, "/type", "type"),
            (MESSAGE, "/timestamp", "timestamp"),
            (MESSAGE, "/data", "data"),
            (MESSAGE, "/data/id", "id"),
            (MESSAGE, "/data/from", "from"),
            (MESSAGE, "/data/from/id", "id"),
            (MESSAGE, "/data/text", "text"),
            (DELIVERED, "/data/outbound_id", "outbound_id"),
            (DELIVERED, "/data/status", "status"),
        ] {
            let error = parse(&shop(), &with(body, pointer, None), NOW).unwrap_err();
            assert!(
                matches!(&error, WebhookError::Body(why) if why.contains(&format!("`{name}`"))),
                "{error}"
            );
        }
        for (body, pointer, value) in [
            (MESSAGE, "/timestamp", json!("yesterday")),
            (MESSAGE, "/data/id", json!("")),
            (MESSAGE, "/data/from/id", json!("x".repeat(257))),
            (MESSAGE, "/data/text", json!(17)),
            (DELIVERED, "/data/outbound_id", json!("m-1")),
            (DELIVERED, "/data/status", json!("lost")),
        ] {
            let error = parse(&shop(), &with(body, pointer, Some(value)), NOW).unwrap_err();
            assert!(matches!(error, WebhookError::Body(_)), "{pointer}");
        }
    }
}
