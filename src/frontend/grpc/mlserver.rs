//! The model repository under the name of the service where clients of MLServer look for it: the same calls with the same
//! messages.

use std::convert::Infallible;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use http::Uri;
use tonic::body::Body;
use tower::Service;

use super::edge::Edge;

pub(super) fn router(inference: Edge) -> Router {
    let named = |router: Router<Edge>, (theirs, ours): (&str, &'static str)| {
        router.route(theirs, any(move |edge, request| renamed(edge, request, ours)))
    };
    CALLS.into_iter().fold(Router::new(), named).with_state(inference)
}

async fn renamed(State(mut inference): State<Edge>, mut request: Request, ours: &'static str) -> Response {
    *request.uri_mut() = Uri::from_static(ours);
    let answer: Result<_, Infallible> = inference.call(request.map(Body::new)).await;
    match answer {
        Ok(answer) => answer.map(axum::body::Body::new),
        Err(never) => match never {},
    }
}

const CALLS: [(&str, &str); 3] = [
    (
        "/inference.model_repository.ModelRepositoryService/RepositoryIndex",
        "/inference.GRPCInferenceService/RepositoryIndex",
    ),
    (
        "/inference.model_repository.ModelRepositoryService/RepositoryModelLoad",
        "/inference.GRPCInferenceService/RepositoryModelLoad",
    ),
    (
        "/inference.model_repository.ModelRepositoryService/RepositoryModelUnload",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
    ),
];
