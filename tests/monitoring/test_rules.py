"""The rules by themselves: what promtool says of them, and what the house asks of them."""

import os
import re
import subprocess
from pathlib import Path

import promql_parser as promql
import pytest

from expressions import metrics, selectors
from files import ALERTS, PROMETHEUS, RECORDS, ROOT, RULE_FILES, RULE_TESTS, TARGETS, read

# What Prometheus itself adds to what it reads.
SCRAPED = {"job", "instance", "le"}


def promtool(*arguments: str | Path) -> None:
    tool = Path(os.environ["MONITORING_HOME"]) / "prometheus/usr/bin/promtool"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_files():
    promtool("check", "config", PROMETHEUS / "prometheus.yaml")
    promtool("check", "rules", *RULE_FILES)


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.name)
def test_alerts_fire_when_they_should_and_only_then(file):
    promtool("test", "rules", file)


def test_every_alert_is_made_to_fire():
    fired = {
        selector_label(sample["labels"], "alertname")
        for file in RULE_TESTS
        for group in read(file)["tests"]
        for case in group["promql_expr_test"]
        for sample in case["exp_samples"]
        if "alertname" in sample["labels"]
    }
    assert fired == set(ALERTS)


def test_the_healthy_case_has_all_that_alerts_look_at():
    healthy = read(next(file for file in RULE_TESTS if file.name == "alerts.test.yaml"))["tests"][0]
    there = {selectors(promql.parse(series["series"]))[0].name for series in healthy["input_series"]}
    wanted = {name for alert in ALERTS.values() for name in sources(alert["expr"])}
    assert wanted == there


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name):
    alert = ALERTS[name]
    assert name.startswith("Kinglet") and alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == name.lower() and name in headings


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_named_level_metric_operations(name):
    level, metric, operations = name.split(":")
    assert set(level.split("_")) <= {"job", "instance", "build", "source", "quality"}
    assert metric.startswith("kinglet_") and re.fullmatch(r"(ratio_)?(rate|avg)\d+[mhd]", operations)


def test_expressions_name_only_what_is_exported():
    exported = catalogue()
    for expr in [rule["expr"] for rule in (*ALERTS.values(), *RECORDS.values())] + [target["expr"] for _, target in TARGETS]:
        for selector in selectors(promql.parse(expr.replace("$__rate_interval", "1m").replace("$__range", "1m"))):
            if selector.name == "up" or selector.name in RECORDS:
                continue
            name = selector.name if selector.name in exported else re.sub(r"_(bucket|sum|count)$", "", selector.name)
            assert name in exported, f"{selector.name} in {expr}"
            labels = {matcher.name for matcher in selector.matchers.matchers}
            assert labels <= exported[name] | SCRAPED, f"{labels} of {selector.name} in {expr}"


def catalogue() -> dict[str, set[str]]:
    """Every metric of docs/metrics.md, which is printed from the server's own catalogue, with its labels."""
    rows = (line.split(" | ") for line in (ROOT / "docs/metrics.md").read_text().splitlines() if line.startswith("| `"))
    return {row[0].strip("| `"): set(re.findall(r"`(\w+)`", row[2])) for row in rows}


def sources(expr: str) -> set[str]:
    """The exported metrics behind an expression, through the rules that record it."""
    found = set()
    for name in metrics(expr):
        found |= sources(RECORDS[name]["expr"]) if name in RECORDS else {name}
    return found


def selector_label(series: str, label: str) -> str:
    matchers = selectors(promql.parse(series))[0].matchers.matchers
    return next(matcher.value for matcher in matchers if matcher.name == label)
