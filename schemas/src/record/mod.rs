//! What is in each topic: JSON objects with a version field `v`, one file a topic.
//!
//! A reader takes the versions it knows ([`VERSION`]) and dead-letters others with the reason.
//! Message bodies and addresses are inside `sealed` fields, under the tenant's log key of the day,
//! bound to their place by [`log_aad`]; only [`ingress`], which others write, has them in the clear.

pub mod asyncapi;
pub mod dlq;
pub mod event;
pub mod inbound;
pub mod ingress;
pub mod outbound;
pub mod region;
pub mod schema;
pub mod tenants;

use std::cell::Cell;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::topic::Topic;

/// The version that this build writes, and the only one it reads.
pub const VERSION: u16 = 1;

/// Why a record could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its version is not known here.
    #[error("version {found} is not known, this build reads {VERSION}")]
    Version {
        /// What it says.
        found: u64,
    },
    /// It is no such record.
    #[error("no record of this topic: {0}")]
    Shape(String),
}

/// A buffer that has grown larger is let go of after use.
const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    /// What is being written: warm in the cache, and grown already.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Writes a record.
///
/// # Panics
/// Never: records hold no map with keys that are not text.
#[must_use]
pub fn encode<T: Serialize>(record: &T) -> Bytes {
    encode_for(record, Bytes::copy_from_slice)
}

/// Writes a record for `read` alone, such as a cipher: its bytes are not kept.
///
/// # Panics
/// Never: records hold no map with keys that are not text.
pub fn encode_for<T: Serialize, R>(record: &T, read: impl FnOnce(&[u8]) -> R) -> R {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    serde_json::to_writer(&mut scratch, record).expect("a record is always JSON");
    let result = read(&scratch);
    if scratch.capacity() <= SCRATCH_BYTES {
        SCRATCH.set(scratch);
    }
    result
}

/// Reads a record of the known version.
///
/// # Errors
/// [`RecordError::Version`] for a version this build does not know, [`RecordError::Shape`] otherwise.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(value).map_err(|error| {
        // The version decides how the rest is to be read, so a foreign one explains any other fault.
        #[derive(serde::Deserialize)]
        struct Versioned {
            v: u64,
        }
        match serde_json::from_slice::<Versioned>(value) {
            Ok(Versioned { v }) if v != u64::from(VERSION) => RecordError::Version { found: v },
            _ => RecordError::Shape(error.to_string()),
        }
    })
}

/// The version field: reads and writes [`VERSION`], refuses others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct V;

impl Serialize for V {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(VERSION)
    }
}

impl<'de> serde::Deserialize<'de> for V {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            v if v == u64::from(VERSION) => Ok(Self),
            v => Err(serde::de::Error::custom(format!("version {v} is not known"))),
        }
    }
}

impl schemars::JsonSchema for V {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "V".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": VERSION, "description": "version of the record" })
    }
}

/// Associated data of a ciphertext in a log record: the topic, and the id of what it is about.
#[must_use]
pub fn log_aad(topic: Topic, about: &dyn std::fmt::Display) -> Vec<u8> {
    format!("log/{topic}/{about}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::event::EventRecord;

    #[test]
    fn a_record_may_be_written_while_another_is_read() {
        let both = encode_for(&"one", |one| (one.to_vec(), encode(&"two")));
        assert_eq!(both, (b"\"one\"".to_vec(), Bytes::from("\"two\"")));
        assert_eq!(encode(&"three"), "\"three\"");
    }

    #[test]
    fn a_foreign_version_is_named_whatever_else_is_wrong() {
        let error = decode::<EventRecord>(br#"{"v":9,"something":"else"}"#).unwrap_err();
        assert_eq!(error, RecordError::Version { found: 9 });
        assert!(matches!(decode::<EventRecord>(b"nonsense"), Err(RecordError::Shape(_))));
    }
}
