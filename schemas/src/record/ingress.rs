//! Topic ingress: what third-party connectors publish, in any language, as plaintext JSON.
//!
//! The only topic that others write, so everything about it is theirs to know: `json/ingress.json` is
//! its JSON Schema, `asyncapi.json` its place among the topics. The engine resolves who a record is from,
//! seals it and writes it to inbound; what it cannot take goes to dlq with the reason.
//!
//! Fields that this build does not know are ignored: a connector that already sends what a later version
//! adds is understood by older nodes too, as they run side by side while a cluster is upgraded. What would
//! change the meaning of a record raises `v` instead.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::inbound::{DeliveryFailure, DeliveryStatus};
use super::version::{Step, after};
use super::{RecordError, V, Versioned, decode};
use crate::consent::{Category, Says};
use crate::content::{Address, ChatId, Content, Context};
use crate::id::{AccountId, ChannelKind, OutboundId, TenantId};
use crate::phone::PhoneNumber;
use crate::time::{Timestamp, rfc3339};

/// The largest record in bytes. Sealed it grows by a third and must still fit Kafka's 1 MiB, and a file is
/// sent by reference, so this is plenty.
pub const MAX_BYTES: usize = 256 << 10;

/// The longest id or name, in characters.
const LABEL_CHARS: usize = 256;

/// Steps from each version of these records to the next.
const STEPS: &[Step] = &[];
/// The version that this build writes.
pub const VERSION: u16 = after(STEPS);

/// A record of topic ingress, at most 262,144 bytes of JSON.
///
/// Order holds within a partition: give all records of one sender the same Kafka key, such as the sender's
/// id. Publishing a record twice does no harm. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("if" = {
    "properties": { "event": { "properties": { "type": { "const": "status" } } } }
}, "else" = { "required": ["from"], "properties": { "from": { "type": "object" } } }))]
pub struct IngressRecord {
    /// Version of the record.
    pub v: V<{ VERSION }>,
    /// The tenant it is for.
    pub tenant: TenantId,
    /// The kind of channel it came by.
    pub channel: ChannelKind,
    /// The tenant's account on that channel that received it. WhatsApp: the `phone_number_id`.
    pub account: AccountId,
    /// The channel's id of what happened. The same id again, on the same account, is a duplicate and changes
    /// nothing, so an edit, deletion or reaction needs one of its own: where the channel gives none, make
    /// one from what does not change when it is published again. A status has the id of the message that
    /// was sent.
    pub message_id: Label,
    /// Time of the event, by the channel's clock: RFC 3339 with offset, such as `2026-01-01T12:00:00Z`. Not
    /// more than ten minutes ahead.
    #[serde(with = "rfc3339")]
    #[schemars(schema_with = "rfc3339::schema")]
    pub at: Timestamp,
    /// The sender. A status needs none; of one, it is the recipient, and what it shows together is one person's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Sender>,
    /// The event.
    pub event: IngressEvent,
}

impl Versioned for IngressRecord {
    const STEPS: &'static [Step] = STEPS;
}

/// A person on a channel: at least one of `phone`, `user_id`, `parent_user_id` and `chat_id`, of those that the channel
/// has. All that are known should be given: they are what the same person is recognised by under another id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("anyOf" = [
    { "required": ["phone"], "properties": { "phone": { "type": "string" } } },
    { "required": ["user_id"], "properties": { "user_id": { "type": "string" } } },
    { "required": ["parent_user_id"], "properties": { "parent_user_id": { "type": "string" } } },
    { "required": ["chat_id"], "properties": { "chat_id": { "type": "string" } } },
]))]
pub struct Sender {
    /// The phone number in E.164 form: `+`, country code and number, digits only, such as `+4915112345678`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Phone>,
    /// The id that the channel gives this person towards this business. WhatsApp: the business-scoped user
    /// id, such as `US.13491208655302741918`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Label>,
    /// The same towards the business's parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_user_id: Option<Label>,
    /// The id that the channel gives this person towards the record's account: a page-scoped id, a chat id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_id: Option<Label>,
    /// The name the person shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Label>,
}

