"""Answers that are kept: what clients are told, what is counted, and that nobody gets an answer that is not theirs."""

import http.client
import json
import shutil
import signal
import socket
import threading

import grpc
import numpy as np
import pytest
from onnx import helper
import tritonclient.http
from tritonclient.grpc import service_pb2, service_pb2_grpc

from caller import Caller, integers
from conftest import make_wire
from server import Server
from watching import metrics, wait_for
from zoo import CLASSES, DATATYPES, SLOW_WIDTH, f32, identity, model, plus, save, slow

KEEPS = "response_cache = true\n"
ROW = np.arange(4, dtype=np.float32).reshape(1, 4)
WIRES = ["rest-json", "rest-binary", "grpc"]
EXPLICIT = {"KINGLET__REPOSITORY__CONTROL": "explicit", "KINGLET__REPOSITORY__LOAD_AT_START": "*"}


def draws():
    return model([helper.make_node("RandomUniformLike", ["x"], ["y"])], [f32("x", ["batch", 4])], [f32("y", ["batch", 4])])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    for name in ("kept", "counted", "coded", "left"):
        save(root / name, plus(1))
    save(root / "plain", plus(1))
    save(root / "slow", slow())
    save(root / "classes", identity(DATATYPES["FP32"], ["batch", len(CLASSES)]))
    save(root / "draws", draws())
    for name in ("kept", "coded", "left", "slow", "classes", "draws"):
        (root / name / "manifest.toml").write_text(KEEPS)
    (root / "counted" / "config.pbtxt").write_text("response_cache { enable: true }\n")
    return root


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    with Server([models], tmp_path_factory.mktemp("log") / "log", EXPLICIT) as running:
        yield running


def ask(server, name: str, row: np.ndarray = ROW, headers: dict | None = None) -> tuple[int, dict, dict]:
    one = {"name": "x", "shape": list(row.shape), "datatype": "FP32", "data": row.ravel().tolist()}
    connection = http.client.HTTPConnection(server.http, timeout=60)
    connection.request("POST", f"/v2/models/{name}/infer", json.dumps({"inputs": [one]}), headers or {})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), json.load(answer)


def told(server, name: str, row: np.ndarray = ROW) -> str | None:
    status, headers, body = ask(server, name, row)
    assert status == 200, body
    return headers.get("kinglet-cache")


def admin(server, path: str, method: str = "GET", headers: dict | None = None) -> tuple[int, dict]:
    connection = http.client.HTTPConnection(server.admin)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, json.load(answer)


def held(server) -> dict:
    return admin(server, "/admin/cache")[1]


def statistics(server, kind: str, name: str) -> dict:
    (entry,) = integers(Caller(kind, server).call("get_inference_statistics", name, ""))["model_stats"]
    return entry


@pytest.mark.parametrize("name", WIRES)
def test_the_second_of_two_equal_requests_is_a_hit(server, name):
    wire = make_wire(name, server)
    row = np.full((1, 4), 10 + WIRES.index(name), np.float32)
    answers = [wire.request("kept", {"x": row}, ["y"], parameters={"kinglet_report": True}) for _ in range(3)]
    for answer, expected in zip(answers, ["miss", "hit", "hit"]):
        np.testing.assert_array_equal(answer.as_numpy("y"), row + 1)
        parameters = answer.get_response().parameters if name == "grpc" else answer.get_response()["parameters"]
        outcome = parameters["kinglet_cache"]
        assert (outcome.string_param if name == "grpc" else outcome) == expected
        assert ("kinglet_batch_size" in parameters) == (expected == "miss"), "a hit was in no batch"


