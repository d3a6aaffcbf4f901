"""The real Prometheus on a free loopback port, over the files of deploy/prometheus with the times of a test."""

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

from expressions import with_short_offset
from files import PROMETHEUS, RULE_FILES, read
from server import free_ports

READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10


class Prometheus:
    """Scrapes the targets every second. Use as a context.

    The rules are the project's own. Two times differ, because nobody waits a day: groups are evaluated every second, and
    what looks back a day looks back seconds. The windows of rates are as they stand: a rate needs two samples, however long
    its window is.
    """

    def __init__(self, targets: list[str], folder: Path):
        self._folder = folder
        self._targets = targets
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.log = folder / "prometheus.log"

    def __enter__(self) -> "Prometheus":
        home = Path(os.environ["MONITORING_HOME"]) / "prometheus/usr"
        command = [
            home / "bin/prometheus",
            f"--config.file={self._configure()}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address={self.address}",
            f"--web.local-assets={home / 'share/prometheus/web'}",
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + READY_SECONDS_MAX
        while not self._is_ready():
            if time.monotonic() > until or self._process.poll() is not None:
                self.__exit__()
                raise RuntimeError(f"Prometheus did not become ready:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait(STOP_SECONDS_MAX)

    def _configure(self) -> Path:
        config = read(PROMETHEUS / "prometheus.yaml")
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": self._targets}]
        config["rule_files"] = []
        for path in RULE_FILES:
            rules = read(path)
            for rule in (rule for group in rules["groups"] for rule in group["rules"]):
                rule["expr"] = with_short_offset(rule["expr"])
            (self._folder / path.name).write_text(yaml.safe_dump(rules))
            config["rule_files"].append(path.name)
        written = self._folder / "prometheus.yaml"
        written.write_text(yaml.safe_dump(config))
        return written

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def ask(self, path: str, **query) -> object:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query, doseq=True)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expr: str, seconds: int = 0) -> list[float]:
        """Every number that a query brings: of this moment, or of the last `seconds`. What is not a number is none."""
        if seconds:
            now = time.time()
            series = self.ask("query_range", query=expr, start=now - seconds, end=now, step=1)["result"]
            samples = [sample for one in series for sample in one["values"]]
        else:
            samples = [one["value"] for one in self.ask("query", query=expr)["result"]]
        return [float(value) for _, value in samples if value != "NaN"]
