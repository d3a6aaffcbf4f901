"""The dashboards by themselves: as the generator writes them, readable, and honest about energy."""

import subprocess
import sys

import promql_parser as promql
import pytest

from expressions import nodes, selectors
from files import DASHBOARDS, GRAFANA, PANELS, PROMETHEUS, TARGETS, read

VARIABLES = {
    "overview": ["datasource", "job", "instance"],
    "model": ["datasource", "job", "instance", "model", "version", "variant"],
    "energy": ["datasource", "job", "instance", "model", "version", "variant"],
}
# Families whose series say where their joules come from.
ENERGY = (
    "kinglet_energy_",
    "kinglet_request_energy_",
    "kinglet_carbon_operational_",
    "build_source_quality:",
    "job_instance_source_quality:",
)
WITHOUT_ORIGIN = ("kinglet_energy_windows_dropped_total", "kinglet_energy_sampler_cpu_seconds_total")


def test_the_files_are_what_the_generator_writes(tmp_path):
    subprocess.run([sys.executable, GRAFANA / "generate", tmp_path], check=True, timeout=60)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in (GRAFANA / "dashboards").iterdir()}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_dashboard_can_be_narrowed(name):
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"kinglet-{name}" and dashboard["title"] and dashboard["description"]
    variables = dashboard["templating"]["list"]
    assert [variable["name"] for variable in variables] == VARIABLES[name]
    assert all(variable.get("allValue", ".*") == ".*" for variable in variables)


@pytest.mark.parametrize(("title", "panel"), PANELS, ids=[title for title, _ in PANELS])
def test_a_panel_explains_itself(title, panel):
    assert panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"] and all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{title} {target['refId']}" for title, target in TARGETS])
def test_joules_keep_their_origin(title, target):
    """No sum adds what was measured to what was modelled, every legend says which it is, and no zero is made up."""
    node = promql.parse(target["expr"].replace("$__rate_interval", "1m").replace("$__range", "1m"))
    assert not any(isinstance(inner, promql.Call) and inner.func.name == "vector" for inner in nodes(node))
    energy = [selector for selector in selectors(node) if has_origin(selector.name)]
    if not energy:
        return
    for sum_of in (inner for inner in nodes(node) if isinstance(inner, promql.AggregateExpr)):
        if any(has_origin(selector.name) for selector in selectors(sum_of)):
            assert sum_of.modifier.type == promql.AggModifierType.By, str(sum_of)
            assert {"source", "quality"} <= set(sum_of.modifier.labels), str(sum_of)
    if target.get("format") != "table":
        assert "{{source}}" in target["legendFormat"] and "{{quality}}" in target["legendFormat"]


def has_origin(name: str) -> bool:
    return name.startswith(ENERGY) and name not in WITHOUT_ORIGIN


def test_lines_end_where_nothing_is_known():
    for title, panel in PANELS:
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False, title


def test_provisioning_goes_with_the_scrapes():
    source = read(GRAFANA / "provisioning/datasources/kinglet.yaml")["datasources"][0]
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == read(PROMETHEUS / "prometheus.yaml")["global"]["scrape_interval"]
    provider = read(GRAFANA / "provisioning/dashboards/kinglet.yaml")["providers"][0]
    assert provider["type"] == "file" and provider["options"]["path"]
