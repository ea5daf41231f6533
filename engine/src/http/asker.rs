//! Who asks the admin API, as the audit log has it: what the guard found, and what the request says of itself.
//!
//! | header | what it says |
//! |---|---|
//! | `Heddle-Actor` | the name of the person or program that asks; whoever has the token answers for it |
//! | `Heddle-Reason` | why, in a line |
//!
//! Both are optional, UTF-8, and hold no phone number ([`Note`]).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use heddle_schemas::audit::{InvalidNote, Means, Note, Who};

use super::Shared;
use super::problem::Problem;
use crate::administration::{Administration, By};

/// The header with the name.
pub const ACTOR: &str = "heddle-actor";
/// The header with the reason.
pub const REASON: &str = "heddle-reason";

/// What the guard knows of who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct LetIn {
    pub(super) means: Means,
    pub(super) address: IpAddr,
}

/// The operations, in the name of who asks.
pub(super) struct Asked(pub(super) Administration);

impl FromRequestParts<Arc<Shared>> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let LetIn { means, address } = *parts.extensions.get::<LetIn>().ok_or_else(|| {
            // Only a route that is not guarded comes here, and there is none.
            Problem::new(StatusCode::FORBIDDEN, "nobody has let this request in")
        })?;
        let name = note(parts, ACTOR)?;
        let who = Who { name, means, address: Some(address.to_canonical()) };
        Ok(Self(shared.administration.by(By { who, why: note(parts, REASON)? })))
    }
}

fn note(parts: &Parts, header: &str) -> Result<Option<Note>, Problem> {
    let Some(value) = parts.headers.get(header) else { return Ok(None) };
    let wrong = |why: String| Problem::new(StatusCode::BAD_REQUEST, format!("the header {header}: {why}"));
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| wrong("it is no UTF-8".into()))?;
    // A client that sets it always and has nothing to say means nothing.
    let text = text.trim();
    (!text.is_empty())
        .then(|| text.parse().map_err(|error: InvalidNote| wrong(error.to_string())))
        .transpose()
}