def test_headers_and_trailing_metadata_tell(server):
    row = np.full((1, 4), 20, np.float32)
    assert [told(server, "kept", row) for _ in range(2)] == ["miss", "hit"]
    assert told(server, "plain", row) is None
    message = service_pb2.ModelInferRequest(model_name="kept", raw_input_contents=[row.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=row.shape)
    with grpc.insecure_channel(server.grpc) as channel:
        _, call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.with_call(message)
    assert dict(call.trailing_metadata())["kinglet-cache"] == "hit", "whatever wire the answer was computed for"


def test_forms_are_made_of_one_kept_answer(server):
    """JSON, binary tensors and classes are encodings: what was computed for one serves them all."""
    scores = np.array([[3, 1, 2, 6, 5, 4]], np.float32)
    assert told(server, "classes", scores) == "miss"
    for name in WIRES:
        wire = make_wire(name, server)
        np.testing.assert_array_equal(wire.infer("classes", {"x": scores}, ["y"])["y"], scores)
    wire = make_wire("rest-binary", server)
    wanted = [tritonclient.http.InferRequestedOutput("y", class_count=2)]
    classes = wire.client.infer("classes", wire.tensors({"x": scores}), outputs=wanted).as_numpy("y")
    assert [text.split(b":")[1] for text in classes.ravel()] == [b"3", b"4"]
    assert statistics(server, "rest", "classes")["execution_count"] == 1


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_statistics_count_as_triton_does(server, kind):
    row = np.full((3, 4), 30 + ["rest", "grpc"].index(kind), np.float32)
    before = statistics(server, kind, "counted")
    caller = Caller(kind, server)
    for _ in range(5):
        caller.infer("counted", {"x": row})
    after = statistics(server, kind, "counted")

    def grown(what: str) -> int:
        return after["inference_stats"][what].get("count", 0) - before["inference_stats"][what].get("count", 0)

    assert {what: grown(what) for what in ("cache_hit", "cache_miss", "success", "queue", "compute_infer", "fail")} == {
        "cache_hit": 4, "cache_miss": 1, "success": 5, "queue": 5, "compute_infer": 1, "fail": 0,
    }  # fmt: skip
    assert after["inference_stats"]["cache_hit"]["ns"] > before["inference_stats"]["cache_hit"].get("ns", 0)
    assert after["inference_stats"]["cache_miss"]["ns"] > before["inference_stats"]["cache_miss"].get("ns", 0)
    assert after["inference_count"] - before.get("inference_count", 0) == 3
    assert after["execution_count"] - before.get("execution_count", 0) == 1


def test_a_triton_configuration_turns_it_on_and_tells_it(server):
    config = Caller("rest", server).call("get_model_config", "counted", "")
    assert config["response_cache"] == {"enable": True}
    assert not Caller("rest", server).call("get_model_config", "plain", "").get("response_cache")


def test_shapes_are_told_apart(server):
    flat = np.arange(8, dtype=np.float32)
    assert told(server, "kept", flat.reshape(2, 4)) == "miss"
    assert told(server, "kept", flat[:4].reshape(1, 4) + 100) == "miss"
    status, _, body = ask(server, "kept", flat.reshape(2, 4))
    assert (status, body["outputs"][0]["shape"]) == (200, [2, 4])


def test_a_hit_costs_next_to_nothing_and_says_so(models, tmp_path):
    with Server([models], tmp_path / "log", {"KINGLET__METERING__SOURCE": "model"}) as running:
        row = np.full((8, 1, SLOW_WIDTH), 0.5, np.float32)

        def joules():
            return ask(running, "slow", row)[1].get("kinglet-energy-joules")

        wait_for(lambda: ask(running, "plain")[1].get("kinglet-energy-joules"))
        computed, kept = float(joules()), float(joules())
        assert 0 < kept < computed / 20


def test_equal_requests_at_one_time_are_computed_once(server):
    before = statistics(server, "rest", "slow").get("execution_count", 0)
    row = np.full((8, 1, SLOW_WIDTH), 1, np.float32)
    answers = all_at_once([lambda: ask(server, "slow", row) for _ in range(12)])
    assert [status for status, _, _ in answers] == [200] * 12
    outcomes = sorted(headers["kinglet-cache"] for _, headers, _ in answers)
    assert outcomes.count("miss") == 1 and set(outcomes) <= {"coalesced", "hit", "miss"}
    assert len({json.dumps(body["outputs"]) for _, _, body in answers}) == 1
    assert statistics(server, "rest", "slow")["execution_count"] == before + 1


def test_who_leaves_costs_the_others_nothing(server):
    row = np.full((16, 1, SLOW_WIDTH), 2, np.float32)
    with Leaver(server, "slow", row):
        wait_for(lambda: held(server)["in_flight"] == 1)
        threads, answers = begin([lambda: ask(server, "slow", row) for _ in range(4)])
        wait_for(lambda: metrics(server)["kinglet_in_flight_requests"] == 5)
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in answers] == [200] * 4
    outcomes = [headers["kinglet-cache"] for _, headers, _ in answers]
    assert outcomes.count("miss") == 1, "one of them took over"
    wait_for(lambda: held(server)["in_flight"] == 0)


def test_a_deadline_holds_with_a_cache_too(server):
    row = np.full((16, 1, SLOW_WIDTH), 3, np.float32)
    entries = held(server)["entries"]
    answers = all_at_once([lambda: ask(server, "slow", row, {"kinglet-timeout-ms": "30"}) for _ in range(3)])
    assert [status for status, _, _ in answers] == [504] * 3
    assert held(server)["entries"] == entries, "no failure is kept"
    assert told(server, "slow", row) == "miss"


def test_a_failure_is_not_kept(server):
    entries = held(server)["entries"]
    wrong = np.zeros((1, 5), np.float32)
    assert [ask(server, "kept", wrong)[0] for _ in range(2)] == [400, 400]
    assert held(server)["entries"] == entries


