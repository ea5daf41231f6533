//! What went wrong, in the form of RFC 9457: how every fault of the admin API is answered.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use heddle_actors::tenant::configuration::TenantsError;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::KnowledgeError;
use schemars::JsonSchema;
use serde::Serialize;

use crate::administration::AdministrationError;
use crate::dead_letters::DeadLettersError;

/// What went wrong, as RFC 9457 writes it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// The status, once more.
    #[serde(serialize_with = "number")]
    #[schemars(with = "u16")]
    pub status: StatusCode,
    /// The status in words.
    pub title: String,
    /// What is wrong, and what to do.
    pub detail: String,
}

fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// Of this status.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, title: status.canonical_reason().unwrap_or_default().into(), detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (self.status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl From<AdministrationError> for Problem {
    fn from(error: AdministrationError) -> Self {
        let status = match &error {
            AdministrationError::UnknownTenant(_)
            | AdministrationError::UnknownContact(_)
            | AdministrationError::UnknownErasure(..)
            | AdministrationError::NotDeleted(_)
            | AdministrationError::Tenants(TenantsError::UnknownAccount(_))
            | AdministrationError::Knowledge(KnowledgeError::Unknown { .. })
            | AdministrationError::DeadLetters(DeadLettersError::Unknown(_)) => StatusCode::NOT_FOUND,
            AdministrationError::Tenants(
                TenantsError::Faults(_) | TenantsError::Retention { .. } | TenantsError::Region { .. },
            )
            | AdministrationError::Knowledge(KnowledgeError::Refused { .. })
            | AdministrationError::Keys(KeysError::Master { .. })
            | AdministrationError::Entry(_)
            | AdministrationError::DeadLetters(DeadLettersError::Request(_)) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            AdministrationError::Tenants(TenantsError::Taken { .. }) | AdministrationError::Deleted(_) => {
                StatusCode::CONFLICT
            }
            other if other.is_transient() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::error!(%error, "an operation of the admin API failed");
        }
        Self::new(status, error.to_string())
    }
}

macro_rules! from_rejection {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), rejection.body_text())
            }
        }
    )*};
}
from_rejection!(JsonRejection, PathRejection, QueryRejection);
