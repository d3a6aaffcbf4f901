"""The files under test, read."""

import json
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
GRAFANA = ROOT / "deploy/grafana"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yaml"))
RULE_TESTS = sorted(Path(__file__).parent.glob("*.test.yaml"))
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


RULES = [rule for path in RULE_FILES for group in read(path)["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in RULES if "record" in rule}
PANELS = [
    (f"{name}: {panel['title']}", panel)
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
TARGETS = [(title, target) for title, panel in PANELS for target in panel["targets"]]
