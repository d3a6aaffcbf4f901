"""A Kinglet to measure, requests at random times, and readings of its metrics. Standard library and numpy alone."""

from __future__ import annotations

import http.client
import json
import os
import queue
import random
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

BINARY = os.environ.get("KINGLET_BIN", "target/release/kinglet")


class Server:
    """One process on three free loopback ports. Use as a context."""

    def __init__(self, repository: Path, settings: dict[str, str]):
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.http, self.grpc, self.admin = (f"127.0.0.1:{held.getsockname()[1]}" for held in sockets)
        for held in sockets:
            held.close()
        command = [BINARY, "serve", "--repository", str(repository)]
        command += ["--http", self.http, "--grpc", self.grpc, "--admin", self.admin]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KINGLET__")}
        self.process = subprocess.Popen(command, env=clean | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Server:
        for _ in range(1200):
            try:
                connection = http.client.HTTPConnection(self.http)
                connection.request("GET", "/v2/health/ready")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError("the server did not become ready")

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(30)

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(self.admin)
        connection.request("GET", path)
        return connection.getresponse().read()

    def energy(self) -> dict:
        return json.loads(self.get("/admin/energy"))

    def total(self, name: str) -> float:
        lines = self.get("/metrics").decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


class Load:
    """Raw requests of one model as a Poisson process at `rate` a second, which may change, by so many connections."""

    def __init__(self, server: Server, model: str, bodies: list[bytes], connections: int = 32):
        self.rate = 1.0
        self.answers: list[tuple] = []
        self._bodies, self._path, self._address = bodies, f"/v2/models/{model}/infer", server.http
        self._queue: queue.Queue = queue.Queue()
        self._ended, self._woken = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(connections)]
        self._threads.append(threading.Thread(target=self._send, daemon=True))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def wake(self) -> None:
        """Draws the next arrival anew, by the rate of now."""
        self._woken.set()

    def __exit__(self, *_) -> None:
        self._ended.set()
        self.wake()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        chance, due, sent = random.Random(1), time.perf_counter(), 0
        while not self._ended.is_set():
            due += chance.expovariate(self.rate)
            if self._woken.wait(max(due - time.perf_counter(), 0)):
                self._woken.clear()
                due = time.perf_counter()
            # Clients that give up: who has waited for long is not followed by others.
            if self._queue.qsize() < 256:
                self._queue.put((due, sent % len(self._bodies)))
                sent += 1

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._address)
        headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
        while (asked := self._queue.get()) is not None:
            due, at = asked
            connection.request("POST", self._path, self._bodies[at], headers)
            answer = connection.getresponse()
            told, body = dict(answer.getheaders()), answer.read()
            self.answers.append((due, time.perf_counter() - due, answer.status, at, told, body))


def outputs(told: dict, body: bytes) -> np.ndarray:
    """The first output of a binary answer."""
    length = int(told["inference-header-content-length"])
    first = json.loads(body[:length])["outputs"][0]
    size = first["parameters"]["binary_data_size"]
    return np.frombuffer(body[length : length + size], np.float32).reshape(first["shape"])
