//! Trace settings and system shared memory. Their calls are there also where the settings turn them off: they are refused then.

use super::{Answer, Body, JSON, Media, Operation, tag};

pub(super) const TRACE: &[Operation] = &[
    Operation::get("traceSettings", &["/v2/trace/setting"], SETTINGS)
        .says(tag::TRACE, "What is recorded of requests", "")
        .refuses(&[403]),
    Operation::post("setTraceSettings", &["/v2/trace/setting"], SETTINGS)
        .says(
            tag::TRACE,
            "Changes what is recorded",
            "Where tracing.settings_over_network allows it. What is left away stays as it is.",
        )
        .takes(CHANGES)
        .refuses(&[400, 403, 413, 429, 501, 504]),
    Operation::get("traceSettingsOfModel", &["/v2/models/{model}/trace/setting"], SETTINGS)
        .says(tag::TRACE, "What is recorded of a model's requests", "")
        .refuses(&[400, 403, 404]),
    Operation::post("setTraceSettingsOfModel", &["/v2/models/{model}/trace/setting"], SETTINGS)
        .says(
            tag::TRACE,
            "Changes what is recorded of a model's requests",
            "Where tracing.settings_over_network allows it. null has the model follow the settings of all again.",
        )
        .takes(CHANGES)
        .refuses(&[400, 403, 404, 413, 429, 501, 504]),
];

pub(super) const SHARED_MEMORY: &[Operation] = &[
    Operation::get("regions", &["/v2/systemsharedmemory/status"], REGIONS)
        .says(tag::SHARED_MEMORY, "The regions that are registered", "")
        .refuses(&[403, 501]),
    Operation::get("region", &["/v2/systemsharedmemory/region/{region}/status"], REGIONS)
        .says(tag::SHARED_MEMORY, "One region", "")
        .refuses(&[400, 403, 404, 501]),
    Operation::post(
        "registerRegion",
        &["/v2/systemsharedmemory/region/{region}/register"],
        &[Answer::done("It is registered.")],
    )
    .says(tag::SHARED_MEMORY, "Registers a part of a segment", "Where shared_memory.enabled is set.")
    .takes(Body::required(&[Media(JSON, "Registration")], "Registration"))
    .refuses(&[400, 403, 413, 429, 501, 504]),
    Operation::post(
        "unregisterRegions",
        &["/v2/systemsharedmemory/unregister"],
        &[Answer::done("None is registered any more.")],
    )
    .says(tag::SHARED_MEMORY, "Forgets all regions", "Requests that use one go on with it.")
    .refuses(&[403, 501]),
    Operation::post(
        "unregisterRegion",
        &["/v2/systemsharedmemory/region/{region}/unregister"],
        &[Answer::done("It is not registered any more.")],
    )
    .says(tag::SHARED_MEMORY, "Forgets a region", "Requests that use it go on with it.")
    .refuses(&[400, 403, 501]),
];

const SETTINGS: &[Answer] = &[Answer::json("All settings.", &[Media(JSON, "TraceSettings")])];
const REGIONS: &[Answer] = &[Answer::json("As they were registered.", &[Media(JSON, "Regions")])];
const CHANGES: Body = Body::optional(&[Media(JSON, "TraceChanges")], "TraceChanges");
