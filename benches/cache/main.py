"""The response cache beside none: `main.py REPOSITORY MODEL [WIRE [PAIRS]]` serves a model with its answers kept and without, gives both the
same requests by turns, of which 1, 50 and 99 % were asked before, and prints ratios of throughput, p50, p99 and CPU time a request.

A closed loop of few connections from one thread, or over gRPC of as many threads. Every request is one row of the model's first input, raw. Those that are new
differ in their first eight bytes. Throughput and latency have the client's part in them, CPU time has not."""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

sys.path.insert(0, str(Path(__file__).parents[1] / "budgets"))
from load import ask  # noqa: E402
from metering import cpu_of  # noqa: E402
from server import Server  # noqa: E402

SHARES = (0.01, 0.5, 0.99)
# Inputs that are asked again and again.
KNOWN = 64
CONNECTIONS = 4
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))


class Inputs:
    """A row whose first eight bytes are a number: below KNOWN it was asked before."""

    def __init__(self, server: Server, model: str):
        spec = ask(server, f"/v2/models/{model}")["inputs"][0]
        self.name, self.datatype = spec["name"], spec["datatype"]
        self.shape = [max(extent, 1) for extent in spec["shape"]]
        self._rest = memoryview(np.random.default_rng(1).random(self.shape, np.float32).tobytes())[8:]
        self._next = KNOWN

    def known(self, number: int) -> tuple[bytes, memoryview]:
        return struct.pack("<ff", number % 4096, number // 4096), self._rest

    def new(self) -> tuple[bytes, memoryview]:
        self._next += 1
        return self.known(self._next)


class Rest:
    def __init__(self, server: Server, model: str, inputs: Inputs):
        host, port = server.http.split(":")
        length = 4 * int(np.prod(inputs.shape))
        self._head = (
            f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n"
            "inference-header-content-length: 0\r\ncontent-type: application/octet-stream\r\n\r\n"
        ).encode()
        self._sockets = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS)]
        for one in self._sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self, draw, until) -> list[float]:
        """Latencies of requests that `draw` makes, until `until` says that it is enough."""
        took, sent = [], {}
        with selectors.DefaultSelector() as ready:
            for one in self._sockets:
                ready.register(one, selectors.EVENT_READ)
                sent[one] = self._send(one, draw())
            while sent:
                for key, _ in ready.select():
                    one = key.fileobj
                    self._read(one)
                    now = time.perf_counter()
                    took.append(now - sent.pop(one))
                    if not until(len(took)):
                        sent[one] = self._send(one, draw())
        return took

    def _send(self, one: socket.socket, body: tuple[bytes, memoryview]) -> float:
        began = time.perf_counter()
        whole = self._head + body[0]
        rest = memoryview(body[1])
        count = one.sendmsg([whole, rest])
        if count < len(whole):
            one.sendall(whole[count:])
            count = len(whole)
        one.sendall(rest[count - len(whole) :])
        return began

    @staticmethod
    def _read(one: socket.socket) -> None:
        answer = one.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        head, _, body = answer.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0].split(b":")[1])
        while len(body) < length:
            body += one.recv(1 << 16)


class Grpc:
    def __init__(self, server: Server, model: str, inputs: Inputs):
        self._model, self._inputs = model, inputs
        self._channels = [grpc.insecure_channel(server.grpc, [("kinglet.bench", at)]) for at in range(CONNECTIONS)]
        path = "/inference.GRPCInferenceService/ModelInfer"
        self._calls = [channel.unary_unary(path) for channel in self._channels]

    def run(self, draw, until) -> list[float]:
        took, lock = [], threading.Lock()

        def ask_on(call):
            while not until(len(took)):
                with lock:
                    body = draw()
                message = service_pb2.ModelInferRequest(model_name=self._model, raw_input_contents=[b"".join(body)])
                message.inputs.add(name=self._inputs.name, datatype=self._inputs.datatype, shape=self._inputs.shape)
                text = message.SerializeToString()
                began = time.perf_counter()
                call(text)
                took.append(time.perf_counter() - began)

        threads = [threading.Thread(target=ask_on, args=(call,)) for call in self._calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return took


def main() -> None:
    repository, model = Path(sys.argv[1]), sys.argv[2]
    wire = {"rest": Rest, "grpc": Grpc}[sys.argv[3] if len(sys.argv) > 3 else "rest"]
    pairs = int(sys.argv[4]) if len(sys.argv) > 4 else 10
    with TemporaryDirectory() as work:
        kept, plain = Path(work, "kept"), Path(work, "plain")
        for root in (kept, plain):
            shutil.copytree(repository / model, root / model)
        manifest = kept / model / "manifest.toml"
        text = manifest.read_text() if manifest.exists() else ""
        manifest.write_text(f"response_cache = true\n{text}")
        with Server([kept], Path(work, "kept.log")) as with_cache, Server([plain], Path(work, "plain.log")) as without:
            inputs = Inputs(without, model)
            clients = {server: wire(server, model, inputs) for server in (with_cache, without)}
            print(f"{model} over {wire.__name__}, {pairs} pairs of {SECONDS:g} s; cache : none")
            for share in SHARES:
                compare(share, clients, inputs, pairs)


def compare(share: float, clients: dict, inputs: Inputs, pairs: int) -> None:
    """Prints the medians of pairs, and in brackets 95 % of bootstrapped medians."""
    chance = np.random.default_rng(3)
    measured = []
    for pair in range(pairs):
        order = list(clients.items())
        found = {server: measure(share, server, client, inputs, chance) for server, client in order[:: 1 - 2 * (pair % 2)]}
        measured.append([found[server] for server in clients])
    measured = np.array(measured)
    ratios = measured[:, 0] / measured[:, 1]
    names = ("requests/s", "p50 us", "p99 us", "CPU us a request")
    for at, name in enumerate(names):
        medians = np.median(chance.choice(ratios[:, at], (10_000, pairs)), axis=1)
        low, high = np.quantile(medians, [0.025, 0.975])
        middle = np.median(ratios[:, at])
        with_cache, without = np.median(measured[:, :, at], axis=0)
        print(f"{share:4.0%} hits  {name:17} {with_cache:10.1f} : {without:10.1f}  ratio {middle:.3f} ({low:.3f} to {high:.3f})")


def measure(share: float, server: Server, client, inputs: Inputs, chance) -> tuple[float, float, float, float]:
    numbers = iter(range(KNOWN))
    client.run(lambda: inputs.known(next(numbers, 0)), lambda count: count >= KNOWN)
    drawn = iter(chance.random(1 << 20))
    known = iter(chance.integers(KNOWN, size=1 << 20))

    def draw():
        return inputs.known(int(next(known))) if next(drawn) < share else inputs.new()

    began, before = time.perf_counter(), cpu_of(server.process.pid)
    took = client.run(draw, lambda _: time.perf_counter() - began >= SECONDS)
    used, span = cpu_of(server.process.pid) - before, time.perf_counter() - began
    p50, p99 = np.quantile(took, [0.5, 0.99]) * 1e6
    return len(took) / span, p50, p99, used / len(took) * 1e6


if __name__ == "__main__":
    main()
