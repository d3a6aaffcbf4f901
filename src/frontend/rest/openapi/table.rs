//! The calls that the document describes, and which listeners serve them.

mod admin;
mod dialects;
mod extensions;
mod protocol;

use super::Served;
use super::operation::{Answer, Body, Media, Operation};

/// The calls of a listener, in the order in which people read them.
pub(super) fn operations(served: &Served) -> impl Iterator<Item = &'static Operation> {
    let is_rest = !served.is_admin;
    let groups: [(bool, &[Operation]); 11] = [
        (served.infers, protocol::INFERENCE),
        (true, protocol::MODELS),
        (true, protocol::HEALTH),
        (true, protocol::CONTROL),
        (true, extensions::TRACE),
        (true, extensions::SHARED_MEMORY),
        (is_rest && served.v1, dialects::V1),
        (is_rest && served.sagemaker, dialects::SAGEMAKER),
        (served.is_admin, admin::MODELS),
        (served.is_admin, admin::SERVER),
        (true, DOCUMENTS),
    ];
    groups.into_iter().filter(|(is_served, _)| *is_served).flat_map(|(_, operations)| operations)
}

/// Health and predictions, whose paths the platform chooses.
pub(super) const VERTEX: [Operation; 2] = dialects::VERTEX;

/// Tags in the order of their groups, and what stands beneath them.
pub(super) const TAGS: &[(&str, &str)] = &[
    (tag::INFERENCE, "Running a model."),
    (tag::MODELS, "What models are, and how they fare."),
    (tag::HEALTH, "What probes ask."),
    (tag::REPOSITORY, "Loading and unloading. Pages of other sites may not."),
    (tag::LOGGING, "The settings of the logs, until the next start."),
    (tag::TRACE, "What is recorded of requests, until the next start."),
    (tag::SHARED_MEMORY, "Tensors in memory that client and server share, where shared_memory.enabled is set."),
    (tag::V1, "The v1 of TensorFlow Serving and KServe."),
    (tag::SAGEMAKER, "The paths of SageMaker."),
    (tag::VERTEX, "The paths of Vertex AI."),
    (tag::ADMIN, "What operators ask."),
    (tag::DOCUMENT, "This document."),
];

mod tag {
    pub(super) const INFERENCE: &str = "Inference";
    pub(super) const MODELS: &str = "Models";
    pub(super) const HEALTH: &str = "Health";
    pub(super) const REPOSITORY: &str = "Repository";
    pub(super) const LOGGING: &str = "Logging";
    pub(super) const TRACE: &str = "Trace settings";
    pub(super) const SHARED_MEMORY: &str = "Shared memory";
    pub(super) const V1: &str = "v1";
    pub(super) const SAGEMAKER: &str = "SageMaker";
    pub(super) const VERTEX: &str = "Vertex AI";
    pub(super) const ADMIN: &str = "Admin";
    pub(super) const DOCUMENT: &str = "Document";
}

const DOCUMENTS: &[Operation] = &[
    Operation::get("document", &["/openapi.json", "/v2/docs/dataplane.json"], DOCUMENT).says(
        tag::DOCUMENT,
        "All calls of this listener",
        "",
    ),
    Operation::get(
        "modelDocument",
        &[
            "/v2/models/{model}/openapi.json",
            "/v2/models/{model}/versions/{version}/openapi.json",
            "/v2/models/{model}/docs/dataplane.json",
            "/v2/models/{model}/versions/{version}/docs/dataplane.json",
        ],
        DOCUMENT,
    )
    .says(tag::DOCUMENT, "The calls of one model", "With schemas from its signature, and a body that it answers.")
    .refuses(OF_MODEL),
];
const DOCUMENT: &[Answer] = &[Answer::json("An OpenAPI document.", &[Media(JSON, "Document")])];

impl Answer {
    /// 200 in JSON.
    const fn json(says: &'static str, media: &'static [Media]) -> Self {
        Self { status: 200, says, media, headers: &[] }
    }

    /// 200 without a body.
    const fn done(says: &'static str) -> Self {
        Self::json(says, &[])
    }
}

impl Body {
    const fn required(media: &'static [Media], example: &'static str) -> Self {
        Self { media, is_required: true, example: Some(example) }
    }

    /// An empty body says as much as an empty object.
    const fn optional(media: &'static [Media], example: &'static str) -> Self {
        Self { media, is_required: false, example: Some(example) }
    }
}

/// What looking for a model may come to; models on demand are waited for.
const OF_MODEL: &[u16] = &[400, 404, 429, 500, 503, 504];
/// What a control call may come to.
const OF_CONTROL: &[u16] = &[400, 403, 413, 429, 504];
const OF_LOAD: &[u16] = &[400, 403, 404, 413, 429, 500, 503, 504];
/// What running a model may come to.
const OF_INFERENCE: &[u16] = &[400, 404, 412, 413, 415, 429, 500, 501, 503, 504];
/// What may stand beside a body, or in place of what it says.
const WISHES: &[&str] =
    &["kinglet-timeout-ms", "kinglet-max-latency-ms", "kinglet-max-energy-mj", "kinglet-min-accuracy"];
/// What an answer to an inference call tells besides.
const TOLD: &[&str] =
    &["kinglet-energy-joules", "kinglet-energy-source", "kinglet-variant", "kinglet-variant-reason", "kinglet-cache"];
const JSON: &str = "application/json";
const OCTETS: &str = "application/octet-stream";
