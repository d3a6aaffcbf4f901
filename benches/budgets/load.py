"""Requests at random times, and what the admin listener says. Standard library and numpy, and the client suite's server."""

from __future__ import annotations

import http.client
import json
import queue
import random
import threading
import time

import numpy as np

from server import Server
from watching import metrics


def ask(server: Server, path: str) -> dict:
    connection = http.client.HTTPConnection(server.admin)
    connection.request("GET", path)
    return json.load(connection.getresponse())


def total(server: Server, name: str) -> float:
    return sum(value for series, value in metrics(server).items() if series.split("{")[0] == name)


def made_up_row(server: Server, model: str) -> bytes:
    """One row of the model's first input."""
    shape = [max(extent, 1) for extent in ask(server, f"/v2/models/{model}")["inputs"][0]["shape"]]
    return np.random.default_rng(1).random(shape, np.float32).tobytes()


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
