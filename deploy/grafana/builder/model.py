"""The dashboard of builds of models: what one does, how its requests are batched, what it holds and takes."""

from .energy import per_inference, watts_by_build
from .panels import BUILD, SERVER, Query, board, graph, listing, number, quantile, rate

BUILD_LABELS = "model, version, variant"
BUILD_LEGEND = "{{model}} {{version}} {{variant}}"
# What a family of builds and the accuracy of a build have in common.
ONE_BUILD = "job, instance, model, version, variant"
# Of families that are counted for a model as a whole.
MODEL = SERVER + ', model=~"$model"'


def dashboard():
    labels = ["model", "version", "variant"]
    return board("model", "Kinglet: models", "Builds of models: traffic, batches, memory, energy.", labels, rows())


def rows():
    ok = BUILD + ', code="ok"'
    yield "State", [
        number("Serving", "Servers on which a build answers.", "short", Query(f"sum(kinglet_model_ready{{{BUILD}}})", "builds")),
        number(
            "Failed to load",
            "Versions and variants that the last load of the model could not bring to serve.",
            "short",
            Query(f"sum(kinglet_model_builds_failed{{{MODEL}}})", "builds"),
            limits=[1],
        ),
        number("Requests", "Answered well.", "reqps", Query(f"sum({rate('kinglet_requests_total', ok)})", "ok")),
        number("Rows", "Batch elements computed.", "rowsps", Query(f"sum({rate('kinglet_rows_total', BUILD)})", "rows")),
        number(
            "p99",
            "From the end of a request's body to its encoded answer.",
            "s",
            Query(quantile(0.99, "kinglet_request_duration_seconds", BUILD), "p99"),
        ),
        number(
            "Memory",
            "Weights and prepared copies.",
            "bytes",
            Query(f"sum(kinglet_model_memory_bytes{{{BUILD}}})", "bytes"),
        ),
    ]
    yield "Requests", [
        graph(
            "By outcome",
            "What clients were told: ok, or an error code.",
            "reqps",
            Query(f"sum by (code) ({rate('kinglet_requests_total', BUILD)}) > 0", "{{code}}"),
        ),
        graph(
            "By build",
            "All outcomes.",
            "reqps",
            Query(f"sum by ({BUILD_LABELS}) ({rate('kinglet_requests_total', BUILD)})", BUILD_LEGEND),
        ),
        graph(
            "Latency, p99",
            "From the end of a request's body to its encoded answer, of successful requests; as fine as the buckets.",
            "s",
            Query(quantile(0.99, "kinglet_request_duration_seconds", BUILD, BUILD_LABELS), BUILD_LEGEND),
        ),
        graph(
            "Mean time of each stage",
            "Of one request: decoding, waiting in the queue, gathering the batch, computing, encoding.",
            "s",
            Query(
                f"sum by (stage) ({rate('kinglet_stage_duration_seconds_sum', BUILD)})"
                f" / sum by (stage) ({rate('kinglet_stage_duration_seconds_count', BUILD)})",
                "{{stage}}",
            ),
        ),
        graph(
            "p99 of each stage",
            "Quantiles of stages do not add up to that of the request.",
            "s",
            Query(quantile(0.99, "kinglet_stage_duration_seconds", BUILD, "stage"), "{{stage}}"),
        ),
        graph(
            "Latency by part of the requests",
            "Half, nine tenths and 99 of 100 requests are faster.",
            "s",
            *(
                Query(quantile(rank, "kinglet_request_duration_seconds", BUILD), name)
                for rank, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
            ),
        ),
    ]
    yield "Batches", [
        graph(
            "Rows of a batch",
            "The mean, by build.",
            "short",
            Query(
                f"sum by ({BUILD_LABELS}) ({rate('kinglet_batch_rows_sum', BUILD)})"
                f" / sum by ({BUILD_LABELS}) ({rate('kinglet_batch_rows_count', BUILD)})",
                BUILD_LEGEND,
            ),
        ),
        graph(
            "Why batches were sent",
            "full, the delay was over, a deadline was near, or nothing else was to do (idle).",
            "cps",
            Query(f"sum by (reason) ({rate('kinglet_batches_total', BUILD)})", "{{reason}}"),
        ),
        graph(
            "CPU time of a row",
            "CPU time of the compute threads over rows.",
            "s",
            Query(
                f"sum by ({BUILD_LABELS}) ({rate('kinglet_model_cpu_seconds_total', BUILD)})"
                f" / sum by ({BUILD_LABELS}) ({rate('kinglet_rows_total', BUILD)})",
                BUILD_LEGEND,
            ),
        ),
        graph(
            "Requests that wait",
            "In all queues of a build.",
            "short",
            Query(f"sum by ({BUILD_LABELS}) (kinglet_queue_requests{{{BUILD}}})", BUILD_LEGEND),
        ),
        graph(
            "Fullness of queues",
            "Requests that wait, of those that may: the fullest of all servers, a mean over five minutes.",
            "percentunit",
            Query(
                f"max by ({BUILD_LABELS}) (build_instance:kinglet_queue_requests:ratio_avg5m{{{BUILD}}})", BUILD_LEGEND
            ),
        ),
        graph(
            "Bytes that wait",
            "Inputs of the requests in the queues.",
            "bytes",
            Query(f"sum by ({BUILD_LABELS}) (kinglet_queue_bytes{{{BUILD}}})", BUILD_LEGEND),
        ),
    ]
    yield "Budgets", [
        graph(
            "Choices",
            "Requests to versions with variants, by the build that was chosen and why.",
            "reqps",
            Query(
                f"sum by ({BUILD_LABELS}, reason) ({rate('kinglet_variant_choices_total', BUILD)})",
                BUILD_LEGEND + ": {{reason}}",
            ),
            stacked=True,
        ),
        graph(
            "Accuracy of builds",
            "Share of rows with the right answer, as the manifest or the report of compression says; the least of all servers.",
            "percentunit",
            Query(f"min by ({BUILD_LABELS}) (kinglet_model_accuracy_ratio{{{BUILD}}})", BUILD_LEGEND),
            from_zero=False,
        ),
        graph(
            "Accuracy of answers",
            "To be expected of the rows answered: the mean of their builds' accuracies. An accuracy is a share of rows, so that "
            "rows weigh it, not requests. Rows of builds without one are left out.",
            "percentunit",
            Query(accuracy_of_answers(), "{{model}} {{version}}"),
            from_zero=False,
        ),
    ]
    yield "Loads", [
        graph(
            "Loads",
            "Attempts by outcome, within the chosen time; those before a server was first read are not seen.",
            "short",
            Query(
                f"sum by (model, outcome) (increase(kinglet_model_loads_total{{{MODEL}}}[$__range]))",
                "{{model}}: {{outcome}}",
            ),
        ),
        graph(
            "Time of the last load",
            "Warm-up included; the slowest of all servers.",
            "s",
            Query(f"max by ({BUILD_LABELS}) (kinglet_model_load_duration_seconds{{{BUILD}}})", BUILD_LEGEND),
        ),
        graph(
            "Plans built for new shapes",
            "By operators that run through tract; requests of such a shape wait. Time spent, in seconds a second.",
            "short",
            Query(f"sum by ({BUILD_LABELS}) ({rate('kinglet_plan_builds_total', BUILD)})", BUILD_LEGEND + ": plans"),
            Query(f"sum by ({BUILD_LABELS}) ({rate('kinglet_plan_build_seconds_total', BUILD)})", BUILD_LEGEND + ": time"),
        ),
        listing(
            "Builds",
            "What serves where.",
            f"kinglet_model_ready{{{BUILD}}} == 1",
        ),
    ]
    yield "Energy", [per_inference(BUILD), watts_by_build(BUILD)]


def accuracy_of_answers() -> str:
    rows, known = rate("kinglet_rows_total", BUILD), f"on ({ONE_BUILD}) kinglet_model_accuracy_ratio{{{BUILD}}}"
    return f"sum by (model, version) ({rows} * {known}) / sum by (model, version) ({rows} and {known})"
