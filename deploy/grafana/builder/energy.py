"""The dashboard of energy, and the panels of it that others show too.

Joules that were measured are never added to joules from a model: every sum keeps source and quality, and every legend says
them. What a server does not know it does not export, and nothing here makes a zero of it.
"""

from .budgets import stage
from .panels import BUILD, SERVER, Query, board, graph, listing, number, quantile, rate

ORIGIN = "source, quality"
ORIGIN_LEGEND = "({{source}}, {{quality}})"
BUILD_LABELS = "model, version, variant"
BUILD_LEGEND = "{{model}} {{version}} {{variant}} " + ORIGIN_LEGEND
METHOD = "Source and quality stand in the legend: measured by counters, or modelled from CPU time."


def dashboard():
    labels = ["model", "version", "variant"]
    return board("energy", "Kinglet: energy", "Joules: where they come from, and what takes them.", labels, rows())


def rows():
    yield "Source", [
        number(
            "Power",
            "What the sources count that is shared out: packages and memory; the whole machine where there are no packages. "
            + METHOD,
            "watt",
            Query(shared_out(), ORIGIN_LEGEND),
        ),
        number(
            "Part of models",
            "Energy of models' batches, of all that is shared out, idle power included. " + METHOD,
            "percentunit",
            Query(
                f"sum by ({ORIGIN}) ({rate('kinglet_energy_attributed_joules_total', SERVER)})"
                f" / ({shared_out()})",
                ORIGIN_LEGEND,
            ),
        ),
        number(
            "Windows dropped",
            "Windows whose energy is not known, within the chosen time. None at all reads unknown.",
            "short",
            Query(f"sum by (reason) (increase(kinglet_energy_windows_dropped_total{{{SERVER}}}[$__range]))", "{{reason}}"),
            limits=[1, 60],
        ),
        listing(
            "Sources",
            "Where each server's energy comes from, what it is worth, whose coefficients a model has, and what is taken for idle "
            "power. A server that is not listed knows none.",
            f"kinglet_energy_source_info{{{SERVER}}}",
        ),
    ]
    yield "Power", [
        parts(),
        watts_by_build(BUILD),
        graph(
            "Watts by domain",
            "As the source counts them. Domains are within each other: cores and uncore in packages, all of them in psys; "
            "they do not add up. " + METHOD,
            "watt",
            Query(
                f"sum by (instance, domain, {ORIGIN}) ({rate('kinglet_energy_joules_total', SERVER)})",
                "{{instance}} {{domain}} " + ORIGIN_LEGEND,
            ),
        ),
    ]
    yield "Limit of power", [
        against_limit(),
        graph(
            "Refused for power",
            "Requests refused because what the limit leaves was taken; clients are told overloaded.",
            "reqps",
            Query(f"sum by (instance) ({rate('kinglet_power_refused_total', SERVER)})", "{{instance}}"),
        ),
        stage(),
    ]
    yield "Inferences", [
        per_inference(BUILD),
        graph(
            "Joules per inference, against a day ago",
            "1 is as much as at this hour of the day before, from the same source; means of an hour. An alert looks at 1.25. "
            + METHOD,
            "short",
            Query(
                f"build_source_quality:kinglet_energy_per_inference_joules:ratio_rate1h{{{PLACELESS}}}"
                f" / (build_source_quality:kinglet_energy_per_inference_joules:ratio_rate1h{{{PLACELESS}}} offset 1d)",
                BUILD_LEGEND,
            ),
        ),
        graph(
            "Joules of a request, as its answer says them",
            "An estimate of its moment: CPU time at the last window's price, rounded up to the quantum. " + METHOD,
            "joule",
            *(
                Query(quantile(rank, "kinglet_request_energy_joules", BUILD, ORIGIN), name + " " + ORIGIN_LEGEND)
                for rank, name in ((0.5, "p50"), (0.99, "p99"))
            ),
        ),
    ]
    yield "Carbon", [
        graph(
            "Operational carbon of models",
            "Grams of CO2 equivalent an hour, by metering.carbon_intensity; nothing without one. " + METHOD,
            "massg",
            Query(
                f"sum by ({BUILD_LABELS}, {ORIGIN}) ({rate('kinglet_carbon_operational_grams_total', BUILD)}) * 3600",
                BUILD_LEGEND,
            ),
        ),
        graph(
            "Embodied carbon of machines",
            "Grams of CO2 equivalent an hour, by metering.carbon_embodied; nothing without it.",
            "massg",
            Query(f"sum by (instance) ({rate('kinglet_carbon_embodied_grams_total', SERVER)}) * 3600", "{{instance}}"),
        ),
        graph(
            "What metering takes",
            "CPU time of the thread that reads the source, of one core.",
            "percentunit",
            Query(rate("kinglet_energy_sampler_cpu_seconds_total", SERVER), "{{instance}}"),
        ),
    ]


def parts():
    """Whose energy it is."""
    named = {
        "attributed": "models",
        "overhead": "server outside of batches",
        "other": "other processes",
        "idle": "idle",
    }
    return graph(
        "Watts by part",
        "Models' batches, this server outside of them, other processes, and what the machine takes idle: together what the "
        "source counts. " + METHOD,
        "watt",
        *(
            Query(
                f"sum by ({ORIGIN}) ({rate(f'kinglet_energy_{part}_joules_total', SERVER)})",
                f"{name} {ORIGIN_LEGEND}",
            )
            for part, name in named.items()
        ),
    )


def against_limit():
    return graph(
        "Power and its limit",
        "What the machine takes, idling and other processes included; budgets.power_watts_max; and what of it batches may "
        "take, which is known while requests are refused for it. " + METHOD,
        "watt",
        Query(shared_out("instance, "), "{{instance}} " + ORIGIN_LEGEND),
        Query(f"kinglet_power_limit_watts{{{SERVER}}}", "{{instance}}: limit"),
        Query(f"kinglet_power_allowance_watts{{{SERVER}}}", "{{instance}}: batches may take"),
    )


def per_inference(matchers: str):
    """Rows count by the source of the server that computed them, as in the recording rules."""
    return graph(
        "Joules per inference",
        "Energy of a build's batches over its rows; idle power is in none of it. " + METHOD,
        "joule",
        Query(
            f"sum by ({BUILD_LABELS}, {ORIGIN}) ({rate('kinglet_energy_attributed_joules_total', matchers)})"
            f" / sum by ({BUILD_LABELS}, {ORIGIN}) ({rate('kinglet_rows_total', matchers)}"
            f" * on (job, instance) group_left ({ORIGIN}) kinglet_energy_source_info{{{SERVER}}})",
            BUILD_LEGEND,
        ),
    )


def watts_by_build(matchers: str):
    return graph(
        "Watts by model",
        "Energy of a build's batches; idle power is in none of it. " + METHOD,
        "watt",
        Query(
            f"sum by ({BUILD_LABELS}, {ORIGIN}) ({rate('kinglet_energy_attributed_joules_total', matchers)})",
            BUILD_LEGEND,
        ),
    )


def shared_out(by: str = "") -> str:
    """The parts together: domains would count twice what is within them. A server has all four, or none."""
    parts = ("attributed", "overhead", "other", "idle")
    rates = (rate(f"kinglet_energy_{part}_joules_total", SERVER) for part in parts)
    return " + ".join(f"sum by ({by}{ORIGIN}) ({each})" for each in rates)


# The records of energy are sums over instances.
PLACELESS = 'job=~"$job", model=~"$model", version=~"$version", variant=~"$variant"'
