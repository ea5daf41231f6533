//! Refusals of the admin API, in the form of RFC 9457.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use heddle_api::content::Malformed;
use heddle_api::problem::{MEDIA_TYPE, Problem};

use crate::operations::OperationError;

/// Problem as an HTTP answer.
#[derive(Debug)]
pub struct Refusal(pub Problem);

impl Refusal {
    /// Creates a refusal with this status, code and detail.
    #[must_use]
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or_default().to_owned();
        Self(Problem { status: status.as_u16(), title, detail: detail.into(), code: code.to_owned() })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        (status, [(CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
    }
}

impl From<OperationError> for Refusal {
    fn from(error: OperationError) -> Self {
        let status = match error.code {
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            "too_slow" => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        if status.is_server_error() {
            tracing::error!(%error, code = error.code, "an operation of the admin API failed");
        }
        Self::new(status, error.code, error.to_string())
    }
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(status, "malformed", error.detail)
    }
}

macro_rules! from_rejection {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Refusal {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), "malformed", rejection.body_text())
            }
        }
    )*};
}
from_rejection!(PathRejection, QueryRejection);
