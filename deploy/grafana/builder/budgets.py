"""Panels of budgets that several dashboards show: by what builds are chosen, and what no build keeps."""

from .panels import SERVER, Query, graph, timeline

# From the most accurate builds to the cheapest, each with a colour.
STAGES = {"accuracy": "green", "balanced": "yellow", "eco": "orange", "cheapest": "red"}


def stage():
    """Exactly one stage of a server is 1, so that the sum is the place of that one."""
    places = [
        f'{place} * sum by (instance) (kinglet_budget_stage{{{SERVER}, stage="{name}"}})' for place, name in enumerate(STAGES)
    ]
    return timeline(
        "Stage",
        "By what builds are chosen where requests leave a choice: the mode's stage, or one further where power or carbon ask "
        "for it. Only the limit of power goes to cheapest, and only there it refuses.",
        STAGES,
        Query(" + ".join(places), "{{instance}}"),
    )


def unmet():
    return graph(
        "Budgets unmet",
        "Requests refused because no build keeps to their budget, of all requests; a mean over five minutes. An alert looks at "
        "5 %.",
        "percentunit",
        Query(f"job_instance:kinglet_unmet_budgets:ratio_rate5m{{{SERVER}}}", "{{instance}}"),
    )
