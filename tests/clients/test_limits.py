"""Limits of REST as a careless or hostile client meets them; a healthy client is served meanwhile."""

import json
import socket
import time
import urllib.error
import urllib.request

import pytest

from server import Server
from zoo import DATATYPES, identity, save

SETTINGS = {
    "KINGLET__LIMITS__TENSORS_MAX": "2",
    "KINGLET__LIMITS__RANK_MAX": "3",
    "KINGLET__LIMITS__PARAMETERS_MAX": "2",
    "KINGLET__LIMITS__BODY_BYTES_MAX": "4KiB",
    "KINGLET__LIMITS__BODY_TIMEOUT": "3s",
    "KINGLET__LIMITS__BODY_RATE_MIN": "512B",
    "KINGLET__LIMITS__BODY_RATE_WINDOW": "1s",
    "KINGLET__ADMISSION__BYTES_MAX": "4KiB",
    "KINGLET__ADMISSION__RETRY_AFTER": "7s",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    save(folder / "models" / "identity", identity(DATATYPES["FP32"], ["batch", "width"]))
    with Server([folder / "models"], folder / "log", SETTINGS) as running:
        yield running


def tensor(shape: list[int], count: int = 1) -> dict:
    return {"name": "x", "shape": shape, "datatype": "FP32", "data": [1] * count}


MANY = {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    "request_, words",
    [
        ({"inputs": [tensor([1, 1])] * 3}, "more than 2"),
        ({"inputs": [tensor([1, 1])], "outputs": [{"name": "y"}] * 3}, "more than 2"),
        ({"inputs": [tensor([1, 1, 1, 1])]}, "more than 3"),
        ({"inputs": [tensor([1, 1])], "parameters": MANY}, "more than 2"),
        ({"inputs": [tensor([1, 1]) | {"parameters": MANY}]}, "more than 2"),
    ],
    ids=["inputs", "outputs", "rank", "parameters", "parameters-of-an-input"],
)
def test_counts(small, request_, words):
    status, told, _ = infer(small, request_)
    assert status == 400 and words in told["error"], told
    assert_healthy(small)


def test_admission_says_when_to_come_back(small):
    """Three thousand bytes of text are six thousand of floats."""
    status, told, headers = infer(small, {"inputs": [tensor([1, 1500], 1500)]}, compact=True)
    assert (status, headers["Retry-After"]) == (429, "7"), told
    assert_healthy(small)


def test_a_body_that_does_not_end_in_time(small):
    """It keeps the rate, so that only the time can end it."""
    answer = late_answer(small, bytes_a_step=400, length=4000)
    assert answer.startswith("HTTP/1.1 504") and "did not arrive within 3s" in answer, answer


def test_a_body_that_trickles(small):
    began = time.monotonic()
    answer = late_answer(small, bytes_a_step=10, length=4000)
    assert answer.startswith("HTTP/1.1 504") and "slower than 512B a second" in answer, answer
    assert time.monotonic() - began < 2.5, "the rate ends it before the time does"


def late_answer(server, bytes_a_step: int, length: int) -> str:
    """Sends a body piece by piece until the server has had enough; a healthy client asks meanwhile."""
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=0.2) as slow_client:
        head = f"POST /v2/models/identity/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
        slow_client.sendall(head.encode())
        sent = 0
        until = time.monotonic() + 10
        while time.monotonic() < until:
            sent += bytes_a_step
            if sent < length:
                slow_client.sendall(b" " * bytes_a_step)
            assert_healthy(server)
            try:
                return slow_client.recv(4096).decode()
            except TimeoutError:
                continue
    raise AssertionError("the body was awaited for more than 10 s")


def test_a_stop_waits_for_a_slow_reader(tmp_path):
    """The answer of 24 MB is under way when SIGTERM comes; its reader takes its time and gets all of it."""
    save(tmp_path / "models" / "identity", identity(DATATYPES["FP32"], ["batch", "width"]))
    with Server([tmp_path / "models"], tmp_path / "log", {"KINGLET__LIMITS__IDLE_TIMEOUT": "1s"}) as server:
        elements = 6 << 20
        meta = json.dumps(
            {
                "inputs": [
                    {
                        "name": "x",
                        "shape": [1, elements],
                        "datatype": "FP32",
                        "parameters": {"binary_data_size": 4 * elements},
                    }
                ],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        host, port = server.http.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as reader:
            head = (
                "POST /v2/models/identity/infer HTTP/1.1\r\nhost: x\r\n"
                f"Inference-Header-Content-Length: {len(meta)}\r\ncontent-length: {len(meta) + 4 * elements}\r\n\r\n"
            )
            reader.sendall(head.encode() + meta + bytes(4 * elements))
            first = reader.recv(4096)
            assert first.startswith(b"HTTP/1.1 200"), first
            server.terminate()
            got = len(first)
            while piece := reader.recv(1 << 16):
                got += len(piece)
                time.sleep(0.01)
        assert got > 4 * elements
        assert server.wait_exit() == 0
        assert "finished=true" in server.log_end().replace('"finished":true', "finished=true")


def assert_healthy(server) -> None:
    status, told, _ = infer(server, {"inputs": [tensor([1, 1])]})
    assert status == 200 and told["outputs"][0]["data"] == [1.0], told


def infer(server, request: dict, compact: bool = False):
    body = json.dumps(request, separators=(",", ":") if compact else None).encode()
    asked = urllib.request.Request(f"http://{server.http}/v2/models/identity/infer", body)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, json.loads(answer.read()), answer.headers
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read()), refused.headers
