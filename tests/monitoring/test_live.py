"""Every expression that is delivered, asked of the real Prometheus while it reads real servers: each brings numbers."""

import time

import pytest

from expressions import operands, substituted, with_short_offset
from files import ALERTS, DASHBOARDS, PANELS, RECORDS, TARGETS
from traffic import ACCURACY, ACCURACY_SMALL

# Windows that the meter costs come every few seconds; a rate of them needs two.
WAIT_SECONDS_MAX = 30
SHOWN_SECONDS = 20
EVERYTHING = dict.fromkeys(("job", "instance", "model", "version", "variant"), ".*")
PANELS_BY_TITLE = dict(PANELS)
CONDITIONS = [(name, part) for name, alert in ALERTS.items() for part in operands(alert["expr"])]


def brings_numbers(live, expr: str, seconds: int = 0) -> None:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while not live.prometheus.values(expr, seconds):
        assert time.monotonic() < until, f"no numbers for {expr}"
        time.sleep(0.5)


def test_the_servers_are_read(live):
    targets = live.prometheus.ask("targets")["activeTargets"]
    assert {target["labels"]["instance"] for target in targets} == {server.admin for server in live.servers}
    assert {(target["health"], target["lastError"]) for target in targets} == {("up", "")}


@pytest.mark.parametrize("name", RECORDS)
def test_a_rule_records(live, name):
    brings_numbers(live, name)
    brings_numbers(live, with_short_offset(RECORDS[name]["expr"]))


@pytest.mark.parametrize(("name", "part"), CONDITIONS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CONDITIONS)])
def test_an_alert_has_something_to_look_at(live, name, part):
    brings_numbers(live, with_short_offset(part))


def test_rules_are_evaluated_without_errors(live):
    groups = live.prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(ALERTS) | set(RECORDS)
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}


def test_an_alert_tells_what_it_has_found(live):
    """A model that is no model is waiting to be told of, with its name in the words."""
    alerts = live.prometheus.ask("alerts")["alerts"]
    broken, *_ = [alert for alert in alerts if alert["labels"]["alertname"] == "KingletModelNotLoaded"]
    assert broken["labels"]["severity"] == "ticket" and broken["state"] == "pending"
    assert broken["annotations"]["summary"] == f"broken did not load on {broken['labels']['instance']}"
    assert not [alert for alert in alerts if "error expanding" in str(alert["annotations"])]


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{title} {target['refId']}" for title, target in TARGETS])
@pytest.mark.parametrize("choice", ["everything", "one build"])
def test_a_panel_shows_numbers(live, title, target, choice):
    chosen = EVERYTHING
    if choice == "one build":
        instances = [server.admin for server in live.servers]
        chosen = {"job": "kinglet", "instance": instances, "model": "digits", "version": "1", "variant": ["small", ""]}
    expr = with_short_offset(substituted(target["expr"], chosen))
    # A label with an empty value is none: what is counted for a model as a whole, and a version's own build.
    brings_numbers(live, expr, SHOWN_SECONDS if target["range"] else 0)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_have_values(live, name):
    for variable in DASHBOARDS[name]["templating"]["list"]:
        if variable["type"] != "query":
            continue
        query = variable["query"]["query"].removeprefix("label_values(").removesuffix(")")
        series, _, label = substituted(query, EVERYTHING).rpartition(", ")
        assert live.prometheus.ask(f"label/{label}/values", **{"match[]": series}), variable["name"]


def test_measured_and_modelled_stand_apart(live):
    """One build, asked on two servers: two figures, each from its own source."""
    per_inference = 'build_source_quality:kinglet_energy_per_inference_joules:ratio_rate1h{model="digits", variant=""}'
    found = live.prometheus.ask("query", query=per_inference)["result"]
    origins = {(series["metric"]["source"], series["metric"]["quality"]) for series in found}
    assert origins == {("model", "modelled"), ("file", "measured")} and len(found) == 2


def test_a_limit_of_power_that_refuses_is_told_of(live):
    """Of the server that has one, by alerts that wait for their minutes."""
    wanted = {("KingletRefusesForPower", live.limited.admin), ("KingletPowerLimitExceeded", live.limited.admin)}

    def found():
        labels = [alert["labels"] for alert in live.prometheus.ask("alerts")["alerts"]]
        names = {name for name, _ in wanted}
        return {(of["alertname"], of["instance"]) for of in labels if of["alertname"] in names}

    until = time.monotonic() + WAIT_SECONDS_MAX
    while found() != wanted:
        assert time.monotonic() < until, found()
        time.sleep(0.5)


def test_the_stage_is_told_by_its_name(live):
    panel = PANELS_BY_TITLE["overview: Stage"]
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    (target,) = panel["targets"]
    for server in live.servers:
        (place,) = live.prometheus.values(substituted(target["expr"], EVERYTHING | {"instance": server.admin}))
        assert mapping["options"][str(int(place))]["text"] == ("cheapest" if server is live.limited else "accuracy")


def test_what_answers_are_worth_lies_between_their_builds(live):
    (target,) = PANELS_BY_TITLE["model: Accuracy of answers"]["targets"]
    worth = live.prometheus.values(substituted(target["expr"], EVERYTHING), SHOWN_SECONDS)
    assert worth and all(ACCURACY_SMALL < accuracy < ACCURACY for accuracy in worth), worth
