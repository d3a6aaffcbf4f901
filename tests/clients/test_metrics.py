"""What the metrics say of calls whose outcome is known, over REST and gRPC."""

import http.client
import json
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server import Server
from watching import WAIT_SECONDS, metrics
from wires import grpc_input
from zoo import SLOW_WIDTH, add, manifest, save, slow

SETTINGS = {"KINGLET__LIMITS__BODY_BYTES_MAX": "64KiB", "KINGLET__DRAIN__DELAY": "2s"}
ROW = np.ones((1, 16), np.float32)


@pytest.fixture
def measured(tmp_path):
    """A server of its own, so that every count begins at zero."""
    save(tmp_path / "models" / "add", add())
    save(tmp_path / "models" / "slow", slow())
    one_at_a_time = {"batching.batch_size_max": "1", "instances.max": "1", "batching.queue_requests_max": "2"}
    manifest(tmp_path / "models" / "slow", one_at_a_time)
    with Server([tmp_path / "models"], tmp_path / "log", SETTINGS) as running:
        yield running


def request(left_shape=(1, 16)) -> dict:
    def tensor(name, shape):
        return {"name": name, "shape": list(shape), "datatype": "FP32", "data": [1] * int(np.prod(shape))}

    return {"inputs": [tensor("left", left_shape), tensor("right", (1, 16))]}


# Both wires are asked alike, and count alike.
COUNTED = {
    ("add", "1", "ok"): 2,
    ("add", "1", "invalid_argument"): 1,
    ("_unknown", "", "invalid_argument"): 1,
    ("_unknown", "", "not_found"): 1,
    ("_unknown", "", "payload_too_large"): 1,
}


def test_rest_calls_count_by_their_outcome(measured):
    good = json.dumps(request()).encode()
    for model, body, status in [
        ("add", good, 200),
        ("add", good, 200),
        ("add", b"{", 400),
        ("nope", good, 404),
        ("add", json.dumps(request(left_shape=(1, 15))).encode(), 400),
        ("add", bytes(64 * 1024 + 1), 413),
    ]:
        assert post(measured, model, body) == status
    assert requests(measured) == COUNTED
    assert_stages(measured, "add", 2)


def test_grpc_calls_count_by_their_outcome(measured):
    large = np.ones((1024, 16), np.float32)
    with grpc.insecure_channel(measured.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for model, array, code in [
            ("add", ROW, None),
            ("add", ROW, None),
            ("nope", ROW, grpc.StatusCode.NOT_FOUND),
            ("add", ROW[:, :15], grpc.StatusCode.INVALID_ARGUMENT),
            ("add", large, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ]:
            assert infer_code(stub, message(model, array)) == code
        unreadable = message("add", ROW)
        unreadable.inputs[0].datatype = "FP31"
        assert infer_code(stub, unreadable) == grpc.StatusCode.INVALID_ARGUMENT
    assert requests(measured) == COUNTED
    assert_stages(measured, "add", 2)


def test_a_crowd_leaves_full_queues_counted_and_gauges_at_zero(measured):
    """More than the queue holds: what was refused has a time, and nothing stays behind."""
    answers = []
    with tritonclient.grpc.InferenceServerClient(measured.grpc) as client:
        tensor = grpc_input("x", np.ones((1, 1, SLOW_WIDTH), np.float32))
        for _ in range(12):
            client.async_infer("slow", [tensor], callback=lambda result, error: answers.append(error))
        until = time.monotonic() + WAIT_SECONDS
        while len(answers) < 12:
            assert time.monotonic() < until, f"{len(answers)} of 12 answers came"
            time.sleep(0.01)
    refused = sum(error is not None for error in answers)
    served = len(answers) - refused
    assert served >= 2 and refused >= 1
    assert requests(measured) == {("slow", "1", "ok"): served, ("slow", "1", "overloaded"): refused}
    told = metrics(measured)
    assert told["kinglet_refusal_duration_seconds_count"] == refused
    batches = sum(count for line, count in told.items() if line.startswith("kinglet_batches_total{"))
    assert batches == served, "each ran by itself"
    assert_stages(measured, "slow", served)
    for gauge in (
        'kinglet_queue_requests{model="slow",version="1"}',
        'kinglet_queue_bytes{model="slow",version="1"}',
        "kinglet_in_flight_requests",
        "kinglet_in_flight_bytes",
        "kinglet_receiving_bytes",
        "kinglet_leaving_bytes",
        "kinglet_cores_busy",
    ):
        wait_for(measured, gauge, 0)


def test_readiness_is_told(measured):
    assert metrics(measured)["kinglet_ready"] == 1
    measured.terminate()
    wait_for(measured, "kinglet_ready", 0)


def assert_stages(server, model: str, answered: int) -> None:
    told = metrics(server)
    labels = f'model="{model}",version="1"'
    for stage in ("decode", "queue", "gather", "compute", "encode"):
        name = f'kinglet_stage_duration_seconds_count{{model="{model}",stage="{stage}",version="1"}}'
        assert told[name] == answered, name
    assert told[f"kinglet_request_duration_seconds_count{{{labels}}}"] == answered
    assert told[f"kinglet_rows_total{{{labels}}}"] == answered


def wait_for(server, name: str, value: float) -> None:
    """A place is given back when the answer has gone, which its client may see a moment earlier."""
    until = time.monotonic() + WAIT_SECONDS
    while (now := metrics(server)[name]) != value:
        assert time.monotonic() < until, f"expected {value} for {name}, came {now}"
        time.sleep(0.01)


def requests(server) -> dict[tuple[str, str, str], int]:
    """What was counted, by model, version and code."""
    counts = {}
    for line, count in metrics(server).items():
        name, _, labels = line.partition("{")
        if name == "kinglet_requests_total" and count > 0:
            label = dict(pair.split("=") for pair in labels.rstrip("}").replace('"', "").split(","))
            counts[label["model"], label["version"], label["code"]] = int(count)
    return counts


def message(model: str, left: np.ndarray) -> service_pb2.ModelInferRequest:
    asked = service_pb2.ModelInferRequest(model_name=model)
    for name, array in (("left", left), ("right", ROW)):
        asked.inputs.add(name=name, datatype="FP32", shape=array.shape)
        asked.raw_input_contents.append(array.tobytes())
    return asked


def infer_code(stub, asked) -> grpc.StatusCode | None:
    try:
        stub.ModelInfer(asked, timeout=WAIT_SECONDS)
    except grpc.RpcError as error:
        return error.code()
    return None


def post(server, model: str, body: bytes) -> int:
    connection = http.client.HTTPConnection(server.http, timeout=WAIT_SECONDS)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body=body)
        return connection.getresponse().status
    finally:
        connection.close()
