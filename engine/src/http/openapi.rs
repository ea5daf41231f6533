//! `/v1/openapi.json`: the description of the admin API, derived from the declared operations.

use axum::Json;
pub use heddle_api::openapi::describe;
use serde_json::Value;

/// Answers with the description.
pub(super) async fn document() -> Json<Value> {
    Json(describe())
}
