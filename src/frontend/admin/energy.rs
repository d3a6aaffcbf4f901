//! GET /admin/energy: where energy is read from, and the last window.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use crate::frontend::Frontend;
use crate::frontend::rest::json as respond;
use crate::metering::{Coefficients, Latest, SourceFacts};

/// What is not known is null.
pub(super) async fn latest(State(frontend): State<Frontend>) -> Response {
    let meter = frontend.pipeline.meter();
    let mut facts = meter.source().map_or_else(|| json!({ "source": null, "quality": null }), source);
    facts["window"] = meter.latest().map_or(Value::Null, window);
    respond(&facts)
}

fn source(SourceFacts { kind, coefficients }: SourceFacts) -> Value {
    let watts = |nanowatts: u64| crate::units::Nanojoules(nanowatts).as_joules();
    let of_model =
        |Coefficients { name, idle, max }| json!({ "name": name, "idle_watts": watts(idle), "max_watts": watts(max) });
    json!({
        "source": kind.as_str(),
        "quality": kind.quality().as_str(),
        "coefficients": coefficients.map_or(Value::Null, of_model),
    })
}

fn window(latest: Latest) -> Value {
    let seconds = latest.span.as_secs_f64();
    json!({
        "seconds": seconds,
        "joules": latest.energy.as_joules(),
        "watts": latest.energy.as_joules() / seconds,
        "idle_watts": latest.idle.as_joules() / seconds,
        "other_watts": latest.other.as_joules() / seconds,
        "overhead_watts": latest.overhead.as_joules() / seconds,
        "models_watts": latest.attributed.as_joules() / seconds,
        "joules_per_cpu_second": latest.per_cpu_second.map(crate::units::Nanojoules::as_joules),
    })
}
