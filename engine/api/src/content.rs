//! Bodies and answers: encoding, decoding and description of each.
//!
//! A type that implements serde's traits is sent as JSON. [`Nothing`] is no content, [`Upload`] and [`ListFile`] a
//! file's bytes, [`Document`], [`Lines`] and [`Csv`] are answers that are streamed while they are read from the store.

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt as _};
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::strict::Strict;

/// Maximum size of a JSON body, in bytes: an escaped document of 4 MiB.
pub const MAX_BODY: usize = 16 << 20;
/// Media type of JSON.
pub const JSON: &str = "application/json";

/// Boxed error of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Stream of a body's bytes, incoming or outgoing.
pub type Pieces = BoxStream<'static, Result<Bytes, BoxError>>;

/// Error of a request body that is refused.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Malformed {
    /// HTTP status of the refusal: 400, 408, 413, 415 or 422.
    pub status: u16,
    /// The fault, and how to mend it.
    pub detail: String,
}

impl Malformed {
    /// Creates a refusal with this status.
    #[must_use]
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

/// Collects a stream of at most `limit` bytes.
///
/// # Errors
/// 413 for a longer stream, 400 when it broke off.
pub async fn collect(mut pieces: Pieces, limit: usize) -> Result<Bytes, Malformed> {
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Malformed::new(400, format!("the body broke off: {error}")))?;
        if all.len() + piece.len() > limit {
            return Err(Malformed::new(413, format!("the body is over {limit} bytes")));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

/// Returns a stream of these bytes as one piece.
#[must_use]
pub fn whole(bytes: Bytes) -> Pieces {
    stream::once(async { Ok(bytes) }).boxed()
}

/// Body of a request.
pub trait Body: Sized + Send + 'static {
    /// True where a client sends the body piece by piece: it may be larger than memory.
    const IS_STREAMED: bool = false;

    /// Returns the `requestBody` of its OpenAPI description.
    fn describe(schemas: &mut SchemaGenerator) -> Option<Value>;

    /// Decodes the body of a request.
    ///
    /// # Errors
    /// [`Malformed`].
    fn read(
        content_type: Option<&str>,
        pieces: Pieces,
    ) -> impl Future<Output = Result<Self, Malformed>> + Send;

    /// Encodes the body for a request: its media type, if any, and its bytes.
    fn write(self) -> Option<(Option<String>, Pieces)>;
}

/// Body of an answer.
pub trait Output: Sized + Send + 'static {
    /// Returns the media type and schema of its OpenAPI description.
    fn describe(schemas: &mut SchemaGenerator) -> Option<(&'static str, Value)>;

    /// Decodes the body of an answer.
    ///
    /// # Errors
    /// When the answer does not match its description, or broke off.
    fn read(pieces: Pieces) -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// Encodes the body for an answer: its media type and its bytes.
    fn write(self) -> Option<(&'static str, Pieces)>;
}

/// Empty body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nothing;

impl Body for Nothing {
    fn describe(_: &mut SchemaGenerator) -> Option<Value> {
        None
    }

    async fn read(_: Option<&str>, _: Pieces) -> Result<Self, Malformed> {
        Ok(Self)
    }

    fn write(self) -> Option<(Option<String>, Pieces)> {
        None
    }
}

impl Output for Nothing {
    fn describe(_: &mut SchemaGenerator) -> Option<(&'static str, Value)> {
        None
    }

    async fn read(_: Pieces) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn write(self) -> Option<(&'static str, Pieces)> {
        None
    }
}

fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == JSON || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

impl<T: Serialize + DeserializeOwned + JsonSchema + Send + 'static> Body for T {
    fn describe(schemas: &mut SchemaGenerator) -> Option<Value> {
        let schema = schemas.subschema_for::<T>();
        Some(json!({ "required": true, "content": { JSON: { "schema": schema } } }))
    }

    async fn read(content_type: Option<&str>, pieces: Pieces) -> Result<Self, Malformed> {
        if !content_type.is_some_and(is_json) {
            return Err(Malformed::new(415, "the body requires Content-Type: application/json"));
        }
        let bytes = collect(pieces, MAX_BODY).await?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Malformed::new(400, format!("the body is not valid JSON: {error}")))?;
        serde_path_to_error::deserialize(Strict(value))
            .map_err(|error| Malformed::new(422, format!("the body does not match its schema: {error}")))
    }

    fn write(self) -> Option<(Option<String>, Pieces)> {
        let bytes = serde_json::to_vec(&self).expect("a declared type always serializes to JSON");
        Some((Some(JSON.to_owned()), whole(bytes.into())))
    }
}