impl Sender {
    /// Returns whether it has an id at all.
    #[must_use]
    pub fn is_somebody(&self) -> bool {
        self.phone.is_some()
            || self.user_id.is_some()
            || self.parent_user_id.is_some()
            || self.chat_id.is_some()
    }

    /// The address of this person, whom this account met.
    #[must_use]
    pub fn address(self, account: &AccountId) -> Address {
        Address {
            // As the channel's own webhooks write it: one person met both ways is one contact.
            phone: self
                .phone
                .and_then(|Phone(e164)| PhoneNumber::international(&e164))
                .map(PhoneNumber::into_digits),
            user_id: self.user_id.map(Into::into),
            parent_user_id: self.parent_user_id.map(Into::into),
            chat: self.chat_id.map(|id| Box::new(ChatId { account: account.clone(), id: id.into() })),
            name: self.name.map(Into::into),
        }
    }
}

/// Event that a connector reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum IngressEvent {
    /// The customer sent a message.
    Message {
        /// The content.
        content: Content,
        /// The messages it refers to.
        #[serde(default, skip_serializing_if = "Context::is_empty")]
        context: Context,
    },
    /// The customer changed an earlier message.
    Edit {
        /// The channel's id of the earlier message.
        target_message_id: Label,
        /// The new content.
        content: Content,
    },
    /// The customer took an earlier message back.
    Delete {
        /// The channel's id of the earlier message.
        target_message_id: Label,
    },
    /// The customer reacted to a message, or took the reaction back.
    Reaction {
        /// The channel's id of the message, of either side.
        target_message_id: Label,
        /// The reaction; none takes it back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        emoji: Option<String>,
    },
    /// The customer has a new number or id; `from` is the old one.
    Rename {
        /// The new one.
        to: Sender,
    },
    /// The customer said, in a setting of the channel or elsewhere, what may be sent. What was said last, by `at`,
    /// holds; at the same time a stop does. Stop words in messages are found by Heddle itself.
    Preference {
        /// About what.
        category: Category,
        /// The statement.
        says: Says,
        /// The channel's text about it, kept as evidence; nothing personal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<Label>,
    },
    /// The channel reported the delivery status of a message of Heddle's.
    Status {
        /// Heddle's id of that message, which went out with it. WhatsApp: `biz_opaque_callback_data`.
        outbound_id: OutboundId,
        /// The delivery status. Reports may come late, twice and out of order.
        status: DeliveryStatus,
        /// The reason of the failure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<DeliveryFailure>,
    },
}

/// Reads a record. Unlike that of [`decode`], the error repeats nothing of what it read, since it is kept
/// and logged: it names the fields that are missing or wrong.
///
/// # Errors
/// As [`decode`].
pub fn read(value: &[u8]) -> Result<IngressRecord, RecordError> {
    decode(value).map_err(|error| match error {
        RecordError::Version { .. } => error,
        RecordError::Unknown(_) | RecordError::Shape(_) => RecordError::Shape(explain(value)),
    })
}

/// The tenant that a record names, where that much of it can be read.
#[must_use]
pub fn tenant_of(value: &[u8]) -> Option<TenantId> {
    #[derive(Deserialize)]
    struct Named {
        tenant: TenantId,
    }
    serde_json::from_slice::<Named>(value).ok().map(|named| named.tenant)
}

