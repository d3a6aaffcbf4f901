//! What the admin listener answers besides: for operators.

use super::{Answer, JSON, Media, OF_MODEL, Operation, tag};

pub(super) const MODELS: &[Operation] = &[
    Operation::get(
        "layers",
        &["/v2/models/{model}/layers", "/v2/models/{model}/versions/{version}/layers"],
        &[Answer::json("The layers in the order of their runs.", &[Media(JSON, "Layers")])],
    )
    .says(tag::MODELS, "What every layer of a model takes", "The model is run for it, a few times on made-up rows.")
    .with(&["batch", "extent", "variant"])
    .refuses(OF_MODEL),
    Operation::get(
        "variants",
        &["/v2/models/{model}/variants", "/v2/models/{model}/versions/{version}/variants"],
        &[Answer::json("The version's own build, and its variants.", &[Media(JSON, "Builds")])],
    )
    .says(tag::MODELS, "The builds of a version, what each is worth and costs", "")
    .refuses(OF_MODEL),
];

pub(super) const SERVER: &[Operation] =
    &[
        Operation::get(
            "metrics",
            &["/metrics"],
            &[Answer::json("All metrics.", &[Media("text/plain; version=0.0.4", "Metrics")])],
        )
        .says(tag::ADMIN, "Metrics for Prometheus", ""),
        Operation::get("budgets", &["/admin/budgets"], &[Answer::json("What holds now.", &[Media(JSON, "Budgets")])])
            .says(tag::ADMIN, "By what builds are chosen", ""),
        Operation::get("cache", &["/admin/cache"], CACHE).says(tag::ADMIN, "What the response cache holds", ""),
        Operation::post("clearCache", &["/admin/cache/clear"], CACHE).says(
            tag::ADMIN,
            "Forgets all answers that are kept",
            "",
        ),
        Operation::get("energy", &["/admin/energy"], &[Answer::json("The last window.", &[Media(JSON, "Energy")])])
            .says(tag::ADMIN, "Where energy is read from, and what was used", ""),
        Operation::post(
            "reloadConfiguration",
            &["/admin/config/reload"],
            &[Answer::json("What was taken, and what needs a restart.", &[Media(JSON, "Reload")])],
        )
        .says(tag::ADMIN, "Reads the configuration again", "")
        .refuses(&[400, 503]),
    ];

const CACHE: &[Answer] = &[Answer::json("What it holds; of a clearing, what it held.", &[Media(JSON, "Cache")])];
