//! What the server answers, as OpenAPI documents: one of a listener, at `/openapi.json`, and one of each model; and the page at
//! `/docs/` that shows them.
//!
//! `table` has a row for every call, and a test holds it to the routers. `schemas.json` and `components.json` have what rows
//! refer to; `tensors` makes a model's own schemas of its signature, `example` a body that it answers.

mod document;
mod example;
mod model;
mod operation;
mod page;
mod table;
mod tensors;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::response::Response;
use document::Documents;

use super::models::Selector;
use super::{InPath, get, respond};
use crate::access::Caller;
use crate::frontend::{DialectsConfig, Frontend, Refusal};
/// What a listener answers, as its settings have it.
#[derive(Clone, Debug)]
pub struct Served {
    pub(super) is_admin: bool,
    /// Whether models can be run through it.
    pub(super) infers: bool,
    v1: bool,
    sagemaker: bool,
    /// Whether callers say who they are.
    is_guarded: bool,
    /// The paths of health and of predictions.
    vertex: Option<[String; 2]>,
}

impl Served {
    pub(super) fn over_rest(dialects: &DialectsConfig) -> Self {
        let vertex = [dialects.vertex_health_route.clone(), dialects.vertex_predict_route.clone()];
        Self {
            is_admin: false,
            infers: true,
            v1: dialects.v1,
            sagemaker: dialects.sagemaker,
            is_guarded: false,
            vertex: dialects.vertex.then_some(vertex),
        }
    }

    pub fn to_operators(infers: bool) -> Self {
        Self { is_admin: true, infers, v1: false, sagemaker: false, is_guarded: false, vertex: None }
    }
}

/// The documents of a listener, and the page that shows them.
pub fn routes(frontend: &Frontend, served: Served) -> Router<Frontend> {
    let served = Served { is_guarded: frontend.access.is_on(), ..served };
    let documents = Arc::new(Documents::new(served));
    Router::new()
        .route("/openapi.json", get(server))
        .route("/v2/docs/dataplane.json", get(server))
        .route("/v2/models/{model}/openapi.json", get(one))
        .route("/v2/models/{model}/docs/dataplane.json", get(one))
        .route("/v2/models/{model}/versions/{version}/openapi.json", get(one))
        .route("/v2/models/{model}/versions/{version}/docs/dataplane.json", get(one))
        .merge(page::router())
        .with_state(Documented { frontend: frontend.clone(), documents })
}

#[derive(Clone, Debug)]
struct Documented {
    frontend: Frontend,
    documents: Arc<Documents>,
}

impl FromRef<Documented> for Frontend {
    fn from_ref(documented: &Documented) -> Self {
        documented.frontend.clone()
    }
}

async fn server(State(Documented { frontend, documents }): State<Documented>, caller: Caller) -> Response {
    respond::json(&documents.server(&frontend.repository.catalog(), &caller))
}

async fn one(
    State(Documented { frontend, documents }): State<Documented>,
    InPath(selector): InPath<Selector>,
) -> Result<Response, Refusal> {
    let build = frontend.find(&selector.model, selector.version.as_deref()).await?;
    let version = selector.version.map(|_| build.version);
    Ok(respond::json(&documents.model(&build, version)))
}

#[cfg(test)]
pub(crate) mod tests;
