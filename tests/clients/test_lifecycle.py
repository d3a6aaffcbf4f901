"""Start and end of the process as its clients see them."""

import http.client
import json
import shutil
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from server import Server, health
from watching import cpu_seconds
from wires import grpc_input, rest_input
from zoo import SLOW_WIDTH, save, slow

ROW = np.ones((1, 1, SLOW_WIDTH), np.float32)
DRAIN_DELAY = "1s"
REFUSED = "connections cannot be accepted"


@pytest.fixture
def small(tmp_path):
    save(tmp_path / "models" / "slow", slow())
    return Server([tmp_path / "models"], tmp_path / "kinglet.log", {"KINGLET__DRAIN__DELAY": DRAIN_DELAY})


def test_sigterm_drains(small):
    """Unready first, still serving through the delay, what is in flight finishes, exit 0."""
    with small as server, tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        in_flight = Asking(server)
        in_flight.wait_for_first()
        server.terminate()
        until = time.monotonic() + 5
        while (status := health(server.http, "ready")) == 200:
            assert time.monotonic() < until, "ready after SIGTERM"
        assert status == 503
        assert client.is_server_ready() is False
        assert client.is_server_live() is True
        assert health(server.http, "live") == 200
        assert client.infer("slow", [grpc_input("x", ROW)]).as_numpy("y").shape == ROW.shape
        in_flight.stop()
        assert server.wait_exit() == 0
        assert in_flight.served > 0
        assert not in_flight.failures, in_flight.failures[0]


def test_alive_but_unready_while_loading(tmp_path):
    """Probes are answered from the start; readiness waits for the last model."""
    for number in range(4):
        save(tmp_path / "models" / f"slow{number}", slow())
    server = Server([tmp_path / "models"], tmp_path / "log")
    server.start()
    try:
        seen = []
        until = time.monotonic() + 30
        while not seen or seen[-1] != (200, 200):
            assert time.monotonic() < until and server.process.poll() is None, server.log_end()
            state = (health(server.http, "live"), health(server.http, "ready"))
            if not seen or seen[-1] != state:
                seen.append(state)
            time.sleep(0.005)
        assert (200, 503) in seen, seen
        with tritonclient.http.InferenceServerClient(server.http) as client:
            assert all(client.is_model_ready(f"slow{number}") for number in range(4))
    finally:
        server.stop()


def test_a_second_signal_ends_at_once(small):
    with small as server:
        server.terminate()
        time.sleep(0.1)
        started = time.monotonic()
        server.terminate()
        server.wait_exit()
        assert time.monotonic() - started < 0.8


def test_answers_under_way_at_sigterm_arrive(small):
    with small as server:
        burst = Asking(server, threads=4)
        burst.wait_for_first()
        server.terminate()
        time.sleep(0.3)
        burst.stop()
        assert server.wait_exit() == 0
        assert not burst.failures, burst.failures[0]


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "slow"])
def test_a_health_watch_follows_the_drain(small, service):
    """Told SERVING, then NOT_SERVING before the listener closes, then ended: a watch never holds up the exit."""
    name = service.encode()
    asked = bytes([0x0A, len(name)]) + name if name else b""
    with small as server, grpc.insecure_channel(server.grpc) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(asked, timeout=20)
        assert next(watch) == b"\x08\x01", "SERVING"
        server.terminate()
        told_at = time.monotonic()
        assert next(watch) == b"\x08\x02", "NOT_SERVING"
        assert time.monotonic() - told_at < 0.8, "expected before the drain delay is over"
        assert list(watch) == []
        assert watch.code() is grpc.StatusCode.OK
        assert server.wait_exit() == 0


