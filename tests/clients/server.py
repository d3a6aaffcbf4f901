"""A running Kinglet for the tests: starts the release binary, waits until it is ready, stops it.

Knows command line, environment and health only; what is asked of the server is the tests' matter.
"""

import http.client
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

STOP_SECONDS_MAX = 20


class Server:
    """One process on three free loopback ports. Use as a context."""

    def __init__(
        self,
        repositories: list[Path],
        log: Path,
        settings: dict[str, str] | None = None,
        open_files_max: int | None = None,
        config: Path | None = None,
    ):
        self.log = log
        self.config = config
        self._open_files_max = open_files_max
        self.ready_seconds_max = 60
        self._repositories = repositories
        self._settings = settings or {}
        http_port, grpc_port, admin_port = free_ports(3)
        self.http = f"127.0.0.1:{http_port}"
        self.grpc = f"127.0.0.1:{grpc_port}"
        self.admin = f"127.0.0.1:{admin_port}"
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        command = [binary(), "serve", "--http", self.http, "--grpc", self.grpc, "--admin", self.admin]
        for repository in self._repositories:
            command += ["--repository", str(repository)]
        if self.config:
            command += ["--config", str(self.config)]
        if self._open_files_max:
            command = ["sh", "-c", f'ulimit -n {self._open_files_max}; exec "$@"', "sh", *command]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KINGLET__")}
        environment.update(self._settings)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_ready(self) -> None:
        until = time.monotonic() + self.ready_seconds_max
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"server ended with {self.process.returncode}:\n{self.log_end()}")
            if self.is_ready():
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"not ready after {self.ready_seconds_max} s:\n{self.log_end()}")

    def is_ready(self) -> bool:
        return health(self.http, "ready") == 200

    def terminate(self) -> None:
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_exit(self) -> int:
        return self.process.wait(STOP_SECONDS_MAX)

    def stop(self) -> None:
        """A second signal ends the process at once, whatever its drain delay."""
        for stop in (self.terminate, self.terminate, self.process.kill):
            if self.process.poll() is not None:
                return
            stop()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                continue

    def log_end(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def binary() -> str:
    return str(Path(os.environ.get("KINGLET_BIN", "target/release/kinglet")).resolve())


def health(address: str, what: str) -> int | None:
    """Status of /v2/health/WHAT, None while nothing listens."""
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", f"/v2/health/{what}")
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def free_ports(count: int) -> list[int]:
    """Ports free a moment ago: all are held while the next is asked for, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()
