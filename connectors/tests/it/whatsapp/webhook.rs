//! Webhooks as the WhatsApp channel reads them: each documented type, and arbitrary input.
//!
//! The bodies under `fixtures/whatsapp` are the provider's documented examples with its own example
//! values
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/>).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use heddle_connectors::channels::whatsapp::{Options, WhatsApp};
use heddle_schemas::consent::{Category, Says};
use heddle_schemas::content::{Address, Asks, Content, Context, MediaKind};
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::channel::{
    Act, Channel, ChannelEvent, ReceivedMessage, ReceivedPreference, ReceivedStatus, WebhookError,
};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::record::inbound::{DeliveryFailure, DeliveryStatus, Pricing};
use heddle_schemas::time::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);
const WAMID: &str = "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQUFERjg0NDEzNDdFODU3MUMxMAA=";
const ORIGINAL: &str = "wamid.HBgLMTQxMjU1NTA4MjkVAgASGBQzQUNCNjk5RDUwNUZGMUZEM0VBRAA=";
const SENT: &str = "wamid.HBgLMTY1MDM4Nzk0MzkVAgARGBI3MTE5MjVBOTE3MDk5QUVFM0YA";
const SHA: &str = "SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=";

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        NOW
    }
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// The account that a webhook is posted to; its body says itself of which it speaks.
fn posted_to() -> AccountId {
    "1".parse().unwrap()
}

fn channel() -> &'static WhatsApp {
    static CHANNEL: LazyLock<WhatsApp> =
        LazyLock::new(|| WhatsApp::new(&Options::default(), Arc::new(Stopped)).unwrap());
    &CHANNEL
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/whatsapp")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.json"))).unwrap()
}

fn events(name: &str) -> Vec<ChannelEvent> {
    channel().parse(&posted_to(), &fixture(name)).unwrap()
}

