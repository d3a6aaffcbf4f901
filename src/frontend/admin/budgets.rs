//! GET /admin/budgets: by what builds are chosen now. GET /v2/models/{model}/variants: the builds of a version, with what each is
//! worth and what it costs.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use crate::frontend::rest::{InPath, Selector, json as respond};
use crate::frontend::{Frontend, Refusal};
use crate::metering::Point;
use crate::repository::Variant;
use crate::routing::Standing;
use crate::units::Nanojoules;

/// What is not known, or does not hold, is null.
pub(super) async fn standing(State(frontend): State<Frontend>) -> Response {
    let Standing { stage, cause, power_watts_max, allowance_watts } = frontend.pipeline.router().standing();
    respond(&json!({
        "stage": stage,
        "cause": cause,
        "power_watts_max": power_watts_max,
        "allowance_watts": allowance_watts,
    }))
}

pub(super) async fn builds(
    State(frontend): State<Frontend>,
    InPath(selector): InPath<Selector>,
) -> Result<Response, Refusal> {
    let own = frontend.find_variant(&selector.model, selector.version.as_deref(), None).await?;
    let catalog = frontend.repository.catalog();
    let price = frontend.pipeline.meter().per_cpu_second();
    let mut all = vec![build(&own, price)];
    for (name, beside) in catalog.version_of(&own).into_iter().flat_map(|version| &version.variants) {
        all.push(match &beside.ready {
            Some(ready) => build(ready, price),
            None => json!({ "variant": name.as_str(), "reason": beside.reason }),
        });
    }
    Ok(respond(&json!({ "model": own.model.as_str(), "version": own.version.to_string(), "builds": all })))
}

fn build(build: &Variant, price: Option<Nanojoules>) -> Value {
    let point = |point: Point| {
        let joules = price.map(|price| Nanojoules::of_power(price.0, point.cpu).as_joules());
        json!({
            "rows": point.rows,
            "milliseconds": point.wall.as_secs_f64() * 1e3,
            "cpu_milliseconds": point.cpu.as_secs_f64() * 1e3,
            "millijoules": joules.map(|joules| joules * 1e3),
        })
    };
    json!({
        "variant": build.name.as_ref().map(|name| name.as_str()),
        "accuracy": build.profile.accuracy(),
        "memory_bytes": build.memory_bytes(),
        "costs": build.profile.costs(|costs| costs.points().map(point).collect::<Vec<_>>()),
    })
}
