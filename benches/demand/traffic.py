"""Many models in a repository, room for a tenth of them, requests that prefer some: are all answers right, does memory keep to
its limit, and what does it cost to load on demand? Docs: README.md beside this file."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.http
from onnx import helper
from tritonclient.utils import InferenceServerException

from server import Server
from watching import metrics
from wires import rest_input
from zoo import f32, model, save

WIDTH = 512
MIB = 1 << 20


def name(index: int) -> str:
    return f"m{index:03}"


def weights(index: int) -> np.ndarray:
    return np.random.default_rng(index).standard_normal((WIDTH, WIDTH), np.float32)


def product(index: int):
    """One matrix, which no other model has."""
    shape = ["batch", WIDTH]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return model(nodes, [f32("x", shape)], [f32("y", shape)], {"w": weights(index)})


class Tally:
    """What became of requests, and how long answers took: of those that found their model, and of those that waited for it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.right, self.wrong, self.refused = 0, 0, {}
        self.times: list[float] = []

    def count(self, seconds: float, is_right: bool) -> None:
        with self.lock:
            self.right += is_right
            self.wrong += not is_right
            self.times.append(seconds)

    def refuse(self, message: str) -> None:
        with self.lock:
            self.refused[message] = self.refused.get(message, 0) + 1


def ask(server: Server, order: np.ndarray, row: np.ndarray, expected: np.ndarray, until: float, tally: Tally) -> None:
    with tritonclient.http.InferenceServerClient(server.http, network_timeout=60) as client:
        for index in order:
            if time.monotonic() > until:
                return
            began = time.monotonic()
            try:
                answer = client.infer(name(index), [rest_input("x", row)]).as_numpy("y")
                tally.count(time.monotonic() - began, np.allclose(answer, expected[index], rtol=1e-4, atol=1e-3))
            except InferenceServerException as error:
                tally.refuse(f"{error.status()} {error.message()[:60]}")


def resident(server: Server) -> int:
    """Bytes of the process."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def watch(server: Server, until: float, seen: list) -> None:
    while time.monotonic() < until:
        told = metrics(server)
        seen.append((told["kinglet_resident_memory_bytes"], told["kinglet_resident_models"], resident(server)))
        time.sleep(0.5)


def quantile(values, share: float) -> float:
    return float(np.quantile(values, share)) * 1e3


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--models", type=int, default=500)
    arguments.add_argument("--room", type=int, default=50, help="models that fit at once")
    arguments.add_argument("--seconds", type=float, default=600)
    arguments.add_argument("--connections", type=int, default=8)
    arguments.add_argument("--skew", type=float, default=1.0, help="model n is asked for in proportion to n to the power of minus this")
    given = arguments.parse_args()

    row = np.random.default_rng(0).standard_normal((1, WIDTH)).astype(np.float32)
    expected = np.stack([row @ weights(index) for index in range(given.models)])
    share = np.arange(1, given.models + 1, dtype=float) ** -given.skew
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "models"
        for index in range(given.models):
            save(root / name(index), product(index))
        # What one of them takes, as the engine counts it.
        with Server([root / name(0)], Path(folder) / "log") as server:
            each = next(v for k, v in metrics(server).items() if k.startswith("kinglet_model_memory_bytes"))
            bare = resident(server)
        settings = {
            "KINGLET__REPOSITORY__CONTROL": "demand",
            "KINGLET__REPOSITORY__DEMAND_BYTES_MAX": f"{int(given.room * each)}B",
        }
        with Server([root], Path(folder) / "log", settings) as server:
            at_start = resident(server)
            tally, seen, until = Tally(), [], time.monotonic() + given.seconds
            draw = lambda seed: np.random.default_rng(seed).choice(given.models, 1_000_000, p=share / share.sum())
            parts = [
                threading.Thread(target=ask, args=(server, draw(seed), row, expected, until, tally))
                for seed in range(given.connections)
            ]
            parts.append(threading.Thread(target=watch, args=(server, until, seen)))
            for part in parts:
                part.start()
            for part in parts:
                part.join()
            told = metrics(server)
    loads = sum(v for k, v in told.items() if k.startswith("kinglet_model_loads_total"))
    waited = told["kinglet_load_wait_seconds_count"]
    requests = len(tally.times) + sum(tally.refused.values())
    print(f"{given.models} models of {each / MIB:.2f} MiB, room for {given.room}, {given.seconds:.0f} s, {given.connections} connections")
    print(f"requests {requests}, right {tally.right}, wrong {tally.wrong}, refused {tally.refused}")
    print(f"loads {loads:.0f}, evictions {told['kinglet_model_evictions_total']:.0f}, waited for a load {waited:.0f}: hits {1 - waited / requests:.3f}")
    print(f"wait for a load, mean {told['kinglet_load_wait_seconds_sum'] / waited * 1e3:.2f} ms")
    print("answers p50 %.2f, p90 %.2f, p99 %.2f, max %.2f ms" % tuple(quantile(tally.times, q) for q in (0.5, 0.9, 0.99, 1)))
    held, models, memory = (np.array(column) for column in zip(*seen))
    print(f"models held at most {held.max() / MIB:.1f} of {given.room * each / MIB:.1f} MiB, {models.max():.0f} at once")
    print(f"process: {bare / MIB:.0f} MiB with one model, {at_start / MIB:.0f} with none loaded, then at most {memory.max() / MIB:.0f}, at the end {memory[-1] / MIB:.0f}")


main()
