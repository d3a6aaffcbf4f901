"""The dashboard of all servers: are they well, what do they do, and how near to their limits."""

from .budgets import stage, unmet
from .energy import against_limit, parts, per_inference
from .panels import SERVER, Query, board, graph, number, quantile, rate

JOB = 'job=~"$job"'
OVERLOADED = SERVER + ', code="overloaded"'


def dashboard():
    return board("overview", "Kinglet: overview", "Servers: health, traffic, saturation, processes, energy.", [], rows())


def rows():
    yield "Health", [
        number("Servers up", "Servers that Prometheus can read.", "short", Query(f"sum(up{{{SERVER}}})", "up")),
        number(
            "Servers ready",
            "Servers that requests should be sent to: neither loading their first models nor draining.",
            "short",
            Query(f"sum(kinglet_ready{{{SERVER}}})", "ready"),
        ),
        number(
            "Builds that serve",
            "Versions and variants that answer, over all servers.",
            "short",
            Query(f"sum(kinglet_model_ready{{{SERVER}}})", "builds"),
        ),
        number(
            "Builds that failed",
            "Versions and variants that the last load of their model could not bring to serve.",
            "short",
            Query(f"sum(kinglet_model_builds_failed{{{SERVER}}})", "builds"),
            limits=[1],
        ),
        number(
            "Failed requests, 1 h",
            "Of the requests that the server is to answer for, those that failed: internal, overloaded, unavailable, "
            "deadline exceeded. The objective allows 0.1 %.",
            "percentunit",
            Query(f"job:kinglet_request_errors:ratio_rate1h{{{JOB}}}", "{{job}}"),
            limits=[0.001, 0.0144],
        ),
        number(
            "Slow answers, 1 h",
            "Answers that took longer than 250 ms. The objective allows 1 %.",
            "percentunit",
            Query(f"job:kinglet_slow_requests:ratio_rate1h{{{JOB}}}", "{{job}}"),
            limits=[0.01, 0.144],
        ),
    ]
    yield "Traffic", [
        graph(
            "Requests by outcome",
            "What clients were told: ok, or an error code; cancelled where the client had left.",
            "reqps",
            Query(f"sum by (code) ({rate('kinglet_requests_total', SERVER)}) > 0", "{{code}}"),
        ),
        graph(
            "Requests by model",
            "All outcomes. Requests that named no loaded model, or were refused before one was found, are _unknown.",
            "reqps",
            Query(f"sum by (model) ({rate('kinglet_requests_total', SERVER)})", "{{model}}"),
        ),
        graph(
            "Latency of answers",
            "From the end of a request's body to its encoded answer, of successful requests; as fine as the buckets.",
            "s",
            *(
                Query(quantile(rank, "kinglet_request_duration_seconds", SERVER), name)
                for rank, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
            ),
        ),
        graph(
            "Burn rate of the error budget",
            "1 spends the budget of 30 days in 30 days. A page is due where 1 h and 5 min pass 14.4, or 6 h and 30 min pass 6.",
            "short",
            *(
                Query(f"job:kinglet_request_errors:ratio_rate{window}{{{JOB}}} / 0.001", f"{{{{job}}}} {window}")
                for window in ("5m", "1h", "6h", "3d")
            ),
        ),
        graph(
            "Burn rate of the latency budget",
            "The same of answers that take longer than 250 ms, of which 1 % may.",
            "short",
            *(
                Query(f"job:kinglet_slow_requests:ratio_rate{window}{{{JOB}}} / 0.01", f"{{{{job}}}} {window}")
                for window in ("5m", "1h", "6h", "3d")
            ),
        ),
        graph(
            "Connections",
            "Open connections by listener, over all servers.",
            "short",
            Query(f"sum by (listener) (kinglet_connections{{{SERVER}}})", "{{listener}}"),
        ),
    ]
    yield "Saturation", [
        graph(
            "Cores that run a batch",
            "Part of the compute threads that are busy, a mean over five minutes. Batches that are over at once run elsewhere.",
            "percentunit",
            Query(f"job_instance:kinglet_cores_busy:ratio_avg5m{{{SERVER}}}", "{{instance}}"),
        ),
        graph(
            "Fullness of queues",
            "Requests that wait, of those that may: the fullest queue of each model and server, a mean over five minutes.",
            "percentunit",
            Query(
                f"max by (instance, model) (build_instance:kinglet_queue_requests:ratio_avg5m{{{SERVER}}})",
                "{{model}} on {{instance}}",
            ),
        ),
        graph(
            "Fullness of servers",
            "Requests admitted and not yet answered, of those that may be; a mean over five minutes.",
            "percentunit",
            Query(f"job_instance:kinglet_in_flight_requests:ratio_avg5m{{{SERVER}}}", "{{instance}}"),
        ),
        graph(
            "Refused for load",
            "At the door by reason, by full queues and for power (overloaded, the door's included); connections that were closed at once.",
            "reqps",
            Query(f"sum by (reason) ({rate('kinglet_admission_refused_total', SERVER)})", "door: {{reason}}"),
            Query(
                f"sum({rate('kinglet_requests_total', OVERLOADED)})",
                "told overloaded",
            ),
            Query(f"sum({rate('kinglet_power_refused_total', SERVER)})", "for power"),
            Query(
                f"sum by (listener, reason) ({rate('kinglet_connections_refused_total', SERVER)})",
                "connections of {{listener}}: {{reason}}",
            ),
        ),
        graph(
            "Time to refuse",
            "From the end of a request's body to its refusal for load.",
            "s",
            Query(quantile(0.99, "kinglet_refusal_duration_seconds", SERVER), "p99"),
        ),
        graph(
            "Bytes inside",
            "Inputs of requests in flight, bodies that are still arriving, and answers that nobody has taken yet.",
            "bytes",
            Query(f"sum(kinglet_in_flight_bytes{{{SERVER}}})", "in flight"),
            Query(f"sum(kinglet_receiving_bytes{{{SERVER}}})", "arriving"),
            Query(f"sum(kinglet_leaving_bytes{{{SERVER}}})", "leaving"),
        ),
    ]
    yield "Budgets", [stage(), unmet(), against_limit()]
    yield "Processes", [
        graph(
            "CPU",
            "Cores' worth of CPU time of the process: batches, connections, coding, loads.",
            "short",
            Query(rate("process_cpu_seconds_total", SERVER), "{{instance}}"),
        ),
        graph("Memory", "Resident memory.", "bytes", Query(f"process_resident_memory_bytes{{{SERVER}}}", "{{instance}}")),
        graph(
            "Open file descriptors",
            "Of those that the process may open.",
            "percentunit",
            Query(f"process_open_fds{{{SERVER}}} / process_max_fds{{{SERVER}}}", "{{instance}}"),
        ),
        graph(
            "Age",
            "Time since the process started: a drop is a restart.",
            "s",
            Query(f"time() - process_start_time_seconds{{{SERVER}}}", "{{instance}}"),
        ),
        graph(
            "Panics",
            "Batches that ended in a panic, a second.",
            "cps",
            Query(f"sum by (instance) ({rate('kinglet_panics_total', SERVER)})", "{{instance}}"),
        ),
        graph(
            "Releases",
            "Servers by the version of their binary.",
            "short",
            Query(f"count by (version) (kinglet_build_info{{{SERVER}}})", "{{version}}"),
        ),
    ]
    yield "Energy", [parts(), per_inference(SERVER)]
