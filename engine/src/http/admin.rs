//! Admin API, `/v1`: each declared operation at its method and path. Refusals are problem details (RFC 9457).
//!
//! Every request takes the same steps: the guard authenticates its principal, [`Caller`] is read from its headers,
//! path, query and body are decoded into the operation's input, and [`Operations::call`] does the rest.
//!
//! [`Operations::call`]: crate::operations::Operations::call

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method as HttpMethod, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use futures::{StreamExt as _, TryStreamExt as _};
use heddle_api::content::{Body as _, BoxError, Output as _};
use heddle_api::{Input, Method, Visit};

use super::problem::Refusal;
use super::{Shared, guard, openapi};
use crate::operations::{Caller, Handler};

/// Returns the guarded routes.
pub(super) fn routes(shared: Arc<Shared>) -> Router<Arc<Shared>> {
    let mut routes = Routes(Router::new().route("/openapi.json", get(openapi::document)));
    heddle_api::each(&mut routes);
    routes
        .0
        .fallback(async || {
            Refusal::new(StatusCode::NOT_FOUND, "unknown_path", "no such path; see /v1/openapi.json")
        })
        .method_not_allowed_fallback(async |method: HttpMethod| {
            let detail = format!("{method} is not supported here; see /v1/openapi.json");
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "unknown_method", detail)
        })
        .layer(axum::middleware::from_fn_with_state(shared, guard::guard))
}

/// Router that each operation is added to.
struct Routes(Router<Arc<Shared>>);

impl<O: Handler> Visit<O> for Routes {
    fn visit(&mut self) {
        let filter = match O::METHOD {
            Method::Get => MethodFilter::GET,
            Method::Put => MethodFilter::PUT,
            Method::Post => MethodFilter::POST,
            Method::Delete => MethodFilter::DELETE,
        };
        let path = O::PATH.strip_prefix("/v1").expect("every operation is under /v1");
        let router = std::mem::take(&mut self.0);
        self.0 = router.route(path, on(filter, serve::<O>));
    }
}

/// Serves a request for an operation.
async fn serve<O: Handler>(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let Path(path) = Path::<O::Path>::from_request_parts(&mut parts, &()).await?;
    let Query(query) = Query::<O::Query>::try_from_uri(&parts.uri)?;
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let pieces = body.into_data_stream().map_err(BoxError::from).boxed();
    let body = O::Body::read(content_type, pieces).await?;
    let output = shared.operations.call(&caller, Input::<O> { path, query, body }).await?;
    let status = StatusCode::from_u16(O::STATUS).unwrap_or_default();
    Ok(match output.write() {
        // A failing stream closes the connection.
        Some((content_type, pieces)) => {
            (status, [(CONTENT_TYPE, content_type)], Body::from_stream(pieces)).into_response()
        }
        None => status.into_response(),
    })
}
