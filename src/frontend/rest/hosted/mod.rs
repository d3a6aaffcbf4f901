//! The paths that hosting platforms call: doors of their own to the same handlers.
//!
//! Bodies are v2's or v1's, as they say themselves. A path that names no model means the one there is, or
//! `dialects.default_model`.

pub(super) mod sagemaker;
pub(super) mod vertex;

use axum::extract::Request;
use axum::response::Response;

use super::infer::{self, Dialect, Target, Which};
use crate::frontend::{Frontend, Refusal};
use crate::infer::ModelName;

/// An inference call of a platform.
async fn invoke(
    frontend: &Frontend,
    route: &'static str,
    model: Result<ModelName, Refusal>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let target = model.as_ref().map_err(Refusal::clone);
    let target =
        target.map(|model| Target { model: model.as_str(), which: Which::Newest, dialect: Dialect::Either, route });
    infer::respond_to(frontend, route, target, &parts, body).await
}

/// The model of calls that name none.
fn default_model(frontend: &Frontend) -> Result<ModelName, Refusal> {
    let configured = &frontend.dialects.default_model;
    if !configured.is_empty() {
        return Ok(configured.parse()?);
    }
    let catalog = frontend.repository.catalog();
    let mut names = catalog.models.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.clone()),
        _ => Err(Refusal::invalid(format!(
            "the path names no model: expected one in the repository or dialects.default_model, got {} models",
            catalog.models.len()
        ))),
    }
}