impl<T: Serialize + DeserializeOwned + JsonSchema + Send + 'static> Output for T {
    fn describe(schemas: &mut SchemaGenerator) -> Option<(&'static str, Value)> {
        Some((JSON, schemas.subschema_for::<T>().into()))
    }

    async fn read(pieces: Pieces) -> Result<Self, BoxError> {
        let bytes = collect(pieces, usize::MAX).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn write(self) -> Option<(&'static str, Pieces)> {
        let bytes = serde_json::to_vec(&self).expect("a declared type always serializes to JSON");
        Some((JSON, whole(bytes.into())))
    }
}

/// Answer of a list operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    /// The items, in order.
    pub items: Vec<T>,
}

macro_rules! uploaded {
    ($(#[$doc:meta])* $name:ident, [$($media_type:literal),+ $(,)?]) => {
        $(#[$doc])*
        pub struct $name {
            /// The `Content-Type`.
            pub content_type: Option<String>,
            /// The file's bytes, read when there is capacity for them.
            pub pieces: Pieces,
        }

        impl Body for $name {
            const IS_STREAMED: bool = true;

            fn describe(_: &mut SchemaGenerator) -> Option<Value> {
                let types = [$($media_type),+];
                let content: serde_json::Map<_, _> =
                    types.map(|kind| (kind.to_owned(), json!({}))).into_iter().collect();
                Some(json!({ "required": true, "content": content }))
            }

            async fn read(content_type: Option<&str>, pieces: Pieces) -> Result<Self, Malformed> {
                Ok(Self { content_type: content_type.map(ToOwned::to_owned), pieces })
            }

            fn write(self) -> Option<(Option<String>, Pieces)> {
                Some((self.content_type, self.pieces))
            }
        }
    };
}

uploaded! {
    /// Uploaded document: the body holds its bytes, the `Content-Type` its format.
    Upload, [
        "text/plain",
        "text/markdown",
        "text/html",
        "application/pdf",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/octet-stream",
    ]
}

uploaded! {
    /// Uploaded list: the body holds its bytes, which show their format.
    ListFile, [
        "text/csv",
        "text/plain",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/octet-stream",
    ]
}

macro_rules! streamed {
    ($(#[$doc:meta])* $name:ident, $media_type:literal, $schema:expr) => {
        $(#[$doc])*
        pub struct $name(pub Pieces);

        impl Output for $name {
            fn describe(_: &mut SchemaGenerator) -> Option<(&'static str, Value)> {
                Some(($media_type, $schema))
            }

            async fn read(pieces: Pieces) -> Result<Self, BoxError> {
                Ok(Self(pieces))
            }

            fn write(self) -> Option<(&'static str, Pieces)> {
                Some(($media_type, self.0))
            }
        }
    };
}

streamed! {
    /// Streamed JSON document. An interrupted one ends without its last brace.
    Document, "application/json", json!({ "type": "object" })
}

streamed! {
    /// Streamed lines of JSON (<https://jsonlines.org>). An interruption closes the connection.
    Lines, "application/x-ndjson", json!({ "type": "string" })
}

streamed! {
    /// Streamed CSV file (RFC 4180) with a header. An interruption closes the connection.
    Csv, "text/csv", json!({ "type": "string" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
    }

    async fn read(content_type: Option<&str>, text: &'static str) -> Result<Sample, u16> {
        let read = <Sample as Body>::read(content_type, whole(Bytes::from_static(text.as_bytes())));
        read.await.map_err(|malformed| malformed.status)
    }

    #[tokio::test]
    async fn a_body_is_json_of_the_described_form_or_refused() {
        let good = read(Some("application/json; charset=utf-8"), "{\"name\":\"Ann\"}").await;
        assert_eq!(good.unwrap().name, "Ann");
        for (content_type, text, status) in [
            (None, "{\"name\":\"Ann\"}", 415),
            (Some("text/plain"), "{\"name\":\"Ann\"}", 415),
            (Some(JSON), "{\"name\":", 400),
            (Some(JSON), "{\"name\":\"Ann\"} 7", 400),
            (Some(JSON), "{\"nmae\":\"Ann\"}", 422),
        ] {
            assert_eq!(read(content_type, text).await.unwrap_err(), status, "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_larger_than_the_limit_is_not_collected() {
        let pieces =
            || stream::iter([Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"def"))]).boxed();
        assert_eq!(collect(pieces(), 6).await.unwrap(), "abcdef");
        assert_eq!(collect(pieces(), 5).await.unwrap_err().status, 413);
    }
}
