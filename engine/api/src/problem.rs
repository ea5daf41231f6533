//! A refusal as RFC 9457 writes it: how every fault of the admin API is answered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Kind of an operation's failure, for a caller that has to decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Something that was named does not exist.
    NotFound,
    /// The present state does not permit it.
    Conflict,
    /// The request makes no sense.
    Invalid,
    /// The caller may not.
    Denied,
    /// The same may work later.
    Unavailable,
    /// A fault of the engine or of what it stores.
    Internal,
}

impl ErrorKind {
    /// The status that says so.
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

    /// The kind as it is written.
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

/// Problem details, as RFC 9457 writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The status, once more.
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// The fault, and what to do about it.
    pub detail: String,
    /// The fault, for programs: `malformed` where the request has not the form that is described, otherwise what
    /// the operation refused, such as `unknown_tenant`.
    #[serde(default)]
    pub code: String,
}
