//! The REST form of the Open Inference Protocol v2 with Triton's extensions.
//!
//! `infer` is the hot path: `body` and `decode` before the pipeline, `encode` after it. `v1` has other words for the same
//! calls, `events` an envelope around them, `hosted` the paths of platforms. `models` tells about models, `openapi` about calls,
//! `control` changes what is loaded and logged, `trace_settings` what is recorded, `shared_memory` which regions there are,
//! `control_body` reads what these are told. Every body, also of an error, is
//! JSON with an `error` string.

mod body;
mod control;
mod control_body;
mod decode;
mod encode;
mod events;
mod hosted;
mod in_path;
mod infer;
mod json_elements;
mod json_nested;
pub mod json_request;
mod json_values;
mod layers;
mod models;
mod nonfinite;
mod openapi;
mod respond;
mod shared_memory;
mod trace_settings;
mod v1;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{self, any};

pub use in_path::InPath;
pub use models::Selector;
#[cfg(test)]
pub(crate) use openapi::tests as openapi_tests;
pub use openapi::{Served, routes as documents};
pub use respond::{error, get, json, post, with_type};

use super::Frontend;
use super::browsers::own_pages_only;
use super::config::HttpConfig;
use super::listener::Routes;

/// Inference, metadata, health and the repository and logging extensions.
pub fn routes(frontend: Frontend, config: &HttpConfig) -> Routes {
    Routes::from(router(frontend.clone(), config)).with_shortcut(infer::Inference(frontend))
}

fn router(frontend: Frontend, config: &HttpConfig) -> Router {
    let control = control().route_layer(from_fn_with_state(frontend.clone(), own_pages_only));
    let mut router = inference().merge(models()).merge(control).merge(unserved());
    if frontend.dialects.v1 {
        router = router.merge(v1::routes());
    }
    if frontend.dialects.sagemaker {
        router = router.merge(hosted::sagemaker::routes(&frontend));
    }
    if config.docs {
        router = router.merge(documents(&frontend, Served::over_rest(&frontend.dialects)));
    }
    let router = fallbacks(router);
    let router = match frontend.dialects.vertex {
        true => router.layer(from_fn_with_state(frontend.clone(), hosted::vertex::by_path)),
        false => router,
    };
    router.with_state(frontend)
}

/// What the admin listener shares with this one: health, metadata and control; and what it has besides for people.
pub fn admin_router() -> Router<Frontend> {
    let layers = Router::new()
        .route("/v2/models/{model}/layers", get(layers::layers))
        .route("/v2/models/{model}/versions/{version}/layers", get(layers::layers));
    models().merge(control()).merge(layers)
}

pub fn inference() -> Router<Frontend> {
    Router::new()
        .route("/v2/models/{model}/infer", post(infer::newest))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer::version))
}

/// Unknown paths and wrong verbs, with the bodies that clients parse.
pub fn fallbacks<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.fallback(respond::unknown_path).method_not_allowed_fallback(respond::wrong_method)
}

fn models() -> Router<Frontend> {
    Router::new()
        .route("/v2", get(models::server))
        .route("/v2/", get(models::server))
        .route("/v2/health/live", get(models::live))
        .route("/v2/health/ready", get(models::ready))
        .route("/v2/health/startup", get(models::startup))
        .route("/v2/models", get(models::list))
        // Stands before any model that is named "stats".
        .route("/v2/models/stats", get(models::all_statistics))
        .route("/v2/models/{model}", get(models::metadata))
        .route("/v2/models/{model}/ready", get(models::model_ready))
        .route("/v2/models/{model}/config", get(models::config))
        .route("/v2/models/{model}/stats", get(models::statistics))
        .route("/v2/models/{model}/versions/{version}", get(models::metadata))
        .route("/v2/models/{model}/versions/{version}/ready", get(models::model_ready))
        .route("/v2/models/{model}/versions/{version}/config", get(models::config))
        .route("/v2/models/{model}/versions/{version}/stats", get(models::statistics))
}

fn control() -> Router<Frontend> {
    let logging = routing::get(control::log_settings).post(control::set_log_settings);
    let logging = logging.fallback(respond::neither_get_nor_post);
    let traces = routing::get(trace_settings::of_all).post(trace_settings::set_for_all);
    let traces_of_model = routing::get(trace_settings::of_model).post(trace_settings::set_for_model);
    Router::new()
        .route("/v2/repository/index", post(control::index))
        .route("/v2/repository/models/{model}/load", post(control::load))
        .route("/v2/repository/models/{model}/unload", post(control::unload))
        .route("/v2/repository/{repository}/index", post(control::index))
        .route("/v2/repository/{repository}/models/{model}/load", post(control::load_from))
        .route("/v2/repository/{repository}/models/{model}/unload", post(control::unload_from))
        .route("/v2/logging", logging)
        .route("/v2/trace/setting", traces.fallback(respond::neither_get_nor_post))
        .route("/v2/models/{model}/trace/setting", traces_of_model.fallback(respond::neither_get_nor_post))
        .route("/v2/systemsharedmemory/status", get(shared_memory::status))
        .route("/v2/systemsharedmemory/region/{region}/status", get(shared_memory::status_of_one))
        .route("/v2/systemsharedmemory/region/{region}/register", post(shared_memory::register))
        .route("/v2/systemsharedmemory/unregister", post(shared_memory::unregister))
        .route("/v2/systemsharedmemory/region/{region}/unregister", post(shared_memory::unregister_one))
}

/// Calls of extensions that are not served, so that a client learns which one it is.
fn unserved() -> Router<Frontend> {
    Router::new()
        .route("/v2/models/{model}/generate", any(respond::no_generate))
        .route("/v2/models/{model}/generate_stream", any(respond::no_generate))
        .route("/v2/models/{model}/versions/{version}/generate", any(respond::no_generate))
        .route("/v2/models/{model}/versions/{version}/generate_stream", any(respond::no_generate))
        .route("/v2/cudasharedmemory/status", any(respond::no_cuda_memory))
        .route("/v2/cudasharedmemory/region/{region}/status", any(respond::no_cuda_memory))
        .route("/v2/cudasharedmemory/region/{region}/register", any(respond::no_cuda_memory))
        // Load generators unregister before they start, with or without a device.
        .route("/v2/cudasharedmemory/unregister", post(respond::empty))
        .route("/v2/cudasharedmemory/region/{region}/unregister", post(respond::empty))
}
