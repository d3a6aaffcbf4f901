"""The files under test, read, and what they have to agree with."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm/kinglet"
DEFAULTS = tomllib.loads((ROOT / "config/default.toml").read_text())
# What the image has where nothing else is said.
PORTS = {"http": 8000, "grpc": 8001, "admin": 8002}
# What an end takes besides its delay and its grace.
END_SECONDS = 5


def documents(text: str) -> list[dict]:
    return [document for document in yaml.safe_load_all(text) if document]


def read(path: Path) -> dict:
    (document,) = documents(path.read_text())
    return document


VALUES = read(CHART / "values.yaml")
RUNTIME = read(DEPLOY / "kserve/runtime.yaml")
SAMPLES = {path.stem: read(path) for path in sorted((DEPLOY / "kserve/samples").glob("*.yaml"))}
COMPOSE = read(DEPLOY / "compose.yaml")
RULES = [group for path in sorted((DEPLOY / "prometheus/rules").glob("*.yaml")) for group in read(path)["groups"]]
# Every metric of docs/metrics.md, which is printed from the server's own catalogue.
METRICS = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
# The paths of health, as docs/operations.md has them.
PROBES = set(re.findall(r"^\| `(/v2/health/\w+)`", (ROOT / "docs/operations.md").read_text(), re.MULTILINE))


def seconds(duration: str) -> int:
    """A duration of the configuration in whole seconds, rounded up."""
    count, unit = re.fullmatch(r"(\d+)(ns|us|ms|s|m|h)", duration).groups()
    thousandths = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}[unit]
    return -int(-int(count) * thousandths // 1000)


def size(text: str) -> int:
    """Bytes, in the units of the configuration or those of Kubernetes."""
    count, unit = re.fullmatch(r"(\d+)([KMGT]i)B?", text).groups()
    return int(count) << {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[unit]


def metrics(expr: str) -> set[str]:
    """The names of our metrics in an expression."""
    return set(re.findall(r"\bkinglet_\w+", re.sub(r'"[^"]*"', "", expr)))
