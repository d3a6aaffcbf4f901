//! The operators' listener: metrics, health, metadata, control, and a page for people at `/ui/`.

mod budgets;
mod cache;
mod energy;
mod page;
mod triton_metrics;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use tokio::sync::mpsc;

use super::browsers::own_pages_only;
use super::config::AdminConfig;
use super::rest::{Served, admin_router, documents, fallbacks, get, inference, post};
use super::{Frontend, Refusal};

/// What the reload route asks for; the answer goes back over the channel in it.
pub type ReloadRequest = tokio::sync::oneshot::Sender<Result<ReloadReport, Refusal>>;

/// Which keys a reload changed, and which need a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReloadReport {
    pub applied: Vec<String>,
    pub refused: Vec<String>,
}

/// `reloads` reaches whoever owns the configuration. The page needs inference beside it: another listener would be another
/// site to a browser.
pub fn router(frontend: Frontend, reloads: mpsc::Sender<ReloadRequest>, config: &AdminConfig) -> Router {
    let reload = Router::new().route("/admin/config/reload", post(reload)).with_state(reloads);
    let mut own = Router::new()
        .route("/metrics", if config.triton_metrics { get(metrics_of_both_names) } else { get(metrics) })
        .route("/admin/budgets", get(budgets::standing))
        .route("/admin/cache", get(cache::holding))
        .route("/admin/cache/clear", post(cache::clear))
        .route("/admin/energy", get(energy::latest))
        .route("/v2/models/{model}/variants", get(budgets::builds))
        .route("/v2/models/{model}/versions/{version}/variants", get(budgets::builds))
        .merge(admin_router());
    if config.ui {
        own = own.merge(inference()).merge(page::router());
    }
    if config.docs {
        own = own.merge(documents(&frontend, Served::to_operators(config.ui)));
    }
    let guard = from_fn_with_state(frontend.clone(), own_pages_only);
    fallbacks(own.with_state(frontend).merge(reload).route_layer(guard))
}

async fn metrics(State(frontend): State<Frontend>) -> Response {
    prometheus_text(gathered(&frontend))
}

async fn metrics_of_both_names(State(frontend): State<Frontend>) -> Response {
    prometheus_text([gathered(&frontend), triton_metrics::render(&frontend)].concat())
}

fn prometheus_text(text: Vec<u8>) -> Response {
    super::rest::with_type(text.into(), "text/plain; version=0.0.4")
}

fn gathered(frontend: &Frontend) -> Vec<u8> {
    let pool = &frontend.pool;
    frontend.metrics.set_pool(pool.size(), pool.size().saturating_sub(pool.idle()), pool.panics());
    frontend.metrics.set_log_lines_dropped(frontend.logs.dropped());
    frontend.metrics.set_ready(frontend.health.is_ready());
    frontend.metrics.set_receiving(frontend.pipeline.admission().receiving_bytes());
    frontend.metrics.set_leaving(frontend.pipeline.admission().outflow().bytes());
    frontend.metrics.render()
}

async fn reload(State(reloads): State<mpsc::Sender<ReloadRequest>>) -> Response {
    let (answer, outcome) = tokio::sync::oneshot::channel();
    if reloads.try_send(answer).is_err() {
        return super::rest::error(StatusCode::SERVICE_UNAVAILABLE, "a reload is under way already");
    }
    match outcome.await {
        Ok(Ok(report)) => super::rest::json(&report),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => super::rest::error(StatusCode::SERVICE_UNAVAILABLE, "the server is ending"),
    }
}
