//! Agreement of schemas and readers: a schema takes only forms that are read, and of forms that people write, all that
//! are read.

use std::time::Duration;

use heddle_schemas::audit::Note;
use heddle_schemas::contact::ContactName;
use heddle_schemas::money::Money;
use heddle_schemas::time::{Timestamp, human, rfc3339};
use heddle_schemas::zone::{Date, Month, Zone};
use jsonschema::Validator;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};

fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).expect("a schema of ours")
}

fn of<T: JsonSchema>() -> Validator {
    validator(&T::json_schema(&mut SchemaGenerator::default()).into())
}

/// Holds that the schema takes exactly those of the texts that are read.
fn agree(schema: &Validator, reads: impl Fn(&str) -> bool, texts: impl IntoIterator<Item = String>) {
    let mut taken = 0;
    for text in texts {
        let valid = schema.is_valid(&json!(text));
        assert_eq!(valid, reads(&text), "{text:?}");
        taken += u32::from(valid);
    }
    assert!(taken > 0, "none was taken");
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn dates_are_those_of_the_calendar() {
    let dates = ["0000", "1900", "2000", "2024", "2025", "2100"].into_iter().flat_map(|year| {
        (0..=13).flat_map(move |month| (0..=32).map(move |day| format!("{year}-{month:02}-{day:02}")))
    });
    agree(&of::<Date>(), |text| text.parse::<Date>().is_ok(), dates);
    let months = (0..=13).map(|month| format!("2026-{month:02}"));
    agree(&of::<Month>(), |text| text.parse::<Month>().is_ok(), months.chain(texts(&["2026-1", "26-01"])));
}

#[test]
fn times_are_those_that_are_read() {
    #[derive(Deserialize)]
    struct Time(
        #[serde(with = "rfc3339")]
        #[expect(dead_code, reason = "read, not used")]
        Timestamp,
    );
    let schema = validator(&rfc3339::schema(&mut SchemaGenerator::default()).into());
    let reads = |text: &str| serde_json::from_value::<Time>(json!(text)).is_ok();
    let all = [
        "2026-11-29T03:04:05Z",
        "2028-02-29T00:00:00.123456789+05:30",
        "2026-02-29T00:00:00Z",
        "2026-11-31T00:00:00Z",
        "2026-11-29T24:00:00Z",
        "2026-11-29T03:60:00Z",
        "2026-11-29T03:04:05",
        "2026-11-29",
        "",
    ];
    agree(&schema, reads, texts(&all));
}

#[test]
fn durations_are_those_that_are_read() {
    #[derive(Deserialize)]
    struct Length(
        #[serde(with = "human")]
        #[expect(dead_code, reason = "read, not used")]
        Duration,
    );
    let schema = validator(&human::schema(&mut SchemaGenerator::default()).into());
    let reads = |text: &str| serde_json::from_value::<Length>(json!(text)).is_ok();
    let all = [
        "300ms",
        "5s",
        "30d",
        "1h 30m",
        "10 days",
        "2weeks",
        "",
        "5",
        "5x",
        "-5s",
        "d",
        "999999999999999999999s",
    ];
    agree(&schema, reads, texts(&all));
    // Whatever is written is taken.
    for millis in [0, 1, 999, 60_000, 3_600_001, 31_536_000_000, 315_360_000_001] {
        let written = humantime::format_duration(Duration::from_millis(millis)).to_string();
        assert!(schema.is_valid(&json!(written)), "{written}");
    }
}

#[test]
fn names_of_contacts_money_and_zones_are_those_that_are_read() {
    let hex = "0a".repeat(16);
    let all = [
        "+4915112345678",
        "whatsapp:+4915112345678",
        "whatsapp:4915112345678",
        "whatsapp:US.134",
        &hex,
        "",
        "+",
        "+0151",
        "015112345678",
        "whatsapp:",
        "whatsapp:+x",
        "whatsapp:1234567890123456",
        "sms:+49",
    ];
    agree(&of::<ContactName>(), |text| text.parse::<ContactName>().is_ok(), texts(&all));
    let all =
        ["0", "250", "0.15", "9999999999999.999999", "0.1234567", "-1", "1e3", "", "99999999999999999999"];
    agree(&of::<Money>(), |text| text.parse::<Money>().is_ok(), texts(&all));
    let all = ["Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires", "Europe/Nowhere", "", "+01:00"];
    agree(&of::<Zone>(), |text| text.parse::<Zone>().is_ok(), texts(&all));
}

#[test]
fn headers_with_a_note_are_those_that_are_taken() {
    let schema = validator(&Note::header_schema());
    let all = [
        "Ann",
        "Zo\u{eb}",
        "ticket HD-20261126, at the customer's request",
        "1+1 is 2, room 12 345",
        "C++ 2023-11-05",
        "two\tparts",
        "for +49 (30) 901820",
        "for 16505551234",
        "for +1-650-555-1234",
        "1234\u{b2}6789",
        "1234\u{b2}67890",
    ];
    let long = ["a".repeat(256), "a".repeat(257)];
    agree(&schema, |text| text.parse::<Note>().is_ok(), texts(&all).into_iter().chain(long));
    assert!(schema.is_valid(&json!("")), "nothing says nothing");
}