fn message(name: &str) -> ReceivedMessage {
    match &events(name)[..] {
        [ChannelEvent::Message(message)] => message.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

fn said(name: &str) -> Content {
    match message(name).act {
        Act::Say(content) => content,
        other => panic!("{name}: {other:?}"),
    }
}

fn text(body: &str) -> Content {
    Content::Text { body: body.into() }
}

fn media(kind: MediaKind, id: &str, mime: &str, caption: Option<&str>, filename: Option<&str>) -> Content {
    Content::Media {
        kind,
        id: id.into(),
        mime_type: Some(mime.into()),
        sha256: Some(SHA.into()),
        caption: caption.map(Into::into),
        filename: filename.map(Into::into),
    }
}

fn sheena() -> Address {
    Address { phone: Some("16505551234".into()), name: Some("Sheena Nelson".into()), ..Address::default() }
}

#[test]
fn a_text_is_read_whole() {
    let expected = ReceivedMessage {
        account: "106540352242922".parse().unwrap(),
        id: WAMID.into(),
        from: sheena(),
        sent_at: Timestamp::from_secs(1_739_321_024),
        act: Act::Say(text("Does it come in another color?")),
        context: Context::default(),
    };
    assert_eq!(message("text"), expected);
}

#[test]
fn every_documented_content_is_read() {
    let expected = [
        ("text_reply", text("Does it come in another color?")),
        ("text_forwarded", text("Does it come in another color?")),
        ("text_product_question", text("Does it come in another color?")),
        ("text_from_ad", text("I saw your ad.")),
        ("image", media(MediaKind::Image, "1003383421387256", "image/jpeg", Some("Taj Mahal"), None)),
        ("video", media(MediaKind::Video, "1003383421387257", "video/mp4", Some("My cat"), None)),
        ("audio", media(MediaKind::Audio, "1003383421387258", "audio/mpeg", None, None)),
        ("voice", media(MediaKind::Voice, "1003383421387259", "audio/ogg; codecs=opus", None, None)),
        (
            "document",
            media(
                MediaKind::Document,
                "1003383421387260",
                "application/pdf",
                Some("My order"),
                Some("order.pdf"),
            ),
        ),
        ("sticker", media(MediaKind::Sticker, "1003383421387261", "image/webp", None, None)),
        (
            "location",
            Content::Location {
                latitude: 37.4847483695049,
                longitude: -122.1473373086664,
                name: Some("Meta Headquarters".into()),
                address: Some("1 Hacker Way, Menlo Park, CA 94025".into()),
            },
        ),
        ("button", Content::Button { text: "Unsubscribe".into(), payload: Some("Unsubscribe".into()) }),
        (
            "interactive_button_reply",
            Content::Interactive {
                kind: "button_reply".into(),
                id: Some("cancel-button".into()),
                title: Some("Cancel".into()),
                response: None,
            },
        ),
        (
            "interactive_list_reply",
            Content::Interactive {
                kind: "list_reply".into(),
                id: Some("priority_express".into()),
                title: Some("Priority Mail Express".into()),
                response: None,
            },
        ),
        (
            "interactive_nfm_reply",
            Content::Interactive {
                kind: "nfm_reply".into(),
                id: None,
                title: Some("Sent".into()),
                response: Some(json!({ "flow_token": "unused", "optional_param1": "<value1>" })),
            },
        ),
        (
            "interactive_not_known_yet",
            Content::Interactive {
                kind: "call_permission_reply".into(),
                id: None,
                title: None,
                response: Some(json!({
                    "response": "accept",
                    "expiration_timestamp": "1739925824",
                    "response_source": "user_action"
                })),
            },
        ),
        (
            "system_customer_identity_changed",
            Content::System {
                kind: "customer_identity_changed".into(),
                body: Some("Sheena Nelson's security code changed".into()),
            },
        ),
    ];
    for (name, content) in expected {
        assert_eq!(said(name), content, "{name}");
    }
}

#[test]
fn an_order_and_contact_cards_are_kept_as_they_came() {
    let Content::Order { order, text } = said("order") else { panic!() };
    assert_eq!(text.as_deref(), Some("Love these!"));
    assert_eq!(order["product_items"][1]["product_retailer_id"], "nqryix03ez");
    let Content::Contacts { cards } = said("contacts") else { panic!() };
    assert_eq!(cards[0]["name"]["formatted_name"], "Barbara J. Johnson");
}

#[test]
fn what_a_message_refers_to_is_read() {
    assert_eq!(
        message("text_reply").context,
        Context { replies_to: Some(SENT.into()), ..Context::default() }
    );
    assert_eq!(message("text_forwarded").context, Context { forwarded: true, ..Context::default() });
    let ad = message("text_from_ad").context.referral.unwrap();
    assert_eq!(ad["ctwa_clid"], "Aff-n8ZTODiE79d22KtAwQKj9e");
    let product = message("text_product_question").context.referral.unwrap();
    assert_eq!(product["referred_product"]["product_retailer_id"], "di9ozbzfi4");
}

#[test]
fn a_reaction_is_given_and_taken_back() {
    let react = |emoji: Option<&str>| Act::React { target: SENT.into(), emoji: emoji.map(Into::into) };
    assert_eq!(message("reaction").act, react(Some("👍")));
    assert_eq!(message("reaction_removed").act, react(None));
    assert_eq!(message("reaction_removed_empty").act, react(None));
}

#[test]
fn an_edit_and_a_deletion_name_the_earlier_message() {
    let edited = media(MediaKind::Image, "1003383421387256", "image/jpeg", Some("Taj Mahal at dawn"), None);
    assert_eq!(message("edit").act, Act::Edit { target: ORIGINAL.into(), content: edited });
    let edited = text("Does it come in blue?");
    assert_eq!(message("edit_text").act, Act::Edit { target: ORIGINAL.into(), content: edited });
    assert_eq!(message("revoke").act, Act::Delete { target: ORIGINAL.into() });
    assert_eq!(message("revoke").from, sheena());
}

fn address(phone: Option<&str>, user_id: Option<&str>, parent: Option<&str>) -> Address {
    Address {
        phone: phone.map(Into::into),
        user_id: user_id.map(Into::into),
        parent_user_id: parent.map(Into::into),
        chat: None,
        name: None,
    }
}

#[test]
fn a_new_number_or_id_is_a_rename_from_the_old_address() {
    let old = (Some("16505551234"), Some("US.13491208655302741918"), Some("US.ENT.11815799212886844830"));
    let new = (Some("12195555358"), Some("US.99991208655302749999"), Some("US.ENT.22225799212886842222"));
    for (name, from, to) in [
        ("system_user_changed_number", address(old.0, None, None), address(new.0, None, None)),
        ("system_customer_changed_number", address(old.0, None, None), address(new.0, None, None)),
        ("system_user_changed_number_and_id", address(old.0, old.1, old.2), address(new.0, new.1, new.2)),
        ("system_user_changed_user_id", address(None, old.1, None), address(None, new.1, None)),
    ] {
        let message = message(name);
        assert_eq!(message.from, from, "{name}");
        let Act::Rename { to: found, body } = message.act else { panic!("{name}") };
        assert_eq!(found, to, "{name}");
        assert!(body.unwrap().contains("changed from"), "{name}");
    }
}

#[test]
fn who_hides_the_number_is_known_by_the_scoped_ids() {
    assert_eq!(
        message("username_only").from,
        Address {
            phone: None,
            user_id: Some("US.13491208655302741918".into()),
            parent_user_id: Some("US.ENT.11815799212886844830".into()),
            chat: None,
            name: Some("Pablo Morales".into()),
        }
    );
    let shared = message("shared_number_without_sender");
    assert_eq!(shared.from.user_id.as_deref(), Some("US.13491208655302741918"));
    assert!(matches!(shared.act, Act::Say(Content::Contacts { .. })));
}

#[test]
fn what_cannot_be_handed_over_says_why() {
    for name in ["unsupported", "unsupported_older"] {
        let Content::Unsupported { errors } = said(name) else { panic!("{name}") };
        assert_eq!(errors[0]["code"], 131_051, "{name}");
    }
}

#[test]
fn a_type_not_known_is_kept_whole_and_asks_nothing() {
    for (name, known_as, of_type) in [
        ("type_not_known_yet", "hologram", "hologram"),
        ("request_welcome", "request_welcome", "request_welcome"),
        ("group", "group", "text"),
    ] {
        let content = said(name);
        assert_eq!(content.asks(), Asks::Nothing, "{name}");
        let Content::Unknown { kind, raw } = content else { panic!("{name}") };
        assert_eq!((kind.as_str(), &raw["id"], &raw["type"]), (known_as, &json!(WAMID), &json!(of_type)));
    }
}

#[test]
fn statuses_are_read_and_name_our_message() {
    let events = events("statuses");
    let status = |status, outbound: Option<&str>, failure| {
        ChannelEvent::Status(ReceivedStatus {
            account: "106540352242922".parse().unwrap(),
            message_id: SENT.into(),
            outbound: outbound.map(|id| id.parse().unwrap()),
            status,
            at: Timestamp::from_secs(1_739_321_024),
            failure,
            // Statuses that the message was sent or delivered carry the charge.
            pricing: matches!(status, DeliveryStatus::Sent | DeliveryStatus::Delivered).then(|| Pricing {
                billable: true,
                category: "service".into(),
                kind: Some("regular".into()),
                country: Some("1".into()),
            }),
            recipient: Address {
                phone: Some("16505551234".into()),
                user_id: matches!(status, DeliveryStatus::Delivered | DeliveryStatus::Read)
                    .then(|| "US.13491208655302741918".into()),
                ..Address::default()
            },
        })
    };
    let ours = Some("000102030405060708090a0b0c0d0e0f.101112131415161718191a1b1c1d1e1f.0");
    let failure = DeliveryFailure {
        code: 131_049,
        title: "This message was not delivered to maintain healthy ecosystem engagement.".into(),
    };
    assert_eq!(
        events[..5],
        [
            status(DeliveryStatus::Sent, ours, None),
            status(DeliveryStatus::Delivered, ours, None),
            status(DeliveryStatus::Read, ours, None),
            status(DeliveryStatus::Played, None, None),
            status(DeliveryStatus::Failed, ours, Some(failure)),
        ]
    );
    let [ChannelEvent::Notice { field, value, .. }] = &events[5..] else { panic!("{events:?}") };
    assert_eq!((field.as_str(), &value["status"]), ("messages", &json!("warning")));
}

#[test]
fn other_fields_become_notices_with_their_value() {
    for (field, path, expected) in [
        ("account_update", "/event", json!("ACCOUNT_VIOLATION")),
        ("message_template_status_update", "/event", json!("APPROVED")),
        ("calls", "/calls/0/event", json!("connect")),
    ] {
        let [ChannelEvent::Notice { account, field: found, value }] = &events(field)[..] else {
            panic!("{field}")
        };
        assert_eq!(found, field);
        assert_eq!(value.pointer(path), Some(&expected), "{field}");
        // Only what a number does names the number; the others are the business account's.
        assert_eq!(account.is_some(), field == "calls", "{field}");
    }
    let [ChannelEvent::Notice { field, value, .. }] = &events("errors")[..] else { panic!() };
    assert_eq!((field.as_str(), &value["errors"][0]["code"]), ("messages", &json!(130_429)));
}

#[test]
fn what_a_person_sets_about_marketing_is_read() {
    let expected = ReceivedPreference {
        account: "106540352242922".parse().unwrap(),
        from: sheena(),
        at: Timestamp::from_secs(1_739_321_024),
        category: Category::Marketing,
        says: Says::Stop,
        detail: Some("User requested to stop marketing messages".into()),
    };
    assert_eq!(events("user_preferences"), [ChannelEvent::Preference(expected.clone())]);

    let with = |path: &str, value: Value| {
        let mut body: Value = serde_json::from_slice(&fixture("user_preferences")).unwrap();
        *body.pointer_mut(&format!("/entry/0/changes/0/value{path}")).unwrap() = value;
        channel().parse(&posted_to(), body.to_string().as_bytes()).unwrap()
    };
    let resumed = ReceivedPreference { says: Says::Give, ..expected };
    assert_eq!(with("/user_preferences/0/value", json!("resume")), [ChannelEvent::Preference(resumed)]);
    let scoped = json!([{ "user_id": "US.1", "category": "marketing_messages", "value": "stop" }]);
    let [ChannelEvent::Preference(scoped)] = &with("/user_preferences", scoped)[..] else { panic!() };
    assert_eq!((scoped.from.user_id.as_deref(), scoped.at), (Some("US.1"), NOW));
    for (path, wrong) in [
        ("/user_preferences/0/value", json!("perhaps")),
        ("/user_preferences/0/category", json!("weather")),
        ("/user_preferences", json!([{ "category": "marketing_messages", "value": "stop" }, 7])),
        ("/user_preferences", json!("stop")),
        ("/metadata", json!(null)),
    ] {
        for event in with(path, wrong.clone()) {
            let known = matches!(&event, ChannelEvent::Notice { field, .. } if field == "user_preferences")
                || matches!(&event, ChannelEvent::Preference(one) if one.from.phone.is_some());
            assert!(known, "{path} {wrong}: {event:?}");
        }
    }
}

#[test]
fn one_body_serves_several_numbers_and_a_malformed_message_takes_no_other_along() {
    let seen: Vec<String> = events("several_numbers")
        .iter()
        .map(|event| match event {
            ChannelEvent::Message(m) => format!(
                "{} {} {}",
                m.account,
                m.id,
                match &m.act {
                    Act::Say(Content::Text { body }) => body,
                    Act::Say(Content::Unknown { kind, .. }) => kind,
                    other => panic!("{other:?}"),
                }
            ),
            ChannelEvent::Status(s) => format!("{} status {:?}", s.account, s.status),
            ChannelEvent::Preference(p) => format!("{} preference {:?}", p.account, p.says),
            ChannelEvent::Notice { field, value, .. } => format!("notice {field} {value}"),
        })
        .collect();
    assert_eq!(
        seen,
        [
            "106540352242922 wamid.1 one",
            "106540352242922 wamid.2 two",
            "106540352242922 status Sent",
            r#"notice account_update {"event":"VERIFIED_ACCOUNT"}"#,
            "206540352242922 wamid.3 three",
            r#"notice messages {"type":"text"}"#,
            "206540352242922 wamid.4 four",
            "notice messages 17",
            "206540352242922 wamid.5 text",
        ]
    );
    let last = events("several_numbers").pop().unwrap();
    let ChannelEvent::Message(last) = last else { panic!() };
    assert_eq!(last.sent_at, NOW, "a time that cannot be read is the time of reading");
}

#[test]
fn every_fixture_is_used_by_a_test() {
    let source = include_str!("webhook.rs");
    let unused: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !source.contains(&format!("\"{name}\"")))
        .collect();
    assert_eq!(unused, BTreeSet::new());
}

#[test]
fn a_body_that_is_no_json_object_is_refused() {
    for body in ["", "{", "[]", "17", "null", "\"text\"", "object=page", "{\"entry\":[}"] {
        assert!(
            matches!(channel().parse(&posted_to(), body.as_bytes()), Err(WebhookError::Body(_))),
            "{body}"
        );
    }
    assert!(matches!(channel().parse(&posted_to(), &[0xff, 0xfe]), Err(WebhookError::Body(_))));
}

#[test]
fn a_shape_not_known_becomes_a_notice() {
    for body in [
        json!({}),
        json!({ "object": "page", "messaging": [] }),
        json!({ "entry": [{ "id": "1", "messaging": [1] }] }),
        json!({ "entry": [{ "changes": [{ "field": "messages" }] }] }),
        json!({ "entry": [{ "changes": [{ "field": "messages", "value": { "messages": "none" } }] }] }),
        json!({ "entry": [{ "changes": [17] }] }),
    ] {
        let events = channel().parse(&posted_to(), body.to_string().as_bytes()).unwrap();
        assert!(matches!(&events[..], [ChannelEvent::Notice { .. }]), "{body}: {events:?}");
    }
}

/// Any JSON, with the names that the parser reads among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        any_name().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((any_name(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn any_name() -> impl Strategy<Value = String> {
    let known = "object entry changes field value metadata phone_number_id contacts messages statuses \
        errors from from_user_id id timestamp type text body image audio voice caption location latitude \
        longitude button interactive button_reply nfm_reply response_json reaction message_id emoji order \
        referral system user_changed_number wa_id user_id edit revoke original_message_id message \
        unsupported group_id context referred_product profile name username status code title sent failed";
    proptest::sample::select(known.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

fn any_id() -> impl Strategy<Value = Value> {
    prop_oneof!["wamid\\.[A-Za-z0-9=]{1,20}".prop_map(Value::from), any::<u32>().prop_map(Value::from)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = channel().parse(&posted_to(), &body);
    }

    #[test]
    fn no_json_makes_it_panic(value in any_json()) {
        let read = channel().parse(&posted_to(), value.to_string().as_bytes());
        prop_assert_eq!(read.is_ok(), value.is_object());
    }

    #[test]
    fn a_body_yields_as_many_events_as_it_has_messages(
        bodies in proptest::collection::vec(
            proptest::collection::vec((any_json(), any_id(), any::<bool>()), 1..4), 1..4),
        metadata in any_json(),
        known_number in any::<bool>(),
    ) {
        let metadata = if known_number { json!({ "phone_number_id": "106540352242922" }) } else { metadata };
        let mut with_address = 0;
        let mut count = 0;
        let entries: Vec<Value> = bodies.iter().map(|messages| {
            let messages: Vec<Value> = messages.iter().map(|(message, id, address)| {
                let mut message = message.as_object().cloned().unwrap_or_default();
                message.insert("id".into(), id.clone());
                if *address {
                    message.insert("from".into(), json!("16505551234"));
                    with_address += 1;
                }
                count += 1;
                Value::Object(message)
            }).collect();
            json!({ "changes": [{ "field": "messages", "value": {
                "metadata": metadata.clone(), "messages": messages } }] })
        }).collect();
        let events = channel().parse(&posted_to(), json!({ "entry": entries }).to_string().as_bytes()).unwrap();
        prop_assert_eq!(events.len(), count);
        let read = events.iter().filter(|event| matches!(event, ChannelEvent::Message(_))).count();
        if known_number {
            prop_assert!(read >= with_address, "{} of {} messages with id and address", read, with_address);
        }
    }
}

/// A body of as many messages as contacts, of which no two share an id, and as many preferences that cannot be read
/// beside long metadata.
fn strangers(count: usize) -> Vec<u8> {
    let metadata = json!({ "phone_number_id": "1", "more": "x".repeat(count) });
    let contacts: Vec<_> =
        (0..count).map(|n| json!({ "wa_id": format!("49{n}"), "user_id": format!("US.{n}") })).collect();
    let messages: Vec<_> = (0..count)
        .map(|n| json!({ "id": format!("wamid.{n}"), "from": format!("55{n}"), "type": "text", "text": { "body": "x" } }))
        .collect();
    let preferences = vec![json!(7); count];
    let changes = json!([
        { "field": "messages", "value": { "metadata": metadata, "contacts": contacts, "messages": messages } },
        { "field": "user_preferences", "value": { "metadata": metadata, "user_preferences": preferences } },
    ]);
    serde_json::to_vec(&json!({ "entry": [{ "changes": changes }] })).unwrap()
}

#[test]
fn the_time_of_a_body_grows_with_its_length_and_not_with_its_square() {
    let clock = heddle_connectors::clock::SystemClock;
    let took = |body: &[u8]| {
        let one = || {
            let began = clock.elapsed();
            channel().parse(&posted_to(), body).unwrap();
            clock.elapsed() - began
        };
        (0..3).map(|_| one()).min().unwrap()
    };
    let (small, large) = (took(&strangers(500)), took(&strangers(10_000)));
    // Twenty times as long: 20 where it is linear, 400 where it is not. A busy machine may triple it.
    assert!(large < small * 80, "{small:?} for 500, {large:?} for 10,000");
    let events = channel().parse(&posted_to(), &strangers(500)).unwrap();
    let bytes: usize = events.iter().map(|event| format!("{event:?}").len()).sum();
    assert!(bytes < 1_000_000, "what is kept of it is {bytes} bytes");
}

#[test]
fn a_body_with_more_of_anything_than_the_provider_sends_is_refused() {
    let refused = |body: Value| match channel().parse(&posted_to(), &serde_json::to_vec(&body).unwrap()) {
        Err(WebhookError::Body(why)) => why,
        other => panic!("{:?}", other.map(|events| events.len())),
    };
    let many = vec![json!({}); 10_001];
    assert!(refused(json!({ "entry": many })).contains("entries"));
    assert!(refused(json!({ "entry": [{ "changes": many }] })).contains("changes"));
    for list in ["contacts", "messages", "statuses", "user_preferences"] {
        // Also over several changes.
        let half = json!({ "value": { list: vec![json!({}); 5_001] } });
        assert!(refused(json!({ "entry": [{ "changes": [half] }, { "changes": [half] }] })).contains(list));
    }
    let mut deep = "[".repeat(200_000);
    deep.push_str(&"]".repeat(200_000));
    assert!(matches!(channel().parse(&posted_to(), deep.as_bytes()), Err(WebhookError::Body(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_header_but_the_signature_is_accepted_or_makes_it_panic(
        header in proptest::collection::vec(any::<u8>().prop_filter("no header has it", |b| !matches!(b, 0..=31 | 127)), 0..120),
        secret in "\\PC{1,40}",
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        use heddle_schemas::ports::channel::ChannelAccount;
        let secrets = [("app_secret", heddle_schemas::sealed::Secret::new(secret))];
        let account = ChannelAccount::new(heddle_schemas::id::ChannelKind::Whatsapp, posted_to(), "https://x", secrets);
        let value = reqwest::header::HeaderValue::from_bytes(&header).unwrap();
        let headers = [(reqwest::header::HeaderName::from_static("x-hub-signature-256"), value)].into_iter().collect();
        prop_assert!(channel().verify(&account, &headers, &body).is_err());
    }
}
