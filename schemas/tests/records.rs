//! Stored records: those that the first build with versions wrote are read, and what is written reads back.
//!
//! `fixtures/<topic>.jsonl` has every kind of record of version 1, one a line, and what later versions added. They are
//! never written anew: a build that changes a record raises its version and adds lines.

#![expect(clippy::unwrap_used, reason = "a record that cannot be read is the fault")]

use std::collections::BTreeSet;

use heddle_schemas::content::Address;
use heddle_schemas::id::{ConversationId, OutboundId};
use heddle_schemas::outgoing::{Kind, OutgoingContent};
use heddle_schemas::record::dlq::DeadLetter;
use heddle_schemas::record::event::EventRecord;
use heddle_schemas::record::inbound::{
    DeliveryFailure, DeliveryReport, DeliveryStatus, Handler, Handling, InboundEvent, InboundRecord, Restrict,
};
use heddle_schemas::record::ingress::IngressRecord;
use heddle_schemas::record::outbound::{
    OutboundCommand, OutboundRecord, Purpose, SealedMessage, SendCommand,
};
use heddle_schemas::record::tenants::TenantRecord;
use heddle_schemas::record::{RecordError, V, Versioned, decode, decode_to, encode, encode_as, version};
use heddle_schemas::sealed::Sealed;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::Topic;
use proptest::prelude::*;
use serde_json::Value;

fn lines(topic: Topic) -> &'static str {
    match topic {
        Topic::Ingress => include_str!("fixtures/ingress.jsonl"),
        Topic::Inbound => include_str!("fixtures/inbound.jsonl"),
        Topic::Outbound => include_str!("fixtures/outbound.jsonl"),
        Topic::Tenants => include_str!("fixtures/tenants.jsonl"),
        Topic::Events => include_str!("fixtures/events.jsonl"),
        Topic::Dlq => include_str!("fixtures/dlq.jsonl"),
    }
}

/// Returns true when a value has all of another one; fields that were added since may stand beside it.
fn has_all(after: &Value, before: &Value) -> bool {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            before.iter().all(|(name, before)| after.get(name).is_some_and(|after| has_all(after, before)))
        }
        (Value::Array(after), Value::Array(before)) => {
            after.len() == before.len()
                && after.iter().zip(before).all(|(after, before)| has_all(after, before))
        }
        (Value::String(after), Value::String(before)) if after != before => {
            // A duration may be written in other units since: `11months 30days ...` was 365 days.
            let same = |text: &str| humantime::parse_duration(text).ok();
            same(after).is_some() && same(after) == same(before)
        }
        _ => after == before,
    }
}

/// Every line is read, reads back from what is written of it, and says the same as before.
fn holds<T: Versioned + PartialEq + std::fmt::Debug>(topic: Topic) {
    for line in lines(topic).lines() {
        let record: T = decode(line.as_bytes()).unwrap_or_else(|error| panic!("{topic}: {error}: {line}"));
        let written = encode(&record);
        assert_eq!(decode::<T>(&written).unwrap(), record, "{line}");
        assert_eq!(encode_as(&record, T::VERSION), written);
        let stated = u16::try_from(version::of(line.as_bytes()).unwrap()).unwrap();
        let as_it_was = encode_as(&record, stated);
        let (before, after): (Value, Value) =
            (serde_json::from_str(line).unwrap(), serde_json::from_slice(&as_it_was).unwrap());
        assert!(has_all(&after, &before), "{line}: of it is lost: {after}");
        if stated == T::VERSION && stated > 1 {
            assert_eq!(encode_as(&record, stated - 1), written, "the version before cannot say it: {line}");
        }
        let mut next: Value = serde_json::from_slice(&written).unwrap();
        let newer = T::VERSION + 1;
        next["v"] = newer.into();
        let next = next.to_string();
        let error = decode::<T>(next.as_bytes()).unwrap_err();
        assert_eq!(error, RecordError::Version { found: newer.into() });
        assert!(error.is_newer(T::VERSION), "it is parked, not dead-lettered");
        assert_eq!(decode_to::<T>(next.as_bytes(), newer).unwrap(), record, "as a later build reads it");
    }
}

