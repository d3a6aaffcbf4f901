//! The gRPC form of the Open Inference Protocol v2 with Triton's extensions, health and reflection; and beside it
//! TensorFlow Serving's services (`serving`).
//!
//! `infer` and `stream` are the hot path: `edge`, `incoming`, `inflating` and `bounded` take the message in, `convert` and `contents`
//! stand before the pipeline, `encode` after it. `models` tells about models, `repository`, `loading`,
//! `logging`, `trace_settings` and `shared_memory` change what is loaded, logged, recorded and registered. Codes come from `status` alone; `strangers` answers what is no call.

mod arrival;
mod bounded;
mod contents;
mod convert;
mod edge;
mod encode;
mod health;
mod incoming;
mod infer;
mod inflating;
mod loading;
mod logging;
mod mlserver;
mod models;
mod repository;
mod service;
mod serving;
mod shared_memory;
mod status;
mod strangers;
mod stream;
mod trace_settings;
mod web;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes as Services;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use self::edge::Edge;
use self::health::Probes;
use self::service::Calls;
use super::Frontend;
use super::listener::Routes;
use crate::proto::{DESCRIPTOR_SET, SERVING_DESCRIPTOR_SET};

/// All services, over gRPC-Web too where that is wanted. Streams and watches would go on for ever: the listener that serves them ends them when it closes.
pub fn routes(frontend: Frontend, with_web: bool) -> Routes {
    let closing = CancellationToken::new();
    let frontend = Arc::new(frontend);
    let inference = Edge::new(Calls { frontend: Arc::clone(&frontend), closing: closing.clone() });
    let serving = serving::router(Arc::clone(&frontend));
    let probes = Probes { frontend, closing: closing.clone() };
    let probes = HealthServer::new(probes).max_decoding_message_size(NAME_BYTES_MAX);
    let reflection = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(SERVING_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let valid = "the compiled descriptors are valid";
    let services = Services::new(inference.clone())
        .add_service(probes)
        .add_service(reflection().build_v1().expect(valid).max_decoding_message_size(NAME_BYTES_MAX))
        .add_service(reflection().build_v1alpha().expect(valid).max_decoding_message_size(NAME_BYTES_MAX));
    let router = services.prepare().into_axum_router();
    let router = router.merge(mlserver::router(inference.clone())).merge(serving).fallback(strangers::unknown_call);
    let router = if with_web { web::with_web(router) } else { router };
    Routes::until(closing, router).with_shortcut(inference)
}

/// Health and reflection are asked for a name: what they are sent needs no budget.
const NAME_BYTES_MAX: usize = 4 << 10;
