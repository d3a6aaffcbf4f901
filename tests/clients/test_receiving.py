"""Bodies that arrive slowly, or never: what all of them together may take is bounded, whatever the wire.

gRPC clients send whole messages only; half ones are in tests/grpc/limits.rs.
"""

import http.client
import re
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from server import Server
from wires import WIRES, grpc_input, rest_input
from zoo import SLOW_WIDTH, add, save, slow

BODY_MAX = 1 << 20
RECEIVING_MAX = 2 << 20
ROW = np.ones((1, 16), np.float32)
SETTINGS = {
    "KINGLET__LIMITS__BODY_BYTES_MAX": "1MiB",
    "KINGLET__ADMISSION__RECEIVING_BYTES_MAX": "2MiB",
    "KINGLET__LIMITS__BODY_TIMEOUT": "20s",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("receiving")
    save(folder / "models" / "add", add())
    save(folder / "models" / "slow", slow())
    with Server([folder / "models"], folder / "log", SETTINGS) as server:
        yield server


def test_announced_bodies_count_from_the_start(small):
    uploads = [announce(small, BODY_MAX, 1000) for _ in range(2)]
    wait_for(lambda: receiving(small) == RECEIVING_MAX)
    assert_refused(small)
    uploads.pop().close()
    wait_for(lambda: receiving(small) == BODY_MAX)
    assert_served(small)
    uploads.pop().close()
    wait_for(lambda: receiving(small) == 0)


def test_chunked_bodies_count_as_they_come(small):
    uploads = [chunked(small, 700_000) for _ in range(2)]
    wait_for(lambda: receiving(small) == 1_400_000)
    assert_served(small)
    # The third passes the limit when its last bytes come, and is told so while it still sends.
    late = chunked(small, 800_000)
    assert late.recv(12) == b"HTTP/1.1 429"
    for upload in [*uploads, late]:
        upload.close()
    wait_for(lambda: receiving(small) == 0)
    assert_served(small)


def test_an_open_stream_holds_nothing_between_its_messages(small):
    answers: list = []
    with tritonclient.grpc.InferenceServerClient(small.grpc) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        for count in range(1, 6):
            client.async_stream_infer("add", [grpc_input("left", ROW), grpc_input("right", ROW)])
            wait_for(lambda: len(answers) == count)
            assert answers[-1][1] is None
            assert receiving(small) == 0
        client.stop_stream()


@pytest.mark.parametrize("wire", WIRES)
def test_what_is_computed_is_not_being_received(small, wire):
    """A request counts here until admission counts it, and not beside it."""
    asking = WIRES[wire](small)
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            asking.infer("slow", {"x": np.ones((32, 1, SLOW_WIDTH), np.float32)}, ["y"])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        wait_for(lambda: metrics(small)["kinglet_in_flight_requests"] == 1 and receiving(small) == 0)
        seen = [metrics(small) for _ in range(50)]
    finally:
        stop.set()
        thread.join(20)
    under_way = [page["kinglet_receiving_bytes"] for page in seen if page["kinglet_in_flight_requests"] == 1]
    assert under_way.count(0) > len(under_way) // 2, under_way


def announce(server, length: int, sent: int) -> socket.socket:
    head = f"POST /v2/models/add/infer HTTP/1.1\r\nHost: kinglet\r\nContent-Length: {length}\r\n\r\n"
    return connected(server.http, head.encode() + b" " * sent)


def chunked(server, sent: int) -> socket.socket:
    head = "POST /v2/models/add/infer HTTP/1.1\r\nHost: kinglet\r\nTransfer-Encoding: chunked\r\n\r\n"
    return connected(server.http, head.encode() + b"%x\r\n" % sent + b" " * sent + b"\r\n")


def connected(address: str, sent: bytes) -> socket.socket:
    connection = socket.create_connection(address.split(":"), timeout=20)
    connection.sendall(sent)
    return connection


def receiving(server) -> int:
    return metrics(server)["kinglet_receiving_bytes"]


def metrics(server) -> dict[str, int]:
    """Those without labels."""
    with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=20) as page:
        return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", page.read().decode(), re.MULTILINE)}


def assert_served(server) -> None:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        answer = client.infer("add", [rest_input("left", ROW), rest_input("right", ROW)])
        assert (answer.as_numpy("sum") == 2).all()
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        answer = client.infer("add", [grpc_input("left", ROW), grpc_input("right", ROW)])
        assert (answer.as_numpy("sum") == 2).all()


def assert_refused(server) -> None:
    connection = http.client.HTTPConnection(server.http, timeout=20)
    connection.request("POST", "/v2/models/add/infer", body=b"{}")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Retry-After")) == (429, "1")
    assert b"bytes being received" in answer.read()
    connection.close()
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException) as failure:
            client.infer("add", [grpc_input("left", ROW), grpc_input("right", ROW)])
        assert failure.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def wait_for(condition, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