fn explain(value: &[u8]) -> String {
    let record: Value = match serde_json::from_slice(value) {
        Ok(record) => record,
        Err(error) => return format!("no JSON, at line {} column {}", error.line(), error.column()),
    };
    let Some(fields) = record.as_object() else { return "no JSON object".into() };
    fn reads<T: DeserializeOwned>(field: Option<&Value>) -> bool {
        field.is_some_and(|field| T::deserialize(field).is_ok())
    }
    let time = fields.get("at").is_some_and(|at| rfc3339::deserialize(at).is_ok());
    let from = fields.get("from").is_none_or(|from| Option::<Sender>::deserialize(from).is_ok());
    let wrong: Vec<_> = [
        ("v", reads::<V<{ VERSION }>>(fields.get("v"))),
        ("tenant", reads::<TenantId>(fields.get("tenant"))),
        ("channel", reads::<ChannelKind>(fields.get("channel"))),
        ("account", reads::<AccountId>(fields.get("account"))),
        ("message_id", reads::<Label>(fields.get("message_id"))),
        ("at", time),
        ("from", from),
        ("event", reads::<IngressEvent>(fields.get("event"))),
    ]
    .into_iter()
    .filter_map(|(name, is_right)| (!is_right).then_some(name))
    .collect();
    match wrong.is_empty() {
        // What only the text shows, such as a field that is there twice.
        true => "ambiguous JSON".into(),
        false => format!("missing or wrong: {}", wrong.join(", ")),
    }
}

/// An id or a name: 1 to 256 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Label(String);

impl Label {
    /// Takes a text; `None` when it is empty or too long.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty() && text.chars().nth(LABEL_CHARS).is_none()).then_some(Self(text))
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).ok_or_else(|| serde::de::Error::custom("it takes 1 to 256 characters"))
    }
}

impl JsonSchema for Label {
    fn schema_name() -> Cow<'static, str> {
        "Label".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": LABEL_CHARS })
    }
}

/// A phone number in E.164 form (<https://www.itu.int/rec/T-REC-E.164>), the `+` included. A number without
/// country code would be somebody else's, so the `+` has to be there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Phone(String);

impl Phone {
    /// Takes a number; `None` when it is none.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        // Programs write it in the one form that is documented, unlike people.
        let text = text.into();
        PhoneNumber::international(&text).filter(|number| number.to_string() == text).map(|_| Self(text))
    }
}

impl<'de> Deserialize<'de> for Phone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).ok_or_else(|| serde::de::Error::custom("no phone number in E.164 form"))
    }
}

impl JsonSchema for Phone {
    fn schema_name() -> Cow<'static, str> {
        "Phone".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^\\+[1-9][0-9]{1,14}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn record() -> Value {
        json!({
            "v": 1, "tenant": "acme", "channel": "whatsapp", "account": "1122334455667",
            "message_id": "m-1", "at": "2026-01-01T12:00:00+01:00", "from": { "phone": "+16505551234" },
            "event": { "type": "message", "content": { "type": "text", "body": "hello" } },
        })
    }

    fn read_value(value: &Value) -> Result<IngressRecord, RecordError> {
        read(value.to_string().as_bytes())
    }