def test_more_connections_than_descriptors(tmp_path):
    """Out of descriptors, the server waits without spinning, says so once, and serves on when there are some again."""
    save(tmp_path / "models" / "slow", slow())
    with Server([tmp_path / "models"], tmp_path / "log", open_files_max=64) as server:
        crowd = [socket.create_connection(server.http.split(":")) for _ in range(200)]
        try:
            wait_for(lambda: REFUSED in server.log.read_text(), "a word of it in the log")
            before = cpu_seconds(server)
            time.sleep(3)
            assert cpu_seconds(server) - before < 0.5, "expected to wait, not to spin"
            assert server.process.poll() is None, server.log_end()
        finally:
            for connection in crowd:
                connection.close()
        wait_for(lambda: health(server.http, "ready") == 200, "the next connection")
        assert server.log.read_text().count(REFUSED) < 5
        with tritonclient.http.InferenceServerClient(server.http) as client:
            assert client.infer("slow", [rest_input("x", ROW)]).as_numpy("y").shape == ROW.shape
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            assert client.infer("slow", [grpc_input("x", ROW)]).as_numpy("y").shape == ROW.shape


def test_a_single_file_needs_no_configuration(tmp_path):
    save(tmp_path / "folder", slow())
    lone = tmp_path / "alone.onnx"
    (tmp_path / "folder" / "1" / "model.onnx").rename(lone)
    with Server([lone], tmp_path / "log") as server, tritonclient.http.InferenceServerClient(server.http) as client:
        assert client.get_model_metadata("alone")["versions"] == ["1"]
        assert np.allclose(client.infer("alone", [rest_input("x", ROW)]).as_numpy("y"), ROW, atol=1e-3)


def test_rest_and_grpc_share_one_port(tmp_path):
    save(tmp_path / "models" / "slow", slow())
    server = Server([tmp_path / "models"], tmp_path / "log")
    server.grpc = server.http
    with server:
        with tritonclient.http.InferenceServerClient(server.http) as client:
            assert client.infer("slow", [rest_input("x", ROW)]).as_numpy("y").shape == ROW.shape
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            assert client.infer("slow", [grpc_input("x", ROW)]).as_numpy("y").shape == ROW.shape


def test_poll_mode_follows_the_disk(tmp_path):
    """New models appear, half-copied ones do not, deleted ones go."""
    models = tmp_path / "models"
    save(models / "first", slow())
    settings = {
        "KINGLET__REPOSITORY__CONTROL": "poll",
        "KINGLET__REPOSITORY__POLL_INTERVAL": "200ms",
        "KINGLET__REPOSITORY__SETTLE_TIME": "200ms",
    }
    with Server([models], tmp_path / "log", settings) as server:
        with tritonclient.http.InferenceServerClient(server.http) as client:
            assert client.is_model_ready("first")
            whole = (models / "first" / "1" / "model.onnx").read_bytes()
            (models / "second" / "1").mkdir(parents=True)
            growing = models / "second" / "1" / "model.onnx"
            for end in range(1, 9):
                growing.write_bytes(whole[: len(whole) * end // 10])
                time.sleep(0.1)
                assert not client.is_model_ready("second")
            growing.write_bytes(whole)
            wait_for(lambda: client.is_model_ready("second"), "the new model is ready")
            with pytest.raises(InferenceServerException):
                client.unload_model("second")
            # Choices of kernels lie beside the model.
            shutil.rmtree(growing.parent.parent)
            wait_for(lambda: not client.is_model_ready("second"), "the deleted model is gone")
            assert client.is_model_ready("first")


def test_admin_answers_health(server):
    for what in ("live", "ready"):
        assert health(server.admin, what) == 200


class Asking:
    """Threads that ask one after the other until told to stop; each uses a connection per request,
    as clients behind a balancer do, and stops when the listener is closed."""

    def __init__(self, server, threads: int = 1):
        self.served = 0
        self.failures: list = []
        self._server = server
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def wait_for_first(self) -> None:
        wait_for(lambda: self.served > 0, "a first answer")

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        body = json.dumps({"inputs": [{"name": "x", "shape": ROW.shape, "datatype": "FP32", "data": [1] * SLOW_WIDTH}]})
        while not self._stopping.is_set():
            connection = http.client.HTTPConnection(self._server.http, timeout=30)
            try:
                connection.connect()
            except ConnectionRefusedError:
                return
            try:
                connection.request("POST", "/v2/models/slow/infer", body=body)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    self.served += 1
                else:
                    self.failures.append((answer.status, text))
            except OSError as failure:
                self.failures.append(failure)
            finally:
                connection.close()


def wait_for(condition, what: str, seconds: float = 15) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited for: {what}"
        time.sleep(0.05)
