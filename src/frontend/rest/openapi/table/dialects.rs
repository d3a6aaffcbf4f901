//! Other words for the same calls: v1, and the paths of platforms.

use super::{Answer, Body, JSON, Media, OF_INFERENCE, OF_LOAD, OF_MODEL, Operation, TOLD, WISHES, tag};

pub(super) const V1: &[Operation] = &[
    Operation::get("v1Models", &["/v1/models"], &[Answer::json("Their names.", &[Media(JSON, "ModelList")])]).says(
        tag::V1,
        "The models of the repository",
        "",
    ),
    Operation::get(
        "v1Status",
        &["/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{label}"],
        &[
            Answer::json("Its versions, of which one answers.", &[Media(JSON, "V1Status")]),
            Answer { status: 503, ..Answer::json("None of them answers.", &[Media(JSON, "V1Status")]) },
        ],
    )
    .says(tag::V1, "The states of a model's versions", "")
    .refuses(&[400, 404, 429, 500, 504]),
    Operation::get(
        "v1Metadata",
        &[
            "/v1/models/{model}/metadata",
            "/v1/models/{model}/versions/{version}/metadata",
            "/v1/models/{model}/labels/{label}/metadata",
        ],
        &[Answer::json("Its signature, as TensorFlow has it.", &[Media(JSON, "V1Metadata")])],
    )
    .says(tag::V1, "Inputs and outputs of a model", "")
    .refuses(OF_MODEL),
    Operation::post(
        "v1Predict",
        &[
            "/v1/models/{model}:predict",
            "/v1/models/{model}/versions/{version}:predict",
            "/v1/models/{model}/labels/{label}:predict",
        ],
        &[answered("The outputs, by rows or by columns as they were asked for.", &[Media(JSON, "V1PredictResponse")])],
    )
    .says(tag::V1, "Runs a model", "")
    .with(WISHES)
    .takes(Body::required(&[Media(JSON, "V1PredictRequest")], "V1Predict"))
    .refuses(OF_INFERENCE),
    Operation::post(
        "v1Classify",
        &[
            "/v1/models/{model}:classify",
            "/v1/models/{model}/versions/{version}:classify",
            "/v1/models/{model}/labels/{label}:classify",
        ],
        &[answered("For each example labels with their scores.", &[Media(JSON, "V1Results")])],
    )
    .says(tag::V1, "The classes of examples", "For models with one output of a row of scores.")
    .with(WISHES)
    .takes(EXAMPLES)
    .refuses(OF_INFERENCE),
    Operation::post(
        "v1Regress",
        &[
            "/v1/models/{model}:regress",
            "/v1/models/{model}/versions/{version}:regress",
            "/v1/models/{model}/labels/{label}:regress",
        ],
        &[answered("For each example a number.", &[Media(JSON, "V1Results")])],
    )
    .says(tag::V1, "The numbers of examples", "For models with one output of a number for each row.")
    .with(WISHES)
    .takes(EXAMPLES)
    .refuses(OF_INFERENCE),
];

pub(super) const SAGEMAKER: &[Operation] = &[
    Operation::get("ping", &["/ping"], READY).says(tag::SAGEMAKER, "Whether requests should be sent here", ""),
    Operation::post("invocations", &["/invocations"], INVOKED)
        .says(tag::SAGEMAKER, "Runs the default model", "The body is v2's or v1's, as it says itself.")
        .with(WISHES)
        .takes(Body::required(EITHER, "Infer"))
        .refuses(OF_INFERENCE),
    Operation::get("sagemakerModels", &["/models"], &[Answer::json("Their names.", &[Media(JSON, "SageMakerModels")])])
        .says(tag::SAGEMAKER, "The models that answer", "")
        .refuses(&[403]),
    Operation::post("sagemakerLoad", &["/models"], &[Answer::json("It is loaded.", &[Media(JSON, "Nothing")])])
        .says(tag::SAGEMAKER, "Loads a model", "Where repository.control is \"explicit\".")
        .takes(Body::required(&[Media(JSON, "SageMakerLoad")], "SageMakerLoad"))
        .refuses(&[400, 403, 404, 409, 413, 429, 500, 503, 504, 507]),
    Operation::get(
        "sagemakerModel",
        &["/models/{model}"],
        &[Answer::json("It answers.", &[Media(JSON, "SageMakerModel")])],
    )
    .says(tag::SAGEMAKER, "Whether a model answers", "")
    .refuses(&[400, 403, 404]),
    Operation {
        verb: "delete",
        ..Operation::get("sagemakerUnload", &["/models/{model}"], &[Answer::done("It is unloaded.")])
    }
    .says(tag::SAGEMAKER, "Unloads a model", "Where repository.control is \"explicit\".")
    .refuses(OF_LOAD),
    Operation::post("sagemakerInvoke", &["/models/{model}/invoke"], INVOKED)
        .says(tag::SAGEMAKER, "Runs a model", "The body is v2's or v1's, as it says itself.")
        .with(WISHES)
        .takes(Body::required(EITHER, "Infer"))
        .refuses(OF_INFERENCE),
];

pub(super) const VERTEX: [Operation; 2] = [
    Operation::get("vertexHealth", &[], READY).says(tag::VERTEX, "Whether requests should be sent here", ""),
    Operation::post("vertexPredict", &[], INVOKED)
        .says(tag::VERTEX, "Runs the default model", "The body is v1's or v2's, as it says itself.")
        .with(WISHES)
        .takes(Body::required(EITHER, "Infer"))
        .refuses(OF_INFERENCE),
];

const fn answered(says: &'static str, media: &'static [Media]) -> Answer {
    Answer { headers: TOLD, ..Answer::json(says, media) }
}

/// Which model can answer such a call only its signature tells.
const EXAMPLES: Body = Body { media: &[Media(JSON, "V1ExamplesRequest")], is_required: true, example: None };
const READY: &[Answer] = &[
    Answer::json("Requests should be sent here.", &[Media(JSON, "Ready")]),
    Answer { status: 503, ..Answer::json("They should not.", &[Media(JSON, "Ready")]) },
];
const EITHER: &[Media] = &[Media(JSON, "V2OrV1Request"), Media(BINARY, "Binary")];
const INVOKED: &[Answer] =
    &[answered("The outputs, in the body's dialect.", &[Media(JSON, "V2OrV1Response"), Media(BINARY, "Binary")])];
const BINARY: &str = "application/vnd.sagemaker-triton.binary+json";
