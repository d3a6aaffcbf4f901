"""The paths of SageMaker and Vertex AI, with the bodies that those send."""

import http.client
import json

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from server import Server
from zoo import DATATYPES, SLOW_WIDTH, identity, save, slow

V1, V2 = {"instances": [[1, 2]]}, {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
BINARY = "application/vnd.sagemaker-triton.binary+json"
SAGEMAKER = {"KINGLET__DIALECTS__SAGEMAKER": "true"}
VERTEX = {
    "KINGLET__DIALECTS__VERTEX": "true",
    "AIP_HEALTH_ROUTE": "/v1/models/vector",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/7:predict",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("platforms")
    save(root / "vector", identity(DATATYPES["FP32"], ["batch", "width"]))
    return root


@pytest.fixture(scope="module")
def sagemaker(models, tmp_path_factory):
    with Server([models], tmp_path_factory.mktemp("log") / "log", SAGEMAKER) as running:
        yield running


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """An endpoint of many models: the platform unpacks each into <name>/model."""
    root = tmp_path_factory.mktemp("many")
    for name in ("first", "second"):
        save(root / name / "model", slow(layers=1))
    settings = SAGEMAKER | {
        "KINGLET__REPOSITORY__CONTROL": "explicit",
        "KINGLET__DIALECTS__SAGEMAKER_MEMORY_MAX": "1B",
        "KINGLET__LIMITS__CONTROL_BYTES_MAX": "1KiB",
    }
    with Server([root], tmp_path_factory.mktemp("log") / "log", settings) as running:
        running.root = root
        yield running


def call(server, method: str, path: str, body=None, headers: dict | None = None) -> tuple[int, dict, bytes]:
    connection = http.client.HTTPConnection(server.http, timeout=20)
    text = body if body is None or isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, text, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def asked(server, method: str, path: str, body=None, headers: dict | None = None) -> tuple[int, object]:
    status, _, payload = call(server, method, path, body, headers)
    return status, json.loads(payload) if payload else None


@pytest.mark.parametrize("path", ["/invocations", "/models/vector/invoke"])
def test_bodies_of_either_dialect(sagemaker, path):
    assert asked(sagemaker, "POST", path, V1) == (200, {"predictions": [[1.0, 2.0]]})
    assert asked(sagemaker, "POST", path, {"inputs": {"x": [[1, 2]]}}) == (200, {"outputs": [[1.0, 2.0]]})
    status, told = asked(sagemaker, "POST", path, V2)
    assert status == 200 and told["outputs"][0]["data"] == [1.0, 2.0] and told["model_name"] == "vector"


def test_binary_tensors(sagemaker):
    """tritonclient makes the body, as SageMaker's examples for Triton do."""
    rows = np.array([[1, 2], [3, 4]], np.float32)
    tensor = InferInput("x", [2, 2], "FP32")
    tensor.set_data_from_numpy(rows, binary_data=True)
    wanted = [InferRequestedOutput("y", binary_data=True)]
    body, length = InferenceServerClient.generate_request_body([tensor], outputs=wanted)
    kind = {"content-type": f"{BINARY};json-header-size={length}"}
    status, headers, payload = call(sagemaker, "POST", "/invocations", body, kind)
    assert status == 200, payload
    media, _, header = headers["content-type"].partition(";json-header-size=")
    assert media == BINARY
    result = InferenceServerClient.parse_response_body(payload, header_length=int(header))
    assert (result.as_numpy("y") == rows).all()


def test_errors_are_those_of_every_call(sagemaker):
    for path, body, status, words in [
        ("/invocations", {"instances": [1]}, 400, "expects shape"),
        ("/invocations", {}, 400, 'no \\"inputs\\"'),
        ("/models/nope/invoke", V1, 404, "not found"),
        ("/models/a..%2fb/invoke", V1, 400, "is not allowed"),
    ]:
        got, _, payload = call(sagemaker, "POST", path, body)
        assert got == status and words in payload.decode(), payload
    status, told = asked(sagemaker, "POST", "/invocations", V1, {"kinglet-min-accuracy": "1"})
    assert status == 412
    assert asked(sagemaker, "GET", "/invocations")[0] == 405
    assert asked(sagemaker, "GET", "/ping")[0] == 200
    assert asked(sagemaker, "PUT", "/models/vector")[0] == 405


def test_models_are_not_loaded_where_control_is_not_explicit(sagemaker):
    for method, path, body in [("POST", "/models", {"model_name": "a"}), ("DELETE", "/models/vector", None)]:
        status, told = asked(sagemaker, method, path, body)
        assert status == 403 and "explicit" in told["error"]
    assert asked(sagemaker, "GET", "/models") == (200, {"models": [{"modelName": "vector"}]})


def test_many_models(many):
    url = str(many.root / "first" / "model")
    assert asked(many, "GET", "/models") == (200, {"models": []})
    assert asked(many, "POST", "/models/first/invoke", V1)[0] == 404
    assert asked(many, "GET", "/models/first")[0] == 404
    assert asked(many, "DELETE", "/models/first")[0] == 404
    assert asked(many, "POST", "/models", {"model_name": "first", "url": url})[0] == 200
    assert asked(many, "GET", "/models/first") == (200, {"modelName": "first"})
    status, told = asked(many, "POST", "/models/first/invoke", {"instances": [[[1] * SLOW_WIDTH]]})
    assert status == 200 and len(told["predictions"][0][0]) == SLOW_WIDTH
    status, told = asked(many, "POST", "/models", {"model_name": "first", "url": url})
    assert status == 409 and "loaded already" in told["error"]
    second = {"model_name": "second", "url": str(many.root / "second" / "model")}
    status, told = asked(many, "POST", "/models", second)
    assert status == 507 and "dialects.sagemaker_memory_max" in told["error"]
    assert asked(many, "DELETE", "/models/first")[0] == 200
    assert asked(many, "GET", "/models") == (200, {"models": []})
    assert asked(many, "POST", "/models", second)[0] == 200
    assert asked(many, "DELETE", "/models/second")[0] == 200


def test_loads_stay_in_the_repository(many):
    for body, status, words in [
        ({"model_name": "first", "url": "/etc"}, 400, "beneath one of repository.paths"),
        ({"model_name": "first", "url": f"{many.root}/../first"}, 400, "beneath one of repository.paths"),
        ({"model_name": "../first"}, 400, "is not allowed"),
        ({"url": str(many.root)}, 400, 'no "model_name"'),
        ({"model_name": 1}, 400, "expects a string"),
        ({"model_name": "x" * 2000}, 413, "larger than"),
        ({"model_name": "nope"}, 404, "not found"),
    ]:
        got, told = asked(many, "POST", "/models", body)
        assert got == status and words in told["error"], told


def test_pages_of_other_sites_load_nothing(many):
    status, told = asked(many, "POST", "/models", {"model_name": "first"}, {"origin": "http://elsewhere.example"})
    assert status == 403, told


def test_invocations_name_no_model(models, tmp_path):
    for name in ("one", "two"):
        save(tmp_path / "models" / name, identity(DATATYPES["FP32"], ["batch", "width"]))
    with Server([tmp_path / "models"], tmp_path / "log", SAGEMAKER) as running:
        status, told = asked(running, "POST", "/invocations", V1)
        assert status == 400 and "dialects.default_model, got 2 models" in told["error"]
    chosen = SAGEMAKER | {"KINGLET__DIALECTS__DEFAULT_MODEL": "two"}
    with Server([tmp_path / "models"], tmp_path / "log", chosen) as running:
        status, told = asked(running, "POST", "/invocations", V2)
        assert status == 200 and told["model_name"] == "two"


def test_they_are_off_by_default(models, tmp_path):
    with Server([models], tmp_path / "log") as running:
        for method, path in [("GET", "/ping"), ("POST", "/invocations"), ("GET", "/models")]:
            status, told = asked(running, method, path, V1 if method == "POST" else None)
            assert status == 404 and "no such path" in told["error"]


def test_vertex(models, tmp_path):
    """Its paths come first, whatever else stands there."""
    with Server([models], tmp_path / "log", VERTEX) as running:
        health, predict = VERTEX["AIP_HEALTH_ROUTE"], VERTEX["AIP_PREDICT_ROUTE"]
        assert asked(running, "GET", health) == (200, {"ready": True, "state": "ready"})
        body = V1 | {"parameters": {"anything": [1]}}
        assert asked(running, "POST", predict, body) == (200, {"predictions": [[1.0, 2.0]]})
        assert asked(running, "POST", predict, {"instances": [1]})[0] == 400
        assert asked(running, "GET", predict)[0] == 405
        assert asked(running, "POST", health, body)[0] == 405
        assert asked(running, "POST", "/v1/models/vector:predict", V1)[0] == 200


def test_vertex_goes_before_other_paths(models, tmp_path):
    """The path is the platform's: the model in it is not asked for."""
    settings = VERTEX | {"AIP_PREDICT_ROUTE": "/v1/models/other:predict"}
    with Server([models], tmp_path / "log", settings) as running:
        assert asked(running, "POST", "/v1/models/other:predict", V1) == (200, {"predictions": [[1.0, 2.0]]})


def test_vertex_needs_its_routes(models, tmp_path):
    with pytest.raises(RuntimeError, match="dialects.vertex_predict_route"):
        Server([models], tmp_path / "log", {"KINGLET__DIALECTS__VERTEX": "true"}).__enter__()