#[test]
fn stored_records_are_read_and_the_next_version_is_recognised() {
    holds::<IngressRecord>(Topic::Ingress);
    holds::<InboundRecord>(Topic::Inbound);
    holds::<OutboundRecord>(Topic::Outbound);
    holds::<TenantRecord>(Topic::Tenants);
    holds::<EventRecord>(Topic::Events);
    holds::<DeadLetter>(Topic::Dlq);
}

/// Reads a record of this topic with an unknown name at a pointer of one of its lines, and writes it back.
fn keeps_unknown<T: Versioned + PartialEq + std::fmt::Debug>(topic: Topic, pointer: &str) {
    let mut record: Value = lines(topic)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|record| record.pointer(pointer).is_some())
        .unwrap_or_else(|| panic!("{topic} has {pointer}"));
    *record.pointer_mut(pointer).unwrap() = "of_a_later_build".into();
    let read: T = decode(record.to_string().as_bytes()).unwrap_or_else(|error| panic!("{pointer}: {error}"));
    let written: Value = serde_json::from_slice(&encode(&read)).unwrap();
    assert_eq!(written.pointer(pointer), record.pointer(pointer), "{topic} {pointer}");
}

#[test]
fn names_of_a_later_build_are_kept_as_they_came() {
    keeps_unknown::<DeadLetter>(Topic::Dlq, "/reason");
    for pointer in [
        "/event/turn/outcome",
        "/event/handed_over/because",
        "/event/opted_out/how",
        "/event/opted_out/category",
        "/event/consented/how",
        "/event/consented/category",
    ] {
        keeps_unknown::<EventRecord>(Topic::Events, pointer);
    }
}

/// The variants under a pointer, by name: a text, or the only field of an object.
fn variants(topic: Topic, pointer: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        let found = record.pointer(pointer)?;
        let field = || found.as_object().and_then(|fields| fields.keys().next().cloned());
        found.as_str().map(str::to_owned).or_else(field)
    };
    lines(topic).lines().filter_map(name).collect()
}

#[test]
fn the_fixtures_have_every_variant() {
    let known = |topic: Topic, of: &str| -> BTreeSet<String> {
        let schema = serde_json::to_value(heddle_schemas::record::schema::of(topic)).unwrap();
        let of = schema.pointer(of).unwrap_or_else(|| panic!("{topic} has {of}"));
        let each = of["oneOf"].as_array().unwrap().iter().flat_map(|variant| {
            let named = variant["const"].as_str().map(str::to_owned);
            let listed = variant["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let held =
                variant["properties"].as_object().into_iter().flat_map(|fields| fields.keys().cloned());
            named.into_iter().chain(listed.map(str::to_owned)).chain(held).collect::<Vec<_>>()
        });
        each.collect()
    };
    for (topic, of, pointer) in [
        (Topic::Inbound, "/$defs/InboundEvent", "/event"),
        (Topic::Inbound, "/$defs/ActKind", "/event/customer/kind"),
        (Topic::Inbound, "/$defs/DeliveryStatus", "/event/delivery/status"),
        (Topic::Inbound, "/$defs/Handler", "/event/handling/by"),
        (Topic::Outbound, "/$defs/OutboundCommand", "/command"),
        (Topic::Outbound, "/$defs/Purpose", "/command/send/purpose"),
        (Topic::Outbound, "/$defs/Kind", "/command/send/kind"),
        (Topic::Events, "/$defs/Event", "/event"),
        (Topic::Dlq, "/$defs/DeadReason", "/reason"),
    ] {
        let mut found = variants(topic, pointer);
        if of == "/$defs/Kind" {
            // A text is written without its kind, as it always was.
            assert!(found.insert("text".into()));
        }
        assert_eq!(found, known(topic, of), "{topic} {pointer}");
    }
}

#[test]
fn a_text_is_written_for_the_build_before_as_that_one_wrote_it() {
    let key = heddle_schemas::id::MessageKey::from_bytes([2; 16]);
    let conversation: ConversationId = format!("acme/whatsapp/1/{}", "0a".repeat(16)).parse().unwrap();
    let record = |kind, purpose| OutboundRecord {
        v: V,
        conversation: conversation.clone(),
        at: Timestamp::from_secs(1),
        command: OutboundCommand::Send(SendCommand {
            id: OutboundId::of_turn(conversation.contact, heddle_schemas::id::TurnId(key), 0),
            purpose,
            again: false,
            fence: None,
            window_until: None,
            kind,
            category: None,
            sealed: Sealed::from_bytes(vec![1]),
        }),
    };
    let of_version = |kind, purpose| version::of(&encode_as(&record(kind, purpose), 1));
    assert_eq!(of_version(Kind::Text, Purpose::Reply), Some(1));
    assert_eq!(of_version(Kind::Text, Purpose::Campaign), Some(1));
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Text) {
        assert_eq!(of_version(*kind, Purpose::Reply), Some(2), "{kind}: an older node would dead-letter it");
    }
    assert_eq!(of_version(Kind::Text, Purpose::Notice), Some(2));
    let message = SealedMessage { to: Address::default(), content: OutgoingContent::text("hello") };
    assert_eq!(
        serde_json::to_value(&message).unwrap(),
        serde_json::json!({ "to": {}, "content": { "type": "text", "body": "hello" } })
    );
}

