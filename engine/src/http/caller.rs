//! Caller of a request to the admin API: the principal that the guard authenticated, and the request's own headers.
//!
//! | header | content |
//! |---|---|
//! | `Heddle-Actor` | the name of the calling person or program; the holder of the token is responsible for it |
//! | `Heddle-Reason` | the reason, in one line |
//!
//! Both are optional, at most 256 characters, UTF-8 or Latin-1, and hold no phone number ([`Note`]).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use heddle_schemas::audit::{InvalidNote, Means, Note, Who};

use super::Shared;
use super::problem::Refusal;
use crate::operations::{Caller, Rights};

/// Principal that the guard has authenticated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Principal {
    pub(super) means: Means,
    pub(super) address: IpAddr,
}

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Shared>) -> Result<Self, Refusal> {
        let Principal { means, address } = *parts.extensions.get::<Principal>().ok_or_else(|| {
            // Unreachable: every route is guarded.
            Refusal::new(StatusCode::FORBIDDEN, "unauthenticated", "unauthenticated request")
        })?;
        let name = note(&parts.headers, heddle_api::ACTOR)?;
        let who = Who { name, means, address: Some(address.to_canonical()) };
        // The token and this machine belong to the operator.
        Ok(Self { who, why: note(&parts.headers, heddle_api::REASON)?, rights: Rights::Operator })
    }
}

fn note(headers: &HeaderMap, header: &str) -> Result<Option<Note>, Refusal> {
    let Some(value) = headers.get(header) else { return Ok(None) };
    // Some programs write headers in Latin-1, where each byte is a character.
    let text = match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.as_bytes().iter().copied().map(char::from).collect::<String>()),
    };
    match text.parse() {
        Ok(note) => Ok(Some(note)),
        // An empty header counts as absent.
        Err(InvalidNote::Empty) => Ok(None),
        Err(why) => {
            let detail = format!("the header {header}: {why}");
            Err(Refusal::new(StatusCode::BAD_REQUEST, "malformed", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<String>, u16> {
        let value = HeaderValue::from_bytes(bytes).unwrap();
        let headers = [(axum::http::HeaderName::from_static("heddle-actor"), value)].into_iter().collect();
        let note = note(&headers, "heddle-actor").map_err(|refusal| refusal.0.status)?;
        Ok(note.map(|note| note.as_str().to_owned()))
    }

    #[test]
    fn a_header_is_a_note_of_256_characters_or_nothing() {
        assert_eq!(read(b"Zo\xc3\xab"), Ok(Some("Zo\u{eb}".into())));
        assert_eq!(read(b"Zo\xeb"), Ok(Some("Zo\u{eb}".into())), "Latin-1");
        assert_eq!(read(b""), Ok(None));
        assert_eq!(read(b"  "), Ok(None));
        assert_eq!(read(&[b'a'; 256]), Ok(Some("a".repeat(256))));
        assert_eq!(read(&[b'a'; 257]), Err(400));
        assert_eq!(read(b"+4915112345678"), Err(400));
    }
}
