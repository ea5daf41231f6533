//! Records of each topic: JSON objects with a version field `v`, one file a topic.
//!
//! Each topic has its own version; see [`version`] for what a build reads and writes of it. Message bodies and
//! addresses are inside `sealed` fields, under the tenant's log key of the day, bound to their place by [`log_aad`];
//! only [`ingress`], which others write, has them in the clear.

pub mod asyncapi;
pub mod dlq;
pub mod event;
pub mod inbound;
pub mod ingress;
pub mod outbound;
pub mod region;
pub mod schema;
pub mod tenants;
pub mod version;

use std::cell::Cell;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

pub use self::version::{Versioned, Versions};
use crate::id::ChannelKind;
use crate::topic::Topic;

/// Reason why a record could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// This build does not read its version.
    #[error("version {found} is not one that this build reads")]
    Version {
        /// The version of the record.
        found: u64,
    },
    /// Its version is known, and it has a variant or a setting that is not: a later build wrote it.
    #[error("written by a later build: {0}")]
    Unknown(String),
    /// It is no record of the topic.
    #[error("no record of this topic: {0}")]
    Shape(String),
}

impl RecordError {
    /// Returns whether a later build wrote the record than one that reads up to version `newest`.
    #[must_use]
    pub fn is_newer(&self, newest: u16) -> bool {
        match self {
            Self::Version { found } => *found > u64::from(newest),
            Self::Unknown(_) => true,
            Self::Shape(_) => false,
        }
    }
}

/// A buffer that has grown larger is let go of after use.
const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    /// Buffer for writing: warm in the cache, and grown already.
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

/// Writes a record in its own version or, with the one before as `version`, in that where it can say the same.
///
/// # Panics
/// As [`encode`].
#[must_use]
pub fn encode_as<T: Versioned>(record: &T, version: u16) -> Bytes {
    if version < T::VERSION
        && let Ok(Value::Object(mut fields)) = serde_json::to_value(record)
        && version::downgrade(T::STEPS, &mut fields)
    {
        return encode(&fields);
    }
    encode(record)
}

/// Reads a record of this build's version, or of the one before.
///
/// # Errors
/// [`RecordError::Version`] for another version, [`RecordError::Unknown`] where a later build added to this one,
/// [`RecordError::Shape`] otherwise.
pub fn decode<T: Versioned>(value: &[u8]) -> Result<T, RecordError> {
    decode_to(value, T::VERSION)
}

/// Reads a record as a build does whose newest version is `newest`; see [`Versions::reading`].
///
/// # Errors
/// As [`decode`].
pub fn decode_to<T: Versioned>(value: &[u8], newest: u16) -> Result<T, RecordError> {
    match serde_json::from_slice::<T>(value) {
        Ok(record) if newest >= T::VERSION => Ok(record),
        Ok(_) => Err(RecordError::Version { found: T::VERSION.into() }),
        // Apart, since it is rare: the version decides how the rest is to be read.
        Err(error) => decode_other(value, &error, newest),
    }
}

#[cold]
fn decode_other<T: Versioned>(
    value: &[u8],
    error: &serde_json::Error,
    newest: u16,
) -> Result<T, RecordError> {
    let Some(found) = version::of(value) else { return Err(RecordError::Shape(error.to_string())) };
    let own = u64::from(T::VERSION);
    if found == own {
        return Err(fault(value, error));
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(value) else {
        return Err(RecordError::Version { found });
    };
    if found > own && found <= u64::from(newest) {
        fields.insert("v".into(), own.into());
    } else if newest < T::VERSION || !version::upgrade(T::STEPS, found, &mut fields) {
        return Err(RecordError::Version { found });
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| fault(value, &error))
}

/// Distinguishes an addition of a later build from a malformed record.
fn fault(value: &[u8], error: &serde_json::Error) -> RecordError {
    let text = error.to_string();
    // As serde's derived readers say it. An enum's new variant and a configuration's new setting are read so.
    if ["unknown variant `", "unknown field `"].iter().any(|known| text.starts_with(known)) {
        return RecordError::Unknown(text);
    }
    #[derive(serde::Deserialize)]
    struct Of {
        conversation: String,
    }
    let channel = serde_json::from_slice::<Of>(value).ok();
    let channel = channel.as_ref().and_then(|of| of.conversation.split('/').nth(1));
    match channel.filter(|channel| !channel.is_empty() && channel.parse::<ChannelKind>().is_err()) {
        Some(channel) => RecordError::Unknown(format!("channel {channel:?}")),
        None => RecordError::Shape(text),
    }
}

/// Version field of a record: reads and writes `N`, refuses others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct V<const N: u16 = 1>;

impl<const N: u16> Serialize for V<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(N)
    }
}

impl<'de, const N: u16> serde::Deserialize<'de> for V<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            v if v == u64::from(N) => Ok(Self),
            v => Err(serde::de::Error::custom(format!("version {v} is not known"))),
        }
    }
}

impl<const N: u16> schemars::JsonSchema for V<N> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "V".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": N, "description": "version of the record" })
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
    fn addition_of_a_later_build_differs_from_a_malformed_record() {
        let turn = |event: &str| format!(r#"{{"v":1,"tenant":"acme","at":1,"event":{event}}}"#);
        let read = |event: &str| decode::<EventRecord>(turn(event).as_bytes()).unwrap_err();
        assert!(matches!(read(r#"{"wished_for":{"by":"a later build"}}"#), RecordError::Unknown(_)));
        assert!(matches!(read(r#"{"forgotten":{}}"#), RecordError::Shape(_)));
        let of = |conversation: &str| {
            let text = format!(r#"{{"v":1,"conversation":"{conversation}","at":1,"event":"leave"}}"#);
            decode::<super::inbound::InboundRecord>(text.as_bytes()).map(drop)
        };
        let contact = "0".repeat(32);
        assert_eq!(of(&format!("acme/whatsapp/1/{contact}")), Ok(()));
        assert!(of(&format!("acme/pigeon/1/{contact}")).unwrap_err().is_newer(1));
        assert!(!of("acme/whatsapp/1/nobody").unwrap_err().is_newer(1));
        assert!(!of("nothing").unwrap_err().is_newer(1));
    }

    #[test]
    fn a_build_reads_up_to_its_newest_version() {
        let text = |v: u64| format!(r#"{{"v":{v},"tenant":"acme","at":1,"event":{{"audited":1}}}}"#);
        let of = |v, newest| {
            let error = decode_to::<EventRecord>(text(v).as_bytes(), newest).unwrap_err();
            (error.is_newer(newest), matches!(error, RecordError::Version { .. }))
        };
        // It has no good event, so what is read is refused for its form.
        assert_eq!([of(1, 1), of(2, 2), of(2, 3)], [(false, false); 3]);
        assert_eq!([of(2, 1), of(3, 2)], [(true, true); 2]);
        assert_eq!([of(0, 1), of(0, 2)], [(false, true); 2]);
    }

    #[test]
    fn a_foreign_version_is_named_whatever_else_is_wrong() {
        let error = decode::<EventRecord>(br#"{"v":9,"something":"else"}"#).unwrap_err();
        assert_eq!(error, RecordError::Version { found: 9 });
        assert!(matches!(decode::<EventRecord>(b"nonsense"), Err(RecordError::Shape(_))));
    }
}
