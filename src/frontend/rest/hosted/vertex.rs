//! Vertex AI: two paths that the platform chooses, for health and for predictions.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;

use super::{default_model, invoke};
use crate::frontend::Frontend;
use crate::frontend::rest::{models, respond};

/// Answers those two, whatever else stands at their paths, and passes on all others.
pub(in crate::frontend::rest) async fn by_path(
    State(frontend): State<Frontend>,
    request: Request,
    next: Next,
) -> Response {
    let (path, method) = (request.uri().path(), request.method());
    let is_read = method == Method::GET || method == Method::HEAD;
    if frontend.dialects.is_vertex_prediction(path) {
        match *method == Method::POST {
            true => invoke(&frontend, ROUTE, default_model(&frontend), request).await,
            false => respond::allowing(respond::not_allowed(&request, "POST"), "POST"),
        }
    } else if path == frontend.dialects.vertex_health_route {
        match is_read {
            true => models::ready(State(frontend)).await,
            false => respond::allowing(respond::not_allowed(&request, "GET"), "GET,HEAD"),
        }
    } else {
        next.run(request).await
    }
}

/// The platform's own path is not one of a few.
const ROUTE: &str = "POST {AIP_PREDICT_ROUTE}";