def test_a_model_that_draws_keeps_nothing(server):
    answers = [ask(server, "draws") for _ in range(2)]
    assert all("kinglet-cache" not in headers for _, headers, _ in answers)
    assert answers[0][2]["outputs"] != answers[1][2]["outputs"]
    assert "RandomUniformLike draws random numbers" in server.log.read_text()


def test_other_bytes_never_get_old_answers_and_unloading_frees(server, models):
    client = Caller("rest", server)
    assert [told(server, "left") for _ in range(2)] == ["miss", "hit"]
    entries = held(server)["entries"]
    shutil.rmtree(models / "left" / "1")
    save(models / "left", plus(5))
    client.call("load_model", "left")
    status, headers, body = ask(server, "left")
    assert (status, headers["kinglet-cache"]) == (200, "miss")
    assert body["outputs"][0]["data"] == (ROW + 5).ravel().tolist()
    wait_for(lambda: held(server)["entries"] == entries)
    client.call("unload_model", "left")
    wait_for(lambda: held(server)["entries"] == entries - 1)


def test_metrics_count_by_what_came_of_it(server):
    def lookups(outcome: str) -> float:
        name = f'kinglet_cache_lookups_total{{model="coded",outcome="{outcome}",version="1"}}'
        return metrics(server).get(name, 0)

    row = np.full((1, 4), 50, np.float32)
    before = {outcome: lookups(outcome) for outcome in ("hit", "miss", "coalesced")}
    for _ in range(4):
        told(server, "coded", row)
    assert {outcome: lookups(outcome) - before[outcome] for outcome in before} == {"hit": 3, "miss": 1, "coalesced": 0}
    read, now = metrics(server), held(server)
    assert (read["kinglet_cache_entries"], read["kinglet_cache_bytes"]) == (now["entries"], now["bytes"])
    assert read["kinglet_cache_bytes_max"] == now["bytes_max"] == 256 << 20
    assert read['kinglet_cache_lookup_duration_seconds_count{model="coded",version="1"}'] >= 4
    assert not any("kinglet_cache" in name and 'model="plain"' in name for name in read)


def test_the_cache_is_cleared_by_operators_alone(server):
    told(server, "kept")
    status, _ = admin(server, "/admin/cache/clear", "POST", {"Origin": "http://elsewhere.example"})
    assert status == 403 and held(server)["entries"] > 0
    assert admin(server, "/admin/cache/clear")[0] == 405
    status, gone = admin(server, "/admin/cache/clear", "POST")
    assert status == 200 and gone["entries"] > 0
    assert (held(server)["entries"], held(server)["bytes"]) == (0, 0)
    assert told(server, "kept") == "miss"


def test_the_budget_holds_and_changes_on_reload(models, tmp_path):
    config = tmp_path / "kinglet.toml"
    config.write_text('cache.bytes_max = "4KiB"\n')
    with Server([models], tmp_path / "log", config=config) as running:
        for number in range(50):
            told(running, "kept", np.full((1, 4), number, np.float32))
        now = held(running)
        assert 0 < now["entries"] < 50 and now["bytes"] <= 4096
        assert metrics(running)["kinglet_cache_evictions_total"] == 50 - now["entries"]
        config.write_text('cache.bytes_max = "0B"\n')
        running.send(signal.SIGHUP)
        wait_for(lambda: held(running)["bytes_max"] == 0)
        assert held(running)["entries"] == 0 and told(running, "kept") is None
        config.write_text('cache.bytes_max = "1MiB"\n')
        running.send(signal.SIGHUP)
        wait_for(lambda: held(running)["bytes_max"] == 1 << 20)
        assert [told(running, "kept") for _ in range(2)] == ["miss", "hit"]


def begin(calls: list) -> tuple[list[threading.Thread], list]:
    answers: list = []
    threads = [threading.Thread(target=lambda call=call: answers.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    return threads, answers


def all_at_once(calls: list) -> list:
    threads, answers = begin(calls)
    for thread in threads:
        thread.join()
    return answers


class Leaver:
    """Sends a request and hangs up at the end of the block."""

    def __init__(self, server, name: str, row: np.ndarray):
        self.address, self.name, self.row = server.http, name, row

    def __enter__(self):
        host, port = self.address.split(":")
        self.socket = socket.create_connection((host, int(port)))
        one = {"name": "x", "shape": list(self.row.shape), "datatype": "FP32", "data": self.row.ravel().tolist()}
        body = json.dumps({"inputs": [one]}).encode()
        head = f"POST /v2/models/{self.name}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)

    def __exit__(self, *_):
        self.socket.close()
