"""Ensembles: a Triton repository with one starts as it is, and the whole answers as its parts do."""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import helper
from tritonclient.utils import InferenceServerException

from receiver import Receiver, children
from server import Server, free_ports
from watching import metrics, wait_for
from wires import WIRES, refused, rest_input
from zoo import SLOW_WIDTH, add, f32, model, plus, save, slow, sum_difference

LEFT = np.arange(32, dtype=np.float32).reshape(2, 16)
RIGHT = np.full((2, 16), 3, np.float32)
EXPLICIT = {"KINGLET__REPOSITORY__CONTROL": "explicit", "KINGLET__REPOSITORY__LOAD_AT_START": "*"}

# As Triton's documentation has them: steps in any order, tensors by name, versions -1.
SQUARE_OF_DIFFERENCE = """
name: "ensemble"
platform: "ensemble"
max_batch_size: 8
input [
  { name: "A" data_type: TYPE_FP32 dims: [ 16 ] },
  { name: "B" data_type: TYPE_FP32 dims: [ 16 ] }
]
output [
  { name: "TWICE_A" data_type: TYPE_FP32 dims: [ 16 ] },
  { name: "DIFFERENCE" data_type: TYPE_FP32 dims: [ 16 ] }
]
ensemble_scheduling {
  step [
    {
      model_name: "add"
      model_version: -1
      input_map { key: "left" value: "sum" }
      input_map { key: "right" value: "difference" }
      output_map { key: "sum" value: "TWICE_A" }
    },
    {
      model_name: "both"
      model_version: 1
      input_map { key: "INPUT0" value: "A" }
      input_map { key: "INPUT1" value: "B" }
      output_map { key: "OUTPUT0" value: "sum" }
      output_map { key: "OUTPUT1" value: "difference" }
    },
    {
      model_name: "both"
      model_version: -1
      input_map { key: "INPUT0" value: "A" }
      input_map { key: "INPUT1" value: "B" }
      output_map { key: "OUTPUT1" value: "DIFFERENCE" }
    }
  ]
}
"""


