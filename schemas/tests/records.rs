//! Stored records: those that the first build with versions wrote are read, and what is written reads back.
//!
//! `fixtures/<topic>.jsonl` has every kind of record of version 1, one a line. They are never written anew: a build
//! that changes a record raises its version and adds lines.

#![expect(clippy::unwrap_used, reason = "a record that cannot be read is the fault")]

use std::collections::BTreeSet;

use heddle_schemas::record::dlq::DeadLetter;
use heddle_schemas::record::event::EventRecord;
use heddle_schemas::record::inbound::{
    DeliveryFailure, DeliveryReport, DeliveryStatus, Handler, Handling, InboundEvent, InboundRecord, Restrict,
};
use heddle_schemas::record::ingress::IngressRecord;
use heddle_schemas::record::outbound::OutboundRecord;
use heddle_schemas::record::tenants::TenantRecord;
use heddle_schemas::record::{RecordError, V, Versioned, decode, decode_to, encode, encode_as, version};
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
        if T::VERSION == 1 {
            let (before, after): (Value, Value) =
                (serde_json::from_str(line).unwrap(), serde_json::from_slice(&written).unwrap());
            assert!(has_all(&after, &before), "{line}: of it is lost: {after}");
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
        (Topic::Events, "/$defs/Event", "/event"),
        (Topic::Dlq, "/$defs/DeadReason", "/reason"),
    ] {
        assert_eq!(variants(topic, pointer), known(topic, of), "{topic} {pointer}");
    }
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
    fn whatever_says_a_later_version_is_newer(later in 2_u64..u64::MAX, rest in ".{0,40}") {
        let text = serde_json::json!({ "v": later, "rest": rest }).to_string();
        let error = decode::<InboundRecord>(text.as_bytes()).unwrap_err();
        prop_assert!(error.is_newer(InboundRecord::VERSION));
    }
}
