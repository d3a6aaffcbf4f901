"""The v1 dialects over REST: by OpenVINO's client of TensorFlow Serving's API, and in the forms that TensorFlow Serving
documents, for what that client does not send."""

import gzip
import http.client
import json

import numpy as np
import ovmsclient
import pytest

from server import Server
from watching import metrics, wait_for
from zoo import DATATYPES, add, identity, manifest, plus, save, sum_difference

WIDE = 40_000
METERING = {"KINGLET__METERING__SOURCE": "model", "KINGLET__METERING__WINDOW": "100ms"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("dialects")
    save(root / "vector", identity(DATATYPES["FP32"], ["batch", "width"]))
    save(root / "whole", identity(DATATYPES["INT32"], ["batch", "width"]))
    save(root / "text", identity(DATATYPES["BYTES"], ["batch"], "x", "y"))
    save(root / "picture", identity(DATATYPES["BYTES"], ["batch"], "x", "y_bytes"))
    save(root / "scalar", identity(DATATYPES["FP32"], []))
    save(root / "half", identity(DATATYPES["FP16"], ["batch", 2]))
    save(root / "number", identity(DATATYPES["FP32"], ["batch", 1]))
    save(root / "add", add())
    save(root / "sum_difference", sum_difference())
    save(root / "labelled", identity(DATATYPES["FP32"], ["batch", 3]))
    manifest(root / "labelled", outputs='[{ name = "y", labels = ["low", "middle"] }]')
    for version in (1, 2, 3):
        save(root / "versions", plus(version), version)
    manifest(root / "versions", versions='{ policy = "all", labels = { stable = 2, gone = 7 } }')
    return root


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    with Server([models], tmp_path_factory.mktemp("log") / "log", METERING) as running:
        yield running


@pytest.fixture(scope="module")
def tfs(server):
    return ovmsclient.make_http_client(server.http)


def call(server, method: str, path: str, body=None, headers: dict | None = None) -> tuple[int, dict, object]:
    connection = http.client.HTTPConnection(server.http, timeout=20)
    text = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
    connection.request(method, path, text, headers or {})
    answer = connection.getresponse()
    payload = answer.read()
    if answer.headers["content-encoding"] == "gzip":
        payload = gzip.decompress(payload)
    return answer.status, answer.headers, json.loads(payload) if payload else None


def predict(server, model: str, body, verb: str = "predict", headers: dict | None = None) -> tuple[int, object]:
    status, _, told = call(server, "POST", f"/v1/models/{model}:{verb}", body, headers)
    return status, told


def test_predictions_by_a_client(tfs):
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert (tfs.predict({"x": rows}, "versions", 1) == rows + 1).all()
    both = tfs.predict({"INPUT0": np.ones((1, 16), np.float32), "INPUT1": np.ones((1, 16), np.float32)}, "sum_difference", 1)
    assert (both["OUTPUT0"] == 2).all() and (both["OUTPUT1"] == 0).all()
    assert list(tfs.predict({"x": ["a", "ü"]}, "text", 1)) == ["a", "ü"]
    # One-dimensional bytes are sent as base64.
    assert list(tfs.predict({"x": [b"a", b"bc"]}, "text", 1)) == ["a", "bc"]


def test_errors_by_a_client(tfs):
    with pytest.raises(ovmsclient.tfs_compat.base.errors.ModelNotFoundError, match="nope"):
        tfs.predict({"x": [1.0]}, "nope", 1)
    with pytest.raises(ovmsclient.tfs_compat.base.errors.InvalidInputError, match="unexpected input"):
        tfs.predict({"nope": [1.0]}, "vector", 1)


def test_status_by_a_client(tfs):
    available = {"state": "AVAILABLE", "error_code": 0, "error_message": ""}
    assert tfs.get_model_status("versions", 2) == {2: available}


@pytest.mark.parametrize(
    "model, body, answer",
    [
        ("vector", {"instances": [[1, 2.5], [3, 4]]}, {"predictions": [[1.0, 2.5], [3.0, 4.0]]}),
        ("vector", {"instances": [{"x": [1]}, {"x": [2]}]}, {"predictions": [[1.0], [2.0]]}),
        ("vector", {"inputs": [[1, 2]]}, {"outputs": [[1.0, 2.0]]}),
        ("vector", {"signature_name": "serving_default", "inputs": {"x": [[1]]}}, {"outputs": [[1.0]]}),
        ("whole", {"instances": [[1, -2]]}, {"predictions": [[1, -2]]}),
        ("half", {"instances": [[1.5, 2]]}, {"predictions": [[1.5, 2.0]]}),
        ("scalar", {"inputs": 2}, {"outputs": 2.0}),
        ("text", {"instances": ["a", {"b64": "/w=="}]}, {"predictions": [{"b64": "YQ=="}, {"b64": "/w=="}]}),
        ("text", {"instances": ["a", "b"]}, {"predictions": ["a", "b"]}),
        ("picture", {"instances": [{"b64": "YQ=="}]}, {"predictions": [{"b64": "YQ=="}]}),
        ("picture", {"inputs": {"x": ["a"]}}, {"outputs": [{"b64": "YQ=="}]}),
    ],
)
def test_documented_forms(server, model, body, answer):
    assert predict(server, model, body) == (200, answer)


def test_rows_of_several_outputs(server):
    row = {"INPUT0": [1] * 16, "INPUT1": [2] * 16}
    status, told = predict(server, "sum_difference", {"instances": [row, row]})
    assert status == 200 and told["predictions"] == [{"OUTPUT0": [3.0] * 16, "OUTPUT1": [-1.0] * 16}] * 2
    status, told = predict(server, "sum_difference", {"inputs": {name: [value] for name, value in row.items()}})
    assert status == 200 and told["outputs"] == {"OUTPUT0": [[3.0] * 16], "OUTPUT1": [[-1.0] * 16]}


def test_numbers_that_json_lacks(server):
    status, told = predict(server, "vector", '{"instances": [[NaN, Infinity, -Infinity, 1]]}')
    assert status == 200 and str(told["predictions"]) == "[[nan, inf, -inf, 1.0]]"


@pytest.mark.parametrize(
    "model, body, status, words",
    [
        ("nope", {"instances": [1]}, 404, "not found"),
        ("vector", {"instances": [[1]], "inputs": [[1]]}, 400, "got both"),
        ("vector", {}, 400, "got neither"),
        ("vector", "", 400, "the body is empty"),
        ("vector", "[", 400, "invalid request"),
        ("vector", {"instances": []}, 400, "at least one element"),
        ("vector", {"instances": [[1, 2], [3]]}, 400, "1 elements along axis 1, before it had 2"),
        ("vector", {"instances": [1]}, 400, "expects shape [batch,width], got [1]"),
        ("vector", {"instances": [["a"]]}, 400, "FP32 cannot hold a string"),
        ("vector", {"instances": [[1]], "signature_name": "other"}, 400, 'the model has "serving_default"'),
        ("add", {"instances": [[1] * 16]}, 400, 'an object with the inputs "left", "right"'),
        ("add", {"inputs": {"left": [[1] * 16]}}, 400, 'input "right" is missing'),
        ("add", {"instances": [{"left": [1] * 16}]}, 400, 'input "right" is missing'),
        ("scalar", {"inputs": [1]}, 400, "expects shape [], got [1]"),
        ("whole", {"instances": [[1.5]]}, 400, "INT32 cannot hold 1.5"),
        ("vector", '{"instances": ' + "[" * 101 + "]" * 101 + "}", 400, "more than 8 axes"),
        ("vector", '{"other": ' + "[" * 101 + "]" * 101 + ', "instances": [[1]]}', 400, "nested deeper"),
    ],
)
def test_refusals(server, model, body, status, words):
    got, told = predict(server, model, body)
    assert got == status and words in told["error"], told


def test_rows_need_outputs_with_rows(server):
    status, told = predict(server, "scalar", {"instances": [1]})
    assert status == 400 and "expects shape []" in told["error"]


def test_paths_and_verbs(server):
    for method, path, status, words in [
        ("POST", "/v1/models/vector:explain", 501, "explanations are not served"),
        ("POST", "/v1/models/vector", 405, "the path expects :predict, :classify or :regress"),
        ("POST", "/v1/models/vector:nothing", 400, "the path expects :predict"),
        ("DELETE", "/v1/models/vector", 405, "expected GET"),
        ("GET", "/v1/models/vector:predict", 405, "expected POST"),
        ("GET", "/v1/models/vector/labels/a%3Apredict", 405, "expected POST"),
        ("GET", "/v1/models/vector/labels/a:b", 404, "a:b"),
        ("POST", "/v1/models/vector/metadata", 405, "expected GET"),
        ("GET", "/v1/models/versions/versions/x", 400, "is not a number"),
        ("GET", "/v1/models/versions/labels/none", 404, 'no version with the label "none", expected "gone" or "stable"'),
        ("GET", "/v1/models/versions/labels/gone", 404, "version 7 is not found"),
        ("GET", "/v1/models/vector/labels/stable", 404, "expected none"),
    ]:
        got, _, told = call(server, method, path, "{}" if method == "POST" else None)
        assert got == status and words in told["error"], (path, told)


def test_versions_and_labels(server):
    row = {"instances": [[0, 0, 0, 0]]}
    for path, plus_ in [("versions", 3), ("versions/versions/1", 1), ("versions/labels/stable", 2)]:
        assert predict(server, path, row) == (200, {"predictions": [[plus_] * 4]})
    status, told = predict(server, "versions/labels/other", row)
    assert status == 404 and 'expected "gone" or "stable"' in told["error"]


def test_status_is_of_both_dialects(server):
    ok = {"error_code": "OK", "error_message": ""}
    status, _, told = call(server, "GET", "/v1/models/versions")
    assert (status, told["name"], told["ready"]) == (200, "versions", True)
    assert told["model_version_status"] == [{"version": str(v), "state": "AVAILABLE", "status": ok} for v in (1, 2, 3)]
    for path in ("versions/2", "labels/stable"):
        _, _, told = call(server, "GET", f"/v1/models/versions/{path}")
        assert [line["version"] for line in told["model_version_status"]] == ["2"]
    assert call(server, "GET", "/v1/models/nope")[0] == 404
    assert call(server, "GET", "/v1/models/versions/versions/9")[0] == 404
    status, _, told = call(server, "GET", "/v1/models")
    assert status == 200 and "vector" in told["models"]


def test_metadata(server):
    status, _, told = call(server, "GET", "/v1/models/versions/labels/stable/metadata")
    assert status == 200 and told["model_spec"] == {"name": "versions", "signature_name": "", "version": "2"}
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    dims = [{"size": "-1", "name": ""}, {"size": "4", "name": ""}]
    wanted = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": "x"}
    assert signature["inputs"] == {"x": wanted} and signature["method_name"] == "tensorflow/serving/predict"


def test_classify_and_regress(server):
    body = {"examples": [{"x": [1, 2, 3]}, {"x": [4, 5, 6]}]}
    rows = [[["low", 1.0], ["middle", 2.0], ["2", 3.0]], [["low", 4.0], ["middle", 5.0], ["2", 6.0]]]
    assert predict(server, "labelled", body, "classify") == (200, {"results": rows})
    body = {"examples": [{"x": 1}, {"x": 2}]}
    assert predict(server, "number", body, "regress") == (200, {"results": [1.0, 2.0]})
    body = {"context": {"x": 3}, "examples": [{}, {}]}
    assert predict(server, "number", body, "regress") == (200, {"results": [3.0, 3.0]})
    status, told = predict(server, "text", {"examples": [{"x": "a"}]}, "classify")
    assert status == 400 and ":classify expects one output of floats" in told["error"]
    status, told = predict(server, "labelled", {"instances": [[1, 2, 3]]}, "classify")
    assert status == 400 and 'expected "examples"' in told["error"]


def test_large_bodies_and_gzip(server):
    """Decoded and printed on the pool, both ways compressed."""
    rows = np.arange(WIDE, dtype=np.float32).reshape(4, -1).tolist()
    body = gzip.compress(json.dumps({"instances": rows}).encode())
    headers = {"content-encoding": "gzip", "accept-encoding": "gzip"}
    status, told = predict(server, "vector", body, headers=headers)
    assert status == 200 and told["predictions"] == rows
    status, told = predict(server, "nope", body, headers=headers)
    assert status == 404
    status, told = predict(server, "vector", {"instances": rows + [[1]]})
    assert status == 400 and "before it had" in told["error"]


def test_headers_are_those_of_every_inference(server):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    row = {"instances": [[1]]}

    def told_of_energy():
        status, headers, _ = call(server, "POST", "/v1/models/vector:predict", row, {"traceparent": trace})
        assert status == 200 and headers["traceparent"].split("-")[1] == trace.split("-")[1]
        return "kinglet-energy-joules" in headers and headers["kinglet-energy-source"] == "model"

    wait_for(told_of_energy)
    status, told = predict(server, "vector", row, headers={"kinglet-timeout-ms": "0"})
    assert status == 504, told
    status, told = predict(server, "vector", row, headers={"kinglet-min-accuracy": "0.9"})
    assert status == 412 and "keeps the budget" in told["error"]
    status, told = predict(server, "vector", row, headers={"kinglet-timeout-ms": "soon"})
    assert status == 400
    status, told = predict(server, "vector", row, headers={"content-type": "image/png"})
    assert status == 415


def test_calls_are_counted_once(server):
    def counted(code: str) -> float:
        ours = ("kinglet_requests_total{", 'model="half"', f'code="{code}"')
        return sum(value for sample, value in metrics(server).items() if all(part in sample for part in ours))

    assert predict(server, "half", {"instances": [[1, 2]]})[0] == 200
    assert predict(server, "half", {"instances": [[1, 2, 3]]})[0] == 400
    ok, invalid = counted("ok"), counted("invalid_argument")
    assert predict(server, "half", {"instances": [[1, 2]]})[0] == 200
    assert predict(server, "half", {"instances": [[1], [2, 3]]})[0] == 400
    wait_for(lambda: (counted("ok"), counted("invalid_argument")) == (ok + 1, invalid + 1))


def test_inputs_as_rows_and_off(models, tmp_path):
    with Server([models], tmp_path / "rows", {"KINGLET__DIALECTS__INPUTS_AS": "rows"}) as running:
        assert predict(running, "vector", {"inputs": [[1], [2]]}) == (200, {"predictions": [[1.0], [2.0]]})
        assert predict(running, "vector", {"inputs": {"x": [[1]]}}) == (200, {"outputs": [[1.0]]})
    with Server([models], tmp_path / "off", {"KINGLET__DIALECTS__V1": "false"}) as running:
        for method, path in [("POST", "/v1/models/vector:predict"), ("GET", "/v1/models/vector"), ("GET", "/v1/models")]:
            status, _, told = call(running, method, path, "{}")
            assert status == 404 and "no such path" in told["error"]


def test_a_model_that_does_not_answer(tmp_path):
    folder = tmp_path / "models" / "broken" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"no model")
    with Server([tmp_path / "models"], tmp_path / "log") as running:
        for path in ("broken", "broken/versions/1", "broken/labels/stable"):
            status, _, told = call(running, "GET", f"/v1/models/{path}")
            assert (status, told["ready"]) == (503, False) and "not ready" in told["error"]
            [line] = told["model_version_status"]
            assert (line["state"], line["status"]["error_code"]) == ("END", "UNAVAILABLE")
            assert line["status"]["error_message"]
        assert predict(running, "broken", {"instances": [1]})[0] == 503
        assert call(running, "GET", "/v1/models/broken/metadata")[0] == 503