def reciprocal_rows():
    """Fails where an index is out of bounds."""
    return model(
        [helper.make_node("Cast", ["x"], ["at"], to=7), helper.make_node("Gather", ["table", "at"], ["y"])],
        [f32("x", ["batch", 4])],
        [f32("y", ["batch", 4])],
        {"table": np.arange(10, dtype=np.float32)},
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    save(root / "both", sum_difference())
    save(root / "add", add())
    (root / "both" / "config.pbtxt").write_text('platform: "onnxruntime_onnx"\nmax_batch_size: 8\ndynamic_batching { }\n')
    (root / "ensemble" / "1").mkdir(parents=True)
    (root / "ensemble" / "config.pbtxt").write_text(SQUARE_OF_DIFFERENCE)
    save(root / "plus1", plus(1))
    save(root / "plus2", plus(2))
    save(root / "table", reciprocal_rows())
    write(root / "chain", '[[steps]]\nmodel = "plus1"\noutputs = { y = "between" }\n[[steps]]\nmodel = "table"\n')
    write(root / "outer", '[[steps]]\nmodel = "chain"\noutputs = { y = "inner" }\n[[steps]]\nmodel = "plus2"\n')
    write(root / "kept", 'response_cache = true\n[[steps]]\nmodel = "plus2"\n')
    own = root / "own" / "1"
    own.mkdir(parents=True)
    save(root / "scratch", plus(5))
    (root / "scratch" / "1" / "model.onnx").rename(own / "five.onnx")
    (root / "scratch" / "1").rmdir()
    (root / "scratch").rmdir()
    write(root / "own", '[[steps]]\nfile = "five.onnx"\noutputs = { y = "t" }\n[[steps]]\nname = "again"\nmodel = "plus2"\n')
    save(root / "slow", slow())
    (root / "slow" / "manifest.toml").write_text("batching.batch_size_max = 1\nbatching.queue_requests_max = 1\ninstances.max = 1\n")
    write(root / "busy", '[[steps]]\nmodel = "slow"\n')
    return root


def write(folder, manifest: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.toml").write_text(manifest)


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    with Server([models], tmp_path_factory.mktemp("log") / "log", EXPLICIT) as running:
        yield running


@pytest.fixture(params=WIRES)
def wire(request, server):
    return WIRES[request.param](server)


def test_a_triton_ensemble_answers_as_its_parts_do(server, wire):
    answer = wire.infer("ensemble", {"A": LEFT, "B": RIGHT}, ["TWICE_A", "DIFFERENCE"])
    parts = wire.infer("both", {"INPUT0": LEFT, "INPUT1": RIGHT}, ["OUTPUT0", "OUTPUT1"])
    whole = wire.infer("add", {"left": parts["OUTPUT0"], "right": parts["OUTPUT1"]}, ["sum"])
    np.testing.assert_array_equal(answer["TWICE_A"], whole["sum"])
    np.testing.assert_array_equal(answer["DIFFERENCE"], parts["OUTPUT1"])


def test_an_ensemble_describes_itself_as_triton_does(server):
    rest = tritonclient.http.InferenceServerClient(server.http)
    assert rest.get_model_metadata("ensemble")["platform"] == "ensemble"
    shapes = {tensor["name"]: tensor["shape"] for tensor in rest.get_model_metadata("ensemble")["inputs"]}
    assert shapes == {"A": [-1, 16], "B": [-1, 16]}
    config = rest.get_model_config("ensemble")
    steps = {step["model_name"]: step for step in config["ensemble_scheduling"]["step"]}
    # Load generators take rows and shapes from here.
    assert (config["max_batch_size"], [tensor["dims"] for tensor in config["input"]]) == (8, [[16], [16]])
    assert steps["add"]["input_map"] == {"left": "sum", "right": "difference"}
    same = tritonclient.grpc.InferenceServerClient(server.grpc).get_model_config("ensemble", as_json=True)["config"]
    assert same["platform"] == "ensemble" and len(same["ensemble_scheduling"]["step"]) == 3


def test_a_chain_needs_no_names(wire):
    rows = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.float32)
    np.testing.assert_array_equal(wire.infer("chain", {"x": rows}, ["y"])["y"], rows + 1)
    np.testing.assert_array_equal(wire.infer("outer", {"x": rows}, ["y"])["y"], rows + 3)
    np.testing.assert_array_equal(wire.infer("own", {"x": rows}, ["y"])["y"], rows + 7)


def test_errors_name_the_step(wire):
    far = np.full((1, 4), 99, np.float32)
    refused(lambda: wire.infer("chain", {"x": far}, ["y"]), "invalid", 'step "table"', "inputs contain")
    refused(lambda: wire.infer("outer", {"x": far}, ["y"]), "invalid", 'step "chain": step "table"')
    many = np.zeros((9, 16), np.float32)
    refused(lambda: wire.infer("ensemble", {"A": many, "B": many}, ["TWICE_A"]), "invalid", "at most 8")
    refused(lambda: wire.infer("ensemble", {"A": LEFT}, ["TWICE_A"]), "invalid", "B")


def test_a_full_queue_of_a_step_is_the_whole_ones(server):
    row = np.zeros((1, 1, SLOW_WIDTH), np.float32)

    def ask(_):
        client = tritonclient.http.InferenceServerClient(server.http, network_timeout=60)
        try:
            client.infer("busy", [rest_input("x", row)])
            return None
        except InferenceServerException as error:
            return f"{error.status()} {error.message()}"
        finally:
            client.close()

    with ThreadPoolExecutor(12) as crowd:
        answers = list(crowd.map(ask, range(24)))
    refusals = [answer for answer in answers if answer]
    assert None in answers and refusals
    assert all('429 step "slow": the queue of the model is full' in answer for answer in refusals), refusals


def test_steps_are_batched_on_their_own(server):
    rest = tritonclient.http.InferenceServerClient(server.http, concurrency=1)

    def of(name: str) -> dict:
        return rest.get_inference_statistics(name)["model_stats"][0]

    before = {name: of(name) for name in ("ensemble", "both", "add")}
    start = threading.Barrier(16)

    def ask(seed: int):
        client = tritonclient.grpc.InferenceServerClient(server.grpc)
        left = np.full((1, 16), seed, np.float32)
        start.wait()
        for _ in range(20):
            inputs = [tritonclient.grpc.InferInput(name, [1, 16], "FP32") for name in ("A", "B")]
            inputs[0].set_data_from_numpy(left)
            inputs[1].set_data_from_numpy(RIGHT[:1])
            answer = client.infer("ensemble", inputs)
            np.testing.assert_array_equal(answer.as_numpy("TWICE_A"), 2 * left)
            np.testing.assert_array_equal(answer.as_numpy("DIFFERENCE"), left - RIGHT[:1])

    with ThreadPoolExecutor(16) as crowd:
        list(crowd.map(ask, range(16)))
    after = {name: of(name) for name in before}
    rows = {name: after[name]["inference_count"] - before[name]["inference_count"] for name in before}
    assert rows == {"ensemble": 320, "both": 640, "add": 320}
    batches = after["both"]["execution_count"] - before["both"]["execution_count"]
    assert batches < 640, "requests and steps share batches"
    whole = after["ensemble"]["inference_stats"]
    assert whole["success"]["count"] - before["ensemble"]["inference_stats"]["success"]["count"] == 320
    assert whole["compute_infer"]["ns"] > before["ensemble"]["inference_stats"]["compute_infer"]["ns"]


def test_own_steps_have_statistics_and_metrics(server):
    wire = WIRES["rest-binary"](server)
    row = np.ones((1, 4), np.float32)
    wire.infer("own", {"x": row}, ["y"])
    entry = tritonclient.http.InferenceServerClient(server.http).get_inference_statistics("own")["model_stats"][0]
    assert entry["name"] == "own" and entry["inference_count"] >= 1
    assert [step["name"] for step in entry["steps"]] == ["five"]
    assert entry["steps"][0]["inference_count"] == entry["inference_count"]
    assert entry["memory_usage"][0]["byte_size"] == entry["steps"][0]["memory_usage"][0]["byte_size"]
    series = metrics(server)
    rows = [value for name, value in series.items() if name.startswith("kinglet_rows_total") and 'variant="five"' in name]
    assert rows == [entry["inference_count"]], series.keys()


def test_answers_of_a_whole_are_kept(server):
    row = np.full((1, 4), 7, np.float32)

    def ask() -> str:
        one = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row.ravel().tolist()}
        connection = http.client.HTTPConnection(server.http, timeout=60)
        connection.request("POST", "/v2/models/kept/infer", json.dumps({"inputs": [one]}))
        answer = connection.getresponse()
        assert json.load(answer)["outputs"][0]["data"] == [9, 9, 9, 9]
        return answer.getheader("kinglet-cache")

    first = ask()
    assert (first, ask()) == ("miss", "hit")
    # A new build of a step may answer otherwise.
    tritonclient.http.InferenceServerClient(server.http).load_model("plus2")
    wait_for(lambda: ask() == "hit")
    client = tritonclient.http.InferenceServerClient(server.http)
    count = client.get_inference_statistics("kept")["model_stats"][0]["inference_stats"]["cache_miss"]["count"]
    assert count == 2


