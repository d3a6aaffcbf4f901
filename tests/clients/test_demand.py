"""Models that load when a request asks for them: by tritonclient over both wires, with room for two of four."""

import http.client
import json
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from conftest import make_wire
from server import Server
from watching import metrics, wait_for
from wires import WIRES, refused
from zoo import plus, save

NAMES = ["one", "two", "three", "four"]
ROW = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for number, name in enumerate(NAMES):
        save(root / name, plus(number))
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"nothing")
    return root


@pytest.fixture(scope="module")
def room(models, tmp_path_factory) -> int:
    """Bytes for two models and a half."""
    with Server([models / "one"], tmp_path_factory.mktemp("log") / "log") as running:
        each = next(value for name, value in metrics(running).items() if name.startswith("kinglet_model_memory_bytes"))
    return int(each * 2.5)


@pytest.fixture
def server(models, room, tmp_path):
    settings = {
        "KINGLET__REPOSITORY__CONTROL": "demand",
        "KINGLET__REPOSITORY__DEMAND_BYTES_MAX": f"{room}B",
        "KINGLET__REPOSITORY__POLL_INTERVAL": "50ms",
        "KINGLET__REPOSITORY__SETTLE_TIME": "0s",
    }
    with Server([models], tmp_path / "log", settings) as running:
        yield running


@pytest.fixture(params=WIRES)
def wire(request, server):
    return make_wire(request.param, server)


def answer(wire, name: str) -> float:
    # Times of use are told apart by milliseconds.
    time.sleep(0.002)
    return wire.infer(name, {"x": ROW}, ["y"])["y"][0, 0]


def loaded(server) -> set[str]:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        return {line["name"] for line in client.get_model_repository_index() if line.get("state") == "READY"}


def test_requests_load_what_they_ask_for_and_drop_the_longest_unused(server, wire):
    assert loaded(server) == set()
    for name in NAMES:
        assert answer(wire, name) == 1 + NAMES.index(name)
    assert loaded(server) == {"three", "four"}
    assert answer(wire, "three") == 3
    answer(wire, "one")
    assert loaded(server) == {"three", "one"}
    told = metrics(server)
    assert (told["kinglet_model_evictions_total"], told["kinglet_load_wait_seconds_count"]) == (3, 5)
    assert told["kinglet_resident_memory_bytes"] <= told["kinglet_resident_memory_max_bytes"]


def test_what_a_model_is_can_be_asked_first(server):
    with (
        tritonclient.http.InferenceServerClient(server.http) as rest,
        tritonclient.grpc.InferenceServerClient(server.grpc) as calls,
    ):
        assert rest.is_model_ready("one") and calls.is_model_ready("two", "1")
        assert not rest.is_model_ready("nobody") and not calls.is_model_ready("nobody")
        assert loaded(server) == set(), "asking whether it would be answered loads nothing"
        assert rest.get_model_metadata("one")["inputs"][0]["name"] == "x"
        assert calls.get_model_config("two").config.name == "two"
    assert loaded(server) == {"one", "two"}


def test_v1_is_ready_without_loading_and_predicts_by_loading(server):
    connection = http.client.HTTPConnection(server.http)
    connection.request("GET", "/v1/models/two")
    status = connection.getresponse()
    assert (status.status, json.load(status)["ready"], loaded(server)) == (200, True, set())
    connection.request("POST", "/v1/models/two:predict", json.dumps({"instances": ROW.tolist()}))
    assert json.load(connection.getresponse()) == {"predictions": [[2, 2, 2, 2]]}
    assert loaded(server) == {"two"}


def test_large_and_raw_requests_wait_too(server):
    connection = http.client.HTTPConnection(server.http)
    rows = 20_000
    one = {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": [1] * (4 * rows)}
    connection.request("POST", "/v2/models/two/infer", json.dumps({"inputs": [one]}))
    refusal = connection.getresponse()
    assert refusal.status == 400 and "batch of 20000 rows is too large" in json.load(refusal)["error"]
    connection.request("POST", "/v2/models/three/infer", ROW.tobytes(), {"Inference-Header-Content-Length": "0"})
    raw = connection.getresponse()
    assert (raw.status, len(raw.read()) > 16) == (200, True)
    assert loaded(server) == {"two", "three"}


def test_what_cannot_be_loaded_says_so(server, wire):
    refused(lambda: answer(wire, "nobody"), "not found", "nobody")
    for _ in range(2):
        refused(lambda: answer(wire, "broken"), "unavailable", "broken", "not ready")
    assert metrics(server)['kinglet_load_wait_refused_total{reason="failed"}'] == 2


def test_a_crowd_on_more_models_than_fit_gets_its_answers(server):
    wrong = []

    def ask(seed: int):
        order = np.random.default_rng(seed).choice(len(NAMES), 60)
        with tritonclient.http.InferenceServerClient(server.http) as client:
            for index in order:
                tensor = tritonclient.http.InferInput("x", ROW.shape, "FP32")
                tensor.set_data_from_numpy(ROW)
                if client.infer(NAMES[index], [tensor]).as_numpy("y")[0, 0] != 1 + index:
                    wrong.append(index)

    crowd = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert not wrong
    assert metrics(server)['kinglet_requests_total{code="ok",model="one",version="1"}'] > 0


def test_a_changed_file_answers_the_next_request(models, room, tmp_path):
    root = tmp_path / "models"
    save(root / "m", plus(1))
    settings = {"KINGLET__REPOSITORY__CONTROL": "demand", "KINGLET__REPOSITORY__POLL_INTERVAL": "50ms"}
    with Server([root], tmp_path / "log", settings | {"KINGLET__REPOSITORY__SETTLE_TIME": "0s"}) as running:
        wire = make_wire("grpc", running)
        assert answer(wire, "m") == 2
        save(root / "m", plus(5))
        wait_for(lambda: answer(wire, "m") == 6)


def test_loading_by_request_is_refused(server):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        with pytest.raises(InferenceServerException, match='repository.control is "demand"'):
            client.load_model("one")