    #[test]
    fn a_record_as_an_outside_program_writes_it_is_read() {
        let mut written = record();
        written["something"] = json!("that a later version adds");
        written["event"]["more"] = json!(1);
        let read = read_value(&written).unwrap();
        // 2026-01-01T11:00:00Z: date -ud 2026-01-01T11:00:00Z +%s.
        assert_eq!(read.at, Timestamp::from_secs(1_767_265_200));
        let address = read.from.unwrap().address(&read.account);
        assert_eq!(address.phone.as_deref(), Some("16505551234"));
        assert!(matches!(read.event, IngressEvent::Message { content: Content::Text { .. }, .. }));
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_of_it_repeated() {
        let cases = [
            ("tenant", json!("Secret Person")),
            ("at", json!("yesterday, secret")),
            ("at", json!(1_767_265_200)),
            ("message_id", json!("")),
            ("message_id", json!("x".repeat(257))),
            ("from", json!({ "phone": "0151 secret" })),
            ("from", json!({ "phone": "15112345678" })),
            ("event", json!({ "type": "secret" })),
            ("event", json!({ "type": "message", "content": { "type": "text" } })),
            ("event", Value::Null),
        ];
        for (field, wrong) in cases {
            let mut record = record();
            record[field] = wrong;
            let Err(RecordError::Shape(why)) = read_value(&record) else { panic!("{record} was read") };
            assert_eq!(why, format!("missing or wrong: {field}"));
        }
        let RecordError::Shape(why) = read(b"{\"tenant\": secret").unwrap_err() else { panic!() };
        assert_eq!(why, "no JSON, at line 1 column 12");
        let mut foreign = record();
        foreign["v"] = json!(2);
        assert_eq!(read_value(&foreign), Err(RecordError::Version { found: 2 }));
        assert_eq!(tenant_of(foreign.to_string().as_bytes()).unwrap().as_str(), "acme");
    }

    #[test]
    fn the_schema_and_the_reader_agree() {
        let schema = serde_json::to_value(crate::record::schema::of(crate::topic::Topic::Ingress)).unwrap();
        let schema = jsonschema::validator_for(&schema).unwrap();
        let set = |path: &str, value: Value| {
            let mut record = record();
            *record.pointer_mut(path).unwrap() = value;
            record
        };
        let status = json!({ "type": "status", "outbound_id": format!("{0}.{0}.0", "0a".repeat(16)),
            "status": "delivered" });
        let mut of_nobody = set("/event", status);
        of_nobody.as_object_mut().unwrap().remove("from");
        let cases = [
            (true, record()),
            (true, of_nobody),
            (true, set("/from", json!({ "user_id": "US.1", "name": null }))),
            (true, set("/event", json!({ "type": "reaction", "target_message_id": "m-0", "emoji": "+" }))),
            (true, set("/event", json!({ "type": "rename", "to": { "phone": "+16505559999" } }))),
            (true, set("/event", json!({ "type": "preference", "category": "marketing", "says": "stop" }))),
            (false, set("/event", json!({ "type": "preference", "category": "marketing", "says": "maybe" }))),
            (false, set("/event", json!({ "type": "preference", "says": "stop" }))),
            (true, set("/event/content", json!({ "type": "location", "latitude": 1, "longitude": 2.5 }))),
            (false, set("/from", json!({ "name": "Ann" }))),
            (false, set("/from", Value::Null)),
            (false, set("/from/phone", json!("16505551234"))),
            (false, set("/event", json!({ "type": "rename", "to": {} }))),
            (false, set("/event", json!({ "type": "edit", "target_message_id": "" }))),
            (false, set("/event/content", json!({ "type": "telepathy" }))),
            (true, set("/at", json!("2026-01-01T12:00:00.123-08:00"))),
            (false, set("/at", json!("2026-01-01T12:00:00"))),
            (false, set("/at", json!("now"))),
            (false, set("/at", json!(1_767_265_200))),
            (false, set("/v", json!(2))),
            (false, set("/message_id", json!("x".repeat(257)))),
        ];
        for (holds, record) in cases {
            assert_eq!(schema.is_valid(&record), holds, "{record}");
            // Who it is from is asked apart, so that it gets its own reason.
            let somebody = |read: &IngressRecord| match &read.event {
                IngressEvent::Status { .. } => true,
                IngressEvent::Rename { to } => to.is_somebody(),
                _ => read.from.as_ref().is_some_and(Sender::is_somebody),
            };
            assert_eq!(read_value(&record).is_ok_and(|read| somebody(&read)), holds, "{record}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes).is_err());
            prop_assert_eq!(tenant_of(&bytes), None);
        }

        #[test]
        fn a_record_with_anything_in_its_place_is_read_or_refused(
            at in 0_usize..200, bytes in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut text = record().to_string().into_bytes();
            let at = at.min(text.len());
            text.splice(at..text.len().min(at + bytes.len()), bytes);
            let _ = read(&text);
        }
    }
}
