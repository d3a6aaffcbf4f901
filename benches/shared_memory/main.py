"""Tensors in shared memory beside tensors that travel: `main.py [PAIRS]` sends the same floats to a model that gives them back, in both ways by turns over REST
and gRPC, and prints for each size the medians of p50 and of the server's CPU time a request, and the ratios.

One connection in a closed loop; bodies are made once. Latency has the client's part in it, which sends and reads fewer bytes too; CPU time has not."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2
from tritonclient.http import InferenceServerClient

sys.path.insert(0, str(Path(__file__).parents[1] / "budgets"))
from metering import cpu_of  # noqa: E402
from server import Server  # noqa: E402
from zoo import DATATYPES, identity, save  # noqa: E402

SIZES = (1 << 10, 16 << 10, 150 << 10, 1 << 20, 16 << 20)
SECONDS = float(os.environ.get("BENCH_SECONDS", "1"))
PREFIX = f"/kinglet_{uuid.uuid4().hex[:8]}_"
REGIONS = ("in", "out")
NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Rest:
    def __init__(self, server: Server):
        host, port = server.http.split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(1 << 20))

    def request(self, content: bytes, is_shared: bool) -> list:
        size = len(content)
        place = {"binary_data_size": size}, {"binary_data": True}
        if is_shared:
            place = [{"shared_memory_region": region, "shared_memory_byte_size": size} for region in REGIONS]
        one = {"name": "x", "shape": [1, size // 4], "datatype": "FP32", "parameters": place[0]}
        text = json.dumps({"inputs": [one], "outputs": [{"name": "y", "parameters": place[1]}]}).encode()
        length = f"inference-header-content-length: {len(text)}\r\n" if not is_shared else ""
        behind = b"" if is_shared else content
        head = f"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\n{length}content-length: {len(text) + len(behind)}\r\n\r\n"
        return [head.encode() + text, memoryview(behind)]

    def ask(self, parts: list) -> None:
        first, behind = parts
        sent = self._socket.sendmsg(parts) - len(first)
        if sent < len(behind):
            self._socket.sendall(behind[sent:])
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._socket.recv(1 << 16)
        head, _, body = head.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head + body
        [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        left = int(length.split(b":")[1]) - len(body)
        while left > 0:
            left -= self._socket.recv_into(self._buffer)


class Grpc:
    def __init__(self, server: Server):
        self._channel = grpc.insecure_channel(server.grpc, NO_LIMIT)
        self._call = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def request(self, content: bytes, is_shared: bool) -> bytes:
        message = service_pb2.ModelInferRequest(model_name="echo")
        one = message.inputs.add(name="x", datatype="FP32", shape=[1, len(content) // 4])
        output = message.outputs.add(name="y")
        if not is_shared:
            message.raw_input_contents.append(content)
            return message.SerializeToString()
        for tensor, region in zip((one, output), REGIONS):
            tensor.parameters["shared_memory_region"].string_param = region
            tensor.parameters["shared_memory_byte_size"].int64_param = len(content)
        return message.SerializeToString()

    def ask(self, message: bytes) -> None:
        self._call(message)


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    settings = {"KINGLET__SHARED_MEMORY__ENABLED": "true", "KINGLET__SHARED_MEMORY__PREFIX": PREFIX}
    with TemporaryDirectory() as work:
        save(Path(work, "models", "echo"), identity(DATATYPES["FP32"], ["batch", "width"]))
        with Server([Path(work, "models")], Path(work, "log"), settings) as server:
            print("| wire | bytes in and out | travel: p50 us, CPU us | shared: p50 us, CPU us | p50 | CPU |")
            print("|---|---:|---|---|---:|---:|")
            for size in SIZES:
                measure(server, size, pairs)


def measure(server: Server, size: int, pairs: int) -> None:
    content = np.random.default_rng(1).random(size // 4, np.float32)
    control = InferenceServerClient(server.http)
    segments = [shm.create_shared_memory_region(name, f"{PREFIX}{name}", size) for name in REGIONS]
    shm.set_shared_memory_region(segments[0], [content])
    for name in REGIONS:
        control.register_system_shared_memory(name, f"{PREFIX}{name}", size)
    for wire in (Rest(server), Grpc(server)):
        ways = [wire.request(content.tobytes(), is_shared) for is_shared in (False, True)]
        found = []
        for pair in range(pairs):
            order = (0, 1) if pair % 2 else (1, 0)
            by_way = {way: run(server, wire, ways[way]) for way in order}
            found.append([by_way[0], by_way[1]])
        travel, shared = np.median(np.array(found), axis=0)
        ratios = np.median(np.array(found)[:, 1] / np.array(found)[:, 0], axis=0)
        cells = [f"{p50:.0f}, {cpu:.0f}" for p50, cpu in (travel, shared)]
        print(f"| {type(wire).__name__} | {size:,} | {cells[0]} | {cells[1]} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)
    control.unregister_system_shared_memory()
    for segment in segments:
        shm.destroy_shared_memory_region(segment)


def run(server: Server, wire, request) -> tuple[float, float]:
    """p50 and the server's CPU time a request, in microseconds."""
    wire.ask(request)
    took, before = [], cpu_of(server.process.pid)
    until = time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < until:
        wire.ask(request)
        took.append(time.perf_counter() - began)
    used = cpu_of(server.process.pid) - before
    return float(np.median(took)) * 1e6, used / len(took) * 1e6


if __name__ == "__main__":
    main()