fn any_event() -> impl Strategy<Value = InboundEvent> {
    let key = any::<[u8; 16]>().prop_map(heddle_schemas::id::MessageKey::from_bytes);
    let status = proptest::sample::select(vec![
        DeliveryStatus::Queued,
        DeliveryStatus::Held,
        DeliveryStatus::Sent,
        DeliveryStatus::Delivered,
        DeliveryStatus::Read,
        DeliveryStatus::Played,
        DeliveryStatus::Failed,
    ]);
    let report = (key.clone(), 0..0x8000_u16, status, proptest::option::of((any::<i64>(), ".*")));
    prop_oneof![
        Just(InboundEvent::Leave),
        (key.clone(), any::<bool>())
            .prop_map(|(key, restricted)| InboundEvent::Restrict(Restrict { key, restricted })),
        (key, any::<bool>()).prop_map(|(key, human)| {
            InboundEvent::Handling(Handling { key, by: if human { Handler::Human } else { Handler::Agent } })
        }),
        report.prop_map(|(key, index, status, failure)| {
            let contact = heddle_schemas::id::ContactId::from_bytes(key.to_bytes());
            let turn = heddle_schemas::id::TurnId(key);
            InboundEvent::Delivery(DeliveryReport {
                outbound: heddle_schemas::id::OutboundId::of_turn(contact, turn, index),
                status,
                at: Timestamp::from_secs(1),
                failure: failure.map(|(code, title)| DeliveryFailure { code, title }),
                message: None,
                pricing: None,
            })
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(event in any_event(), at in 0..i64::MAX / 2) {
        let conversation = format!("acme/whatsapp/1/{}", "0a".repeat(16)).parse().unwrap();
        let record = InboundRecord { v: V, conversation, at: Timestamp::from_micros(at), event };
        let written = encode(&record);
        prop_assert_eq!(version::of(&written), Some(u64::from(InboundRecord::VERSION)));
        prop_assert_eq!(decode::<InboundRecord>(&written).unwrap(), record);
    }

    #[test]
    fn whatever_says_a_later_version_is_newer(later in 3_u64..u64::MAX, rest in ".{0,40}") {
        let text = serde_json::json!({ "v": later, "rest": rest }).to_string();
        let error = decode::<InboundRecord>(text.as_bytes()).unwrap_err();
        prop_assert!(error.is_newer(InboundRecord::VERSION));
    }
}

/// A change that somebody makes to bytes.
#[derive(Debug, Clone)]
enum Damage {
    Cut(usize),
    Replace(usize, u8),
    Remove(usize, usize),
    Repeat(usize, usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<usize>(), 0_usize..64).prop_map(|(at, count)| Damage::Remove(at, count)),
        (any::<usize>(), 0_usize..64, 1_usize..200)
            .prop_map(|(at, count, times)| Damage::Repeat(at, count, times)),
    ]
}

fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        let length = bytes.len().max(1);
        match damage {
            Damage::Cut(at) => bytes.truncate(at % length),
            Damage::Replace(at, byte) => {
                bytes.iter_mut().skip(at % length).take(1).for_each(|old| *old = *byte)
            }
            Damage::Remove(at, count) => {
                let from = (at % length).min(bytes.len());
                bytes.drain(from..(from + count).min(bytes.len()));
            }
            Damage::Repeat(at, count, times) => {
                let from = (at % length).min(bytes.len());
                let piece = bytes[from..(from + count).min(bytes.len())].repeat(*times);
                bytes.splice(from..from, piece);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_damage_to_a_record_makes_its_reader_panic(
        topic in proptest::sample::select(Topic::ALL.to_vec()),
        line in any::<proptest::sample::Index>(),
        damages in proptest::collection::vec(damage(), 1..6),
    ) {
        let lines: Vec<_> = lines(topic).lines().collect();
        let bytes = damaged(line.get(&lines).as_bytes(), &damages);
        match topic {
            Topic::Ingress => drop(decode::<IngressRecord>(&bytes)),
            Topic::Inbound => drop(decode::<InboundRecord>(&bytes)),
            Topic::Outbound => drop(decode::<OutboundRecord>(&bytes)),
            Topic::Tenants => drop(decode::<TenantRecord>(&bytes)),
            Topic::Events => drop(decode::<EventRecord>(&bytes)),
            Topic::Dlq => drop(decode::<DeadLetter>(&bytes)),
        }
        let _ = version::of(&bytes);
    }

    #[test]
    fn a_damaged_record_does_not_keep_its_mac(
        damages in proptest::collection::vec(damage(), 1..6),
    ) {
        // Any function of the bytes: what is authentic is exactly what it was made of.
        let hash = |bytes: &[u8]| {
            let sum = bytes.iter().fold(7_u128, |sum, byte| sum.wrapping_mul(1_000_003).wrapping_add(u128::from(*byte)));
            heddle_schemas::id::MessageKey::from_bytes(sum.to_be_bytes())
        };
        let record = lines(Topic::Tenants).lines().next().unwrap().as_bytes();
        let whole = heddle_schemas::record::tenants::authenticate(record, hash);
        let mac = decode::<TenantRecord>(&whole).unwrap().mac.unwrap();
        prop_assert!(heddle_schemas::record::tenants::is_authentic(&whole, &mac, hash));
        let bytes = damaged(&whole, &damages);
        if let Ok(TenantRecord { mac: Some(mac), .. }) = decode(&bytes)
            && bytes != whole
        {
            prop_assert!(!heddle_schemas::record::tenants::is_authentic(&bytes, &mac, hash));
        }
    }

    #[test]
    fn no_damage_to_a_tenants_file_makes_its_reader_panic(
        damages in proptest::collection::vec(damage(), 1..6),
    ) {
        let file = include_str!("../../deploy/examples/acme/tenant.toml");
        let bytes = damaged(file.as_bytes(), &damages);
        if let Ok(tenant) = heddle_schemas::tenant::Tenant::from_toml(&String::from_utf8_lossy(&bytes)) {
            let mut shown = heddle_schemas::tenant::Tenant::from_toml(&toml::to_string(&tenant).unwrap()).unwrap();
            shown.keep_secrets(Some(&tenant));
            drop(shown.addresses());
        }
    }
}
