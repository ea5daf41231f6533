//! Problem details (RFC 9457): the answer to every fault of the admin API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Kind of an operation's failure, from which a caller decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Something that the request names does not exist.
    NotFound,
    /// The current state does not permit it.
    Conflict,
    /// The request is not valid.
    Invalid,
    /// The caller lacks the permission.
    Denied,
    /// Temporary: a retry may succeed.
    Unavailable,
    /// Fault of the engine or of its stored data.
    Internal,
}

impl ErrorKind {
    /// Returns the HTTP status of the kind.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Invalid => 422,
            Self::Denied => 403,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// Returns the name of the kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// Problem details as defined by RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The HTTP status, repeated.
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// The fault, and how to mend it.
    pub detail: String,
    /// Machine-readable code of the fault: `malformed` where the request does not match its description, otherwise the
    /// operation's own, such as `unknown_tenant`.
    #[serde(default)]
    pub code: String,
}
