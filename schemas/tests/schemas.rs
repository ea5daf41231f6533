//! The checked-in JSON Schemas are those of the types, and records hold to them.

use std::path::PathBuf;

use heddle_schemas::record::schema;
use heddle_schemas::topic::Topic;

fn file(topic: Topic) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("json").join(format!("{topic}.json"))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn checked_in_schemas_are_those_of_the_types() {
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    for topic in Topic::ALL {
        let now = serde_json::to_string_pretty(&schema::of(topic)).unwrap() + "\n";
        if update {
            std::fs::write(file(topic), &now).unwrap();
        }
        let stored = std::fs::read_to_string(file(topic)).unwrap_or_default();
        assert_eq!(stored, now, "{topic} has drifted; UPDATE_SCHEMAS=1 cargo test -p heddle-schemas");
    }
}
