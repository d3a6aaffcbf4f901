"""One Kinglet on free loopback ports, with what the modes ask of it: readiness, metrics, statistics, loads and unloads."""

from __future__ import annotations

import http.client
import json
import re
import time
from pathlib import Path

from process import Session, free_ports

READY_LIMIT_S = 120
RESIDENT = {"rss": "VmRSS", "own": "RssAnon", "file": "RssFile"}


class Kinglet:
    """Use as a context. `settings` are the lines of a configuration file; the rest are the server's defaults."""

    def __init__(self, binary: Path, repositories: list[Path], folder: Path, settings: str = "", control: str = "none") -> None:
        self.http, self.grpc, self.admin = (f"127.0.0.1:{port}" for port in free_ports(3))
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.toml"
        paths = ", ".join(json.dumps(str(path)) for path in repositories)
        config.write_text(f'[repository]\npaths = [{paths}]\ncontrol = "{control}"\n{settings}')
        self.command = [str(binary), "serve", f"--config={config}", f"--http={self.http}", f"--grpc={self.grpc}", f"--admin={self.admin}"]
        self.folder = folder

    def __enter__(self) -> Kinglet:
        self.session = Session(self.command, {}, self.folder, self.folder / "server.log")
        try:
            self.wait_ready()
        except BaseException:
            self.session.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.session.stop()

    def wait_ready(self) -> None:
        while self.session.alive() and time.monotonic() - self.session.started < READY_LIMIT_S:
            try:
                if self.ask("GET", "/v2/health/ready")[0] == 200:
                    return
            except OSError:  # it does not listen yet
                pass
            time.sleep(0.02)
        raise RuntimeError(f"expected the server to become ready; its last words: {self.session.last_words()}")

    def ask(self, method: str, path: str, body: dict | None = None, address: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address or self.http, timeout=300)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def load(self, model: str) -> None:
        self.must("POST", f"/v2/repository/models/{model}/load")

    def unload(self, model: str) -> None:
        """Returns when the model is gone from the index, which is after the answer."""
        self.must("POST", f"/v2/repository/models/{model}/unload")
        end = time.monotonic() + READY_LIMIT_S
        while any(line["name"] == model for line in self.index(ready=True)):
            if time.monotonic() > end:
                raise RuntimeError(f"expected {model} to leave the index, it is still ready")
            time.sleep(0.02)

    def index(self, ready: bool = False) -> list[dict]:
        return json.loads(self.must("POST", "/v2/repository/index", {"ready": ready}))

    def memory(self) -> dict[str, float]:
        """Resident MiB: all of it, what of it is the process's own, and what is backed by files (code, above all)."""
        status = Path(f"/proc/{self.session.process.pid}/status").read_text()
        sizes = {name: re.search(rf"{field}:\s+(\d+) kB", status) for name, field in RESIDENT.items()}
        return {name: int(size[1]) / 1024 if size else 0.0 for name, size in sizes.items()}  # none where it has just ended

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of that name which carry the labels."""
        total = 0.0
        for line in self.must("GET", "/metrics", address=self.admin).decode().splitlines():
            found = re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line)
            if found and found[1] == name and all(f'{key}="{value}"' in (found[2] or "") for key, value in labels.items()):
                total += float(found[3])
        return total

    def must(self, method: str, path: str, body: dict | None = None, address: str | None = None) -> bytes:
        status, answer = self.ask(method, path, body, address)
        if status != 200:
            raise RuntimeError(f"{method} {path}: expected 200, got {status}: {answer[:300]!r}")
        return answer