def test_ensembles_come_and_go_with_their_models(models, tmp_path):
    settings = {"KINGLET__REPOSITORY__CONTROL": "explicit"}
    with Server([models], tmp_path / "log", settings) as running:
        client = tritonclient.http.InferenceServerClient(running.http)
        client.load_model("ensemble")
        assert all(client.is_model_ready(name) for name in ("ensemble", "both", "add"))
        client.unload_model("both")
        wait_for(lambda: not client.is_model_ready("ensemble"))
        states = {entry["name"]: entry for entry in client.get_model_repository_index()}
        assert states["ensemble"]["reason"] == 'step "both": model "both" is not ready: unloaded'
        client.load_model("both")
        wait_for(lambda: client.is_model_ready("ensemble"))
        client.unload_model("ensemble", unload_dependents=True)
        assert not any(client.is_model_ready(name) for name in ("ensemble", "both", "add"))


def test_every_step_has_a_span(models, tmp_path):
    with Receiver("grpc", free_ports(1)[0]) as receiver:
        own = {"ENDPOINT": receiver.endpoint, "PROTOCOL": "grpc", "INTERVAL": "50ms", "SAMPLE_RATIO": "1"}
        settings = {f"KINGLET__TRACING__{name}": value for name, value in own.items()}
        with Server([models], tmp_path / "log", settings) as running:
            WIRES["grpc"](running).infer("outer", {"x": np.zeros((1, 4), np.float32)}, ["y"])
            spans = receiver.wait(lambda spans: any(span.name.endswith("/ModelInfer") for span in spans))
    [call] = [span for span in spans if span.name.endswith("/ModelInfer")]
    steps = {span.name: span for span in children(spans, call) if span.name.startswith("step ")}
    assert sorted(steps) == ["step chain", "step chain/plus1", "step chain/table", "step plus2"]
    assert [len(steps[name].links) for name in sorted(steps)] == [0, 1, 1, 1], "batches are linked"
