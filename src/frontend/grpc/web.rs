//! gRPC-Web: calls of browsers, which cannot read trailers, in binary or as Base64. The library unwraps a call and wraps
//! its answer; in between it is a call as any other.

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service};

use crate::frontend::is_grpc_web;

/// The same calls, and those of browsers.
pub(super) fn with_web(calls: Router) -> Router {
    let unwrapped = GrpcWebLayer::new().layer(calls.clone());
    Router::new().fallback(any(move |request: Request| {
        let (mut calls, mut unwrapped) = (calls.clone(), unwrapped.clone());
        async move {
            if !is_grpc_web(request.headers()) {
                return calls.call(request).await;
            }
            unwrapped.call(request).await.map(|answer: http::Response<_>| answer.map(axum::body::Body::new))
        }
    }))
}
