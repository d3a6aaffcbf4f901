"""Signals at every moment of the process's life, and what they mean to clients."""

import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from server import Server, health
from wires import grpc_input
from zoo import SLOW_WIDTH, save, slow

ROW = np.ones((1, 1, SLOW_WIDTH), np.float32)
ENDS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def models(tmp_path):
    save(tmp_path / "models" / "slow", slow())
    return tmp_path / "models"


@pytest.fixture
def starting(tmp_path):
    """A server that is still loading when it is handed over."""
    for number in range(10):
        save(tmp_path / "models" / f"slow{number}", slow())
    server = Server([tmp_path / "models"], tmp_path / "log", {"KINGLET__TELEMETRY__LOG_FORMAT": "json"})
    server.start()
    try:
        wait_for(lambda: health(server.admin, "live") == 200, "the listeners")
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("number", ENDS)
def test_a_start_can_be_ended(starting, number):
    assert probe(starting.http, "startup") == (503, {"started": False, "state": "starting"})
    began = time.monotonic()
    starting.send(number)
    assert starting.wait_exit() == 0
    assert time.monotonic() - began < 5
    assert "while the first models load" in starting.log_end()


def test_a_hangup_during_the_start_is_kept_for_its_end(starting):
    starting.send(signal.SIGHUP)
    assert health(starting.http, "startup") == 503, "the start was over before the signal"
    starting.wait_ready()
    wait_for(lambda: "configuration reloaded" in starting.log_end(), "the reload")
    assert probe(starting.admin, "startup") == (200, {"started": True, "state": "ready"})


@pytest.mark.parametrize("number", ENDS)
def test_both_signals_drain(models, tmp_path, number):
    with Server([models], tmp_path / "log", {"KINGLET__DRAIN__DELAY": "1s"}) as server:
        server.send(number)
        wait_for(lambda: health(server.http, "ready") == 503, "unready")
        for address in (server.http, server.admin):
            assert probe(address, "ready") == (503, {"ready": False, "state": "draining"})
            assert probe(address, "startup") == (200, {"started": True, "state": "draining"})
            assert health(address, "live") == 200
        assert server.wait_exit() == 0


def test_sigterm_under_grpc_load_loses_nothing(models, tmp_path):
    """Every call is answered until the listener is closed; then no connection is to be had."""
    with Server([models], tmp_path / "log", {"KINGLET__DRAIN__DELAY": "500ms"}) as server:
        served, failures = [0], []

        def ask():
            with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
                while True:
                    try:
                        client.infer("slow", [grpc_input("x", ROW)])
                        served[0] += 1
                    except InferenceServerException as failure:
                        failures.append(failure)
                        return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: served[0] > 20, "load")
        before = served[0]
        server.terminate()
        assert server.wait_exit() == 0
        for thread in threads:
            thread.join(20)
        assert served[0] > before
        for failure in failures:
            refused = failure.status() == "StatusCode.UNAVAILABLE" and "failed to connect" in failure.message().lower()
            assert refused, failure


def test_what_outlasts_the_grace_ends_with_it(models, tmp_path):
    with Server([models], tmp_path / "log", {"KINGLET__DRAIN__GRACE": "1s"}) as server:
        host, port = server.http.split(":")
        with socket.create_connection((host, int(port))) as stuck:
            stuck.sendall(b"POST /v2/models/slow/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
            time.sleep(0.2)
            began = time.monotonic()
            server.terminate()
            assert server.wait_exit() == 0
            assert 0.9 < time.monotonic() - began < 4
        assert "the grace has passed" in server.log_end()


def test_the_configuration_is_read_again(models, tmp_path):
    """By the admin API, which answers what it did, and by SIGHUP, which has nobody to tell."""
    config = tmp_path / "kinglet.toml"
    config.write_text("")
    with Server([models], tmp_path / "log", config=config) as server:
        assert infer(server) == 200
        config.write_text("[limits]\nrank_max = 2\n[engine]\ncores = 1\n")
        assert reload(server) == (200, {"applied": ["limits.rank_max"], "refused": ["engine.cores"]})
        assert infer(server) == 400
        config.write_text("[limits]\nrank_maximum = 2\n")
        status, told = reload(server)
        assert status == 400 and "rank_maximum" in told["error"]
        server.send(signal.SIGHUP)
        wait_for(lambda: "configuration not reloaded" in server.log_end(), "the refusal")
        assert infer(server) == 400, "what was in force stays"
        config.write_text("")
        server.send(signal.SIGHUP)
        wait_for(lambda: infer(server) == 200, "the limit is gone")


def reload(server) -> tuple[int, dict]:
    return call(f"http://{server.admin}/admin/config/reload", b"")


def infer(server) -> int:
    tensor = {"name": "x", "shape": ROW.shape, "datatype": "FP32", "data": [1] * SLOW_WIDTH}
    return call(f"http://{server.http}/v2/models/slow/infer", json.dumps({"inputs": [tensor]}).encode())[0]


def probe(address: str, what: str) -> tuple[int, dict]:
    return call(f"http://{address}/v2/health/{what}")


def call(url: str, body: bytes | None = None) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())


def wait_for(condition, what: str, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited for: {what}"
        time.sleep(0.02)
