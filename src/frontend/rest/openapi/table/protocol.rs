//! The Open Inference Protocol v2 with the extensions that are served.

use super::{Answer, Body, JSON, Media, OCTETS, OF_CONTROL, OF_INFERENCE, OF_LOAD, OF_MODEL, Operation, tag};

pub(super) const INFERENCE: &[Operation] = &[Operation::post(
    "infer",
    &["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"],
    &[Answer {
        status: 200,
        says: "The outputs; in binary form where that is asked for.",
        media: &[Media(JSON, "InferResponse"), Media(OCTETS, "Binary")],
        headers: &[
            "kinglet-energy-joules",
            "kinglet-energy-source",
            "kinglet-variant",
            "kinglet-variant-reason",
            "kinglet-cache",
            "Inference-Header-Content-Length",
        ],
    }],
)
.says(
    tag::INFERENCE,
    "Runs a model",
    "The body is JSON; or JSON with binary tensors behind it, whose length is told by Inference-Header-Content-Length; or, \
     where that is 0, the bytes of the only input. gzip and deflate are taken, and given to whoever asks for them.",
)
.with(&[
    "inference-header-content-length",
    "kinglet-timeout-ms",
    "kinglet-max-latency-ms",
    "kinglet-max-energy-mj",
    "kinglet-min-accuracy",
])
.takes(Body::required(&[Media(JSON, "InferRequest"), Media(OCTETS, "Binary")], "Infer"))
.refuses(OF_INFERENCE)];

pub(super) const MODELS: &[Operation] = &[
    Operation::get("models", &["/v2/models"], &[Answer::json("Their names.", &[Media(JSON, "ModelList")])]).says(
        tag::MODELS,
        "The models of the repository",
        "",
    ),
    Operation::get(
        "modelMetadata",
        &["/v2/models/{model}", "/v2/models/{model}/versions/{version}"],
        &[Answer::json("Its signature.", &[Media(JSON, "ModelMetadata")])],
    )
    .says(tag::MODELS, "Inputs and outputs of a model", "")
    .refuses(OF_MODEL),
    Operation::get(
        "modelReady",
        &["/v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready"],
        &[Answer::json("It would answer.", &[Media(JSON, "ModelReady")])],
    )
    .says(tag::MODELS, "Whether a model would answer", "")
    .refuses(&[400, 404, 503]),
    Operation::get(
        "modelConfig",
        &["/v2/models/{model}/config", "/v2/models/{model}/versions/{version}/config"],
        &[Answer::json("As Triton has it.", &[Media(JSON, "ModelConfig")])],
    )
    .says(tag::MODELS, "The configuration of a model", "")
    .refuses(OF_MODEL),
    Operation::get(
        "modelStatistics",
        &["/v2/models/{model}/stats", "/v2/models/{model}/versions/{version}/stats"],
        STATISTICS,
    )
    .says(tag::MODELS, "Counts and times of a model", "")
    .refuses(OF_MODEL),
    Operation::get("statistics", &["/v2/models/stats"], STATISTICS).says(
        tag::MODELS,
        "Counts and times of all models",
        "",
    ),
];

pub(super) const HEALTH: &[Operation] = &[
    Operation::get(
        "server",
        &["/v2"],
        &[Answer::json("Name, version and extensions.", &[Media(JSON, "ServerMetadata")])],
    )
    .says(tag::HEALTH, "What server this is", ""),
    Operation::get("live", &["/v2/health/live"], &[Answer::json("It runs.", &[Media(JSON, "Live")])]).says(
        tag::HEALTH,
        "Whether the server runs",
        "",
    ),
    Operation::get(
        "ready",
        &["/v2/health/ready"],
        &[
            Answer::json("Requests should be sent here.", &[Media(JSON, "Ready")]),
            Answer { status: 503, ..Answer::json("They should not.", &[Media(JSON, "Ready")]) },
        ],
    )
    .says(tag::HEALTH, "Whether requests should be sent here", ""),
    Operation::get(
        "started",
        &["/v2/health/startup"],
        &[
            Answer::json("The first models have loaded.", &[Media(JSON, "Started")]),
            Answer { status: 503, ..Answer::json("They load.", &[Media(JSON, "Started")]) },
        ],
    )
    .says(tag::HEALTH, "Whether the first models have loaded", ""),
];

pub(super) const CONTROL: &[Operation] = &[
    Operation::post(
        "index",
        &["/v2/repository/index", "/v2/repository/{repository}/index"],
        &[Answer::json("A line for each version.", &[Media(JSON, "Index")])],
    )
    .says(tag::REPOSITORY, "What there is, and in what state", "")
    .takes(Body::optional(&[Media(JSON, "IndexRequest")], "ReadyOnly"))
    .refuses(OF_CONTROL),
    Operation::post(
        "load",
        &["/v2/repository/models/{model}/load", "/v2/repository/{repository}/models/{model}/load"],
        &[Answer::done("It is loaded.")],
    )
    .says(tag::REPOSITORY, "Loads a model, or loads it again", "Where repository.control is \"explicit\".")
    .takes(Body::optional(&[Media(JSON, "LoadRequest")], "Empty"))
    .refuses(OF_LOAD),
    Operation::post(
        "unload",
        &["/v2/repository/models/{model}/unload", "/v2/repository/{repository}/models/{model}/unload"],
        &[Answer::done("It is unloaded.")],
    )
    .says(tag::REPOSITORY, "Unloads a model", "Where repository.control is \"explicit\".")
    .takes(Body::optional(&[Media(JSON, "UnloadRequest")], "Unload"))
    .refuses(OF_LOAD),
    Operation::get("logSettings", &["/v2/logging"], LOG_SETTINGS)
        .says(tag::LOGGING, "What is logged", "")
        .refuses(&[403]),
    Operation::post("setLogSettings", &["/v2/logging"], LOG_SETTINGS)
        .says(tag::LOGGING, "Changes what is logged", "What is left away stays as it is.")
        .takes(Body::optional(&[Media(JSON, "LogChanges")], "LogSettings"))
        .refuses(OF_CONTROL),
];

const STATISTICS: &[Answer] = &[Answer::json("An entry for each version.", &[Media(JSON, "Statistics")])];
const LOG_SETTINGS: &[Answer] = &[Answer::json("All settings.", &[Media(JSON, "LogSettings")])];
