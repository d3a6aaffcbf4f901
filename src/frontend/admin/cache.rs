//! GET /admin/cache: what is kept. POST /admin/cache/clear: forgets it, and says what it was.

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use crate::cache::Holding;
use crate::frontend::Frontend;
use crate::frontend::rest::json as respond;

pub(super) async fn holding(State(frontend): State<Frontend>) -> Response {
    told(frontend.pipeline.cache().holding())
}

/// What stands in the way of pages of other sites stands before this route too.
pub(super) async fn clear(State(frontend): State<Frontend>) -> Response {
    let held = frontend.pipeline.cache().clear();
    tracing::info!(entries = held.entries, bytes = held.bytes, "the response cache was cleared");
    told(held)
}

fn told(holding: Holding) -> Response {
    let Holding { entries, bytes, bytes_max, flights } = holding;
    respond(&json!({ "entries": entries, "bytes": bytes, "bytes_max": bytes_max, "in_flight": flights }))
}
