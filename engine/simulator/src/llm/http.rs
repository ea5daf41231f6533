//! HTTP interface of a provider of language models.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};

use super::account::{Refused, Shared, UnderWay};
use super::call::{Call, Request, answer};
use super::fault::Fate;
use super::limits::{MINUTE, Over};

/// Answers a call, after its latency.
pub(super) async fn complete(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = key.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let Ok(request) = serde_json::from_slice::<Request>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "invalid_request_error", "The body is no valid request");
    };
    match shared.take(key, request) {
        Ok((call, under_way)) => perform(call, under_way).await,
        Err(refused) => refuse(refused),
    }
}

fn refuse(refused: Refused) -> Response {
    match refused {
        Refused::UnknownKey => {
            refusal(StatusCode::UNAUTHORIZED, "invalid_api_key", "Incorrect API key provided")
        }
        Refused::Over(Over::Requests) => limited("Rate limit reached for requests per min (RPM)", MINUTE),
        Refused::Over(Over::Tokens) => limited("Rate limit reached for tokens per min (TPM)", MINUTE),
    }
}

async fn perform(call: Call, under_way: UnderWay) -> Response {
    if !call.latency.is_zero() {
        tokio::time::sleep(call.latency).await;
    }
    match call.fate {
        Fate::Answer => {
            let response = completion(&call);
            under_way.end(|account| account.answered += 1);
            (StatusCode::OK, [(CONTENT_TYPE, "application/json")], response.to_string()).into_response()
        }
        Fate::RateLimited => {
            let wait = under_way.shared.inner().faults.retry_after;
            under_way.end(|account| account.rate_limited += 1);
            limited("The engine is currently overloaded, please try again later", wait)
        }
        Fate::ServerError => {
            under_way.end(|account| account.server_errors += 1);
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "The server had an error")
        }
        Fate::Hang => {
            under_way.end(|account| account.hung += 1);
            broken(String::new())
        }
        Fate::Truncated => {
            under_way.end(|account| account.truncated += 1);
            let mut whole = completion(&call).to_string();
            whole.truncate(whole.len() / 2);
            broken(whole)
        }
    }
}

fn completion(call: &Call) -> Value {
    json!({
        "id": "chatcmpl-simulated",
        "object": "chat.completion",
        "created": 0,
        "model": call.model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": answer(&call.asked), "refusal": null },
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": call.answer_tokens,
            "total_tokens": call.prompt_tokens + call.answer_tokens,
        },
    })
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "message": message, "type": code, "param": null, "code": code } });
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn limited(message: &str, wait: Duration) -> Response {
    let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    response
}

/// Returns a truncated answer: the server closes the connection after these bytes.
fn broken(begun: String) -> Response {
    let promised = begun.len() + 200;
    let parts = [Ok(Bytes::from(begun)), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
    let headers = [(CONTENT_LENGTH, promised.to_string()), (CONTENT_TYPE, "application/json".to_owned())];
    (headers, Body::from_stream(stream::iter(parts))).into_response()
}
