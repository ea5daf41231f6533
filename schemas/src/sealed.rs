//! Ciphertext as it is stored and sent, and secrets that never print.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize as _;

/// Bytes that only a [`crate::ports::keys::Cipher`] opens.
///
/// Layout: one byte version (1), four bytes key number (big-endian), twelve bytes nonce, then the ciphertext of
/// AES-256-GCM with its sixteen bytes of tag. The key number identifies the key of a scope that sealed it: the version
/// of the key-encryption key, or the day of a log key.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Bytes);

impl Sealed {
    /// The version that this build writes.
    pub const VERSION: u8 = 1;
    /// Bytes before the ciphertext.
    pub const HEADER: usize = 1 + 4 + 12;

    /// Takes bytes that a cipher made.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, header included.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, header included, to be kept.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Returns the number of the key of its scope that sealed it; `None` when the bytes are too short or of another
    /// version.
    #[must_use]
    pub fn key_number(&self) -> Option<u32> {
        if self.0.len() < Self::HEADER || self.0[0] != Self::VERSION {
            return None;
        }
        Some(u32::from_be_bytes([self.0[1], self.0[2], self.0[3], self.0[4]]))
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromBase64)
    }
}

/// Reads from the text where it stands.
struct FromBase64;

impl Visitor<'_> for FromBase64 {
    type Value = Sealed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Sealed, E> {
        let bytes = STANDARD.decode(text).map_err(E::custom)?;
        Ok(Sealed(bytes.into()))
    }
}

impl JsonSchema for Sealed {
    fn schema_name() -> Cow<'static, str> {
        "Sealed".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "contentEncoding": "base64",
            "description": "AES-256-GCM ciphertext under a key of the engine"
        })
    }
}

/// Text that stands for a secret where it is shown.
const REDACTED: &str = "[redacted]";

/// A token, a key or a password. Prints and serializes as `[redacted]`; its memory is overwritten when it is dropped.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for the call that needs it, never for a log line.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether it is the text that stands for a secret in a shown configuration.
    #[must_use]
    pub fn is_redacted(&self) -> bool {
        self.0 == REDACTED
    }

    /// Returns whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "[none]" } else { REDACTED })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { REDACTED })
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description":
            "the secret itself; [redacted] keeps the stored one; in a file also env:NAME or file:PATH" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("EAAG-token");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[redacted]\"");
    }

    #[test]
    fn bytes_too_short_for_a_header_name_no_key() {
        assert_eq!(Sealed::from_bytes(vec![1, 0, 0]).key_number(), None);
    }
}
