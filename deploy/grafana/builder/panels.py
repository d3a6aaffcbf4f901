"""What the dashboards share: variables, and panels of one look. Which panels there are is their own matter."""

from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Matchers for what the variables choose: servers, and builds of models on them.
SERVER = 'job=~"$job", instance=~"$instance"'
BUILD = SERVER + ', model=~"$model", version=~"$version", variant=~"$variant"'
# A variable whose value is "All" matches builds without the label, too: a version's own build has no variant.
ALL = ".*"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# The grid has 24 columns.
WIDTH, HEIGHT, STAT_HEIGHT = 8, 8, 4


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str


def rate(metric: str, matchers: str) -> str:
    return f"rate({metric}{{{matchers}}}[$__rate_interval])"


def quantile(rank: float, histogram: str, matchers: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({rank}, sum by ({labels}) ({rate(histogram + '_bucket', matchers)}))"


def board(name: str, title: str, description: str, labels: list[str], rows) -> dashboard.Dashboard:
    """A dashboard of rows, with variables for the data source, jobs, instances, and `labels` of builds."""
    made = (
        dashboard.Dashboard(title)
        .uid(f"kinglet-{name}")
        .description(description)
        .tags(["kinglet"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Kinglet")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["kinglet"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    chosen = []
    for label in ["job", "instance", *labels]:
        family = "kinglet_model_ready" if label in labels else "kinglet_build_info"
        matchers = ", ".join(f'{before}=~"${before}"' for before in chosen)
        series = f"{family}{{{matchers}}}" if matchers else family
        made.with_variable(choice(label, f"label_values({series}, {label})"))
        chosen.append(label)
    for heading, panels in rows:
        made.with_row(dashboard.Row(heading))
        for panel in panels:
            made.with_panel(panel)
    return made


def choice(label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query({"query": query, "refId": label})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(ALL)
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def graph(
    title: str, description: str, unit: str, *queries: Query, stacked: bool = False, from_zero: bool = True
) -> timeseries.Panel:
    """Lines over time. What is not known is a gap: no line is drawn across it, and none at zero."""
    panel = (
        timeseries.Panel()
        .unit(unit)
        .draw_style(kinds.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(8)
        .show_points(kinds.VisibilityMode.AUTO)
        .span_nulls(False)
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.TABLE)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )
    if from_zero:
        panel.min(0)
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    return described(panel, title, description, HEIGHT, WIDTH, queries)


def timeline(title: str, description: str, states: dict[str, str], *queries: Query) -> statetimeline.Panel:
    """A bar for each series, in the colours of its states; a value is the place of one of them."""
    named = {
        str(place): models.ValueMappingResult(text=name, color=color, index=place)
        for place, (name, color) in enumerate(states.items())
    }
    panel = (
        statetimeline.Panel()
        .unit("short")
        .mappings([models.ValueMap(options=named)])
        .merge_values(True)
        .show_value(kinds.VisibilityMode.AUTO)
        .legend(common.VizLegendOptions().show_legend(False).display_mode(kinds.LegendDisplayMode.LIST))
    )
    return described(panel, title, description, HEIGHT, WIDTH, queries)


def number(title: str, description: str, unit: str, *queries: Query, limits: list[float] | None = None) -> stat.Panel:
    """The last values. From the first of `limits` on they are orange, from the second on red."""
    colours = ["orange", "red"]
    steps = [models.Threshold(value=None, color="green")]
    steps += [models.Threshold(value=limit, color=colour) for limit, colour in zip(limits or [], colours)]
    panel = (
        stat.Panel()
        .unit(unit)
        .no_value("unknown")
        .graph_mode(kinds.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    )
    return described(panel, title, description, STAT_HEIGHT, 4, queries)


def listing(title: str, description: str, expr: str) -> table.Panel:
    """A row of labels for each series of this moment."""
    hidden = dict.fromkeys(("Time", "Value", "__name__"), True)
    organize = models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
    panel = table.Panel().unit("short").with_transformation(organize)
    return described(panel, title, description, HEIGHT, WIDTH, [Query(expr, "")], at_once=True)


def described(panel, title: str, description: str, height: int, width: int, queries, at_once: bool = False):
    """The panel with its words, place and queries: over time, or at once for the rows of a table."""
    panel.title(title).description(description).datasource(SOURCE).height(height).span(width)
    for letter, query in zip("ABCDEFGH", queries):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend).datasource(SOURCE)
        if at_once:
            target.instant().format(PromQueryFormat.TABLE)
        else:
            target.range()
        panel.with_target(target)
    return panel
