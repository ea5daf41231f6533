//! The checked-in JSON Schemas and the AsyncAPI document are those of the types.

#![expect(clippy::unwrap_used, reason = "a schema that cannot be read is the fault")]

use std::path::PathBuf;

use heddle_schemas::record::{asyncapi, schema};
use heddle_schemas::topic::Topic;
use serde::Serialize;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a file with what it is generated from; `UPDATE_SCHEMAS=1` writes it first.
#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn holds(file: &str, generated: &impl Serialize) {
    let path = folder().join(file);
    let now = serde_json::to_string_pretty(generated).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, now, "{file} has drifted; UPDATE_SCHEMAS=1 cargo test -p heddle-schemas");
}

#[test]
fn checked_in_schemas_are_those_of_the_types() {
    for topic in Topic::ALL {
        holds(&format!("json/{topic}.json"), &schema::of(topic));
    }
}

#[test]
fn the_checked_in_asyncapi_document_is_that_of_the_topics() {
    holds("asyncapi.json", &asyncapi::document());
}

#[test]
fn every_reference_of_the_asyncapi_document_leads_somewhere() {
    let document = asyncapi::document();
    let mut open = vec![&document];
    let mut files = 0;
    while let Some(value) = open.pop() {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            match reference.strip_prefix('#') {
                Some(pointer) => assert!(document.pointer(pointer).is_some(), "{reference}"),
                None => {
                    assert!(folder().join(reference).is_file(), "{reference}");
                    files += 1;
                }
            }
        }
        match value {
            Value::Object(fields) => open.extend(fields.values()),
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    assert_eq!(files, Topic::ALL.len());
}
