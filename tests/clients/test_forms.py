"""How a request and its answer may be packed: outputs, compression, classification, raw bodies."""

import gzip
import http.client
import json
import zlib

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from wires import grpc_input, rest_input
from zoo import CLASSES

LEFT = np.arange(16, dtype=np.float32).reshape(1, 16)
RIGHT = np.ones((1, 16), np.float32)
SCORES = np.array([[0.1, 0.5, 0.25, -1.0, 0.5, 0.0]], np.float32)
INFERENCE_HEADER = "Inference-Header-Content-Length"


def test_without_outputs_all_are_given(client, tensor_of):
    result = client.infer("sum_difference", pair(tensor_of))
    assert (result.as_numpy("OUTPUT0") == LEFT + 1).all()
    assert (result.as_numpy("OUTPUT1") == LEFT - 1).all()


@pytest.mark.parametrize("wanted", [["OUTPUT1"], ["OUTPUT0"], ["OUTPUT1", "OUTPUT0"]])
def test_only_the_outputs_asked_for(wire, wanted):
    result = wire.request("sum_difference", {"INPUT0": LEFT, "INPUT1": RIGHT}, wanted)
    for name, expected in (("OUTPUT0", LEFT + 1), ("OUTPUT1", LEFT - 1)):
        got = result.as_numpy(name)
        assert (got == expected).all() if name in wanted else got is None


def test_inputs_in_any_order(client, tensor_of):
    result = client.infer("sum_difference", list(reversed(pair(tensor_of))))
    assert (result.as_numpy("OUTPUT1") == LEFT - 1).all()


@pytest.mark.parametrize("request_compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answer_compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_rest_compression(rest, request_compression, answer_compression, binary):
    # Large and of low entropy: whoever compresses at all compresses this.
    sent = np.zeros((1, 20_000), np.float32)
    sent[0, ::7] = 1
    outputs = [tritonclient.http.InferRequestedOutput("y", binary_data=binary)]
    result = rest.client.infer(
        "identity_fp32",
        [rest_input("x", sent, binary)],
        outputs=outputs,
        request_compression_algorithm=request_compression,
        response_compression_algorithm=answer_compression,
    )
    assert (result.as_numpy("y") == sent).all()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_rest_answers_are_compressed_when_asked(server, encoding):
    """Read without a client that unpacks: the header length is that of the plain JSON."""
    sent = np.zeros((1, 20_000), np.float32)
    body, length = tritonclient.http.InferenceServerClient.generate_request_body([rest_input("x", sent)])
    headers = {INFERENCE_HEADER: str(length), "Accept-Encoding": encoding}
    status, answer_headers, packed = post(server, "/v2/models/identity_fp32/infer", body, headers)
    assert status == 200 and answer_headers["content-encoding"] == encoding
    plain = gzip.decompress(packed) if encoding == "gzip" else zlib.decompress(packed)
    assert len(packed) < len(plain) // 10
    json_length = int(answer_headers[INFERENCE_HEADER.lower()])
    assert json.loads(plain[:json_length])["outputs"][0]["parameters"]["binary_data_size"] == sent.nbytes
    assert plain[json_length:] == sent.tobytes()


def test_rest_answers_are_plain_when_not_asked(server):
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]})
    status, headers, answer = post(server, "/v2/models/identity_fp32/infer", body, {"Accept-Encoding": "identity"})
    assert status == 200 and "content-encoding" not in headers
    assert headers["content-type"] == "application/json" and INFERENCE_HEADER.lower() not in headers
    assert json.loads(answer)["outputs"] == [{"name": "y", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_grpc_compression(grpc_wire, compression):
    sent = np.zeros((1, 20_000), np.float32)
    result = grpc_wire.client.infer("identity_fp32", [grpc_input("x", sent)], compression_algorithm=compression)
    assert (result.as_numpy("y") == sent).all()


def test_bodies_built_without_a_connection(server):
    client = tritonclient.http.InferenceServerClient
    body, length = client.generate_request_body(
        [rest_input("left", LEFT), rest_input("right", RIGHT)], request_id="mine"
    )
    status, headers, answer = post(server, "/v2/models/add/infer", body, {INFERENCE_HEADER: str(length)})
    assert status == 200
    assert headers["content-type"] == "application/octet-stream"
    result = client.parse_response_body(answer, header_length=int(headers[INFERENCE_HEADER.lower()]))
    assert result.get_response()["id"] == "mine"
    assert (result.as_numpy("sum") == LEFT + 1).all()


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "application/octet-stream"])
def test_content_types_that_clients_send(server, content_type):
    """tritonclient sends none at all."""
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [5]}]})
    headers = {"Content-Type": content_type} if content_type else {}
    status, _, answer = post(server, "/v2/models/identity_fp32/infer", body, headers)
    assert status == 200 and json.loads(answer)["outputs"][0]["data"] == [5.0]


def test_a_rest_answer_names_its_trace(server):
    row = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [5]}]})
    trace = "00-0af7651916cd43dd8448eb211c80319c"
    sent = {"traceparent": f"{trace}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
    for body, status in ((row, 200), (b"{", 400)):
        answered, headers, _ = post(server, "/v2/models/identity_fp32/infer", body, sent)
        assert answered == status
        assert headers["traceparent"].startswith(trace) and headers["traceparent"] != sent["traceparent"]
        assert headers["tracestate"] == "vendor=1"
    _, headers, _ = post(server, "/v2/models/identity_fp32/infer", row, {})
    assert "traceparent" not in headers


def test_raw_binary_request(server):
    """Header length 0: the body is the only input, the variable axis follows from its size."""
    sent = np.arange(5, dtype=np.float32)
    headers = {INFERENCE_HEADER: "0", "Content-Type": "application/octet-stream"}
    status, answer_headers, answer = post(server, "/v2/models/identity_fp32/infer", sent.tobytes(), headers)
    assert status == 200, answer
    length = int(answer_headers[INFERENCE_HEADER.lower()])
    described = json.loads(answer[:length])["outputs"][0]
    assert described["shape"] == [1, 5] and answer[length:] == sent.tobytes()


def test_raw_binary_text(server):
    """BYTES in a raw body: the whole body is the one element, without a length before it."""
    headers = {INFERENCE_HEADER: "0", "Content-Type": "application/octet-stream"}
    status, answer_headers, answer = post(server, "/v2/models/one_text/infer", b"hello", headers)
    assert status == 200, answer
    assert answer[int(answer_headers[INFERENCE_HEADER.lower()]) :] == b"\5\0\0\0hello"


def test_chunked_request(server):
    """A body of unknown length in small pieces, as proxies send it."""
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "INT32", "data": [1, 2, 3]}]}).encode()
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.request(
        "POST",
        "/v2/models/identity_int32/infer",
        body=(body[i : i + 3] for i in range(0, len(body), 3)),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    answer = connection.getresponse()
    assert answer.status == 200 and json.loads(answer.read())["outputs"][0]["data"] == [1, 2, 3]
    connection.close()


@pytest.mark.parametrize("count", [1, 3, 6])
def test_classification(wire, count):
    best = ranked(wire, SCORES, count)
    assert best.shape == (1, count)
    order = [1, 4, 2, 0, 5, 3][:count]
    for text, index in zip(best[0], order, strict=True):
        value, number, label = text.split(":")
        assert float(value) == pytest.approx(SCORES[0, index], abs=1e-6)
        assert (int(number), label) == (index, CLASSES[index])


def test_classification_of_every_row(wire):
    best = ranked(wire, np.concatenate([SCORES, -SCORES]), 1)
    assert best.shape == (2, 1)
    assert [text.split(":")[2] for text in best[:, 0]] == ["bee", "dragonfly"]


def test_labels_of_a_manifest(wire):
    result = classified(wire, "labelled", {"x": np.array([[1, 3, 2]], np.float32)}, "y", 2)
    assert [text.split(":")[2] for text in result[0]] == ["middle", "high"]


def test_classification_without_labels_has_none(wire):
    result = classified(wire, "identity_fp32", {"x": SCORES}, "y", 2)
    assert [text.split(":")[1:] for text in result[0]] == [["1"], ["4"]]


def test_classification_of_integers(wire):
    result = classified(wire, "identity_int32", {"x": np.array([[5, 9, 7]], np.int32)}, "y", 3)
    assert [int(text.split(":")[1]) for text in result[0]] == [1, 2, 0]


def test_the_report_says_how_the_request_was_run(client, tensor_of):
    """Batch size, reason and times of one request, in the answer's parameters where asked."""
    result = client.infer(
        "add", [tensor_of("left", LEFT), tensor_of("right", RIGHT)], parameters={"kinglet_report": True}
    )
    report = parameters_of(result)
    assert int(report["kinglet_batch_size"]) >= 1
    assert report["kinglet_batch_reason"] in ("full", "delay", "deadline", "idle")
    assert int(report["kinglet_queue_us"]) >= 0 and int(report["kinglet_compute_us"]) >= 0
    silent = client.infer("add", [tensor_of("left", LEFT), tensor_of("right", RIGHT)])
    assert not [key for key in parameters_of(silent) if key.startswith("kinglet_")]


@pytest.fixture
def tensor_of(client):
    return grpc_input if isinstance(client, tritonclient.grpc.InferenceServerClient) else rest_input


def pair(tensor_of) -> list:
    return [tensor_of("INPUT0", LEFT), tensor_of("INPUT1", RIGHT)]


def ranked(wire, scores: np.ndarray, count: int) -> np.ndarray:
    return classified(wire, "configured", {"scores": scores}, "ranked", count)


def classified(wire, model: str, inputs: dict, output: str, count: int) -> np.ndarray:
    if hasattr(wire, "binary"):
        wanted = tritonclient.http.InferRequestedOutput(output, binary_data=wire.binary, class_count=count)
    else:
        wanted = tritonclient.grpc.InferRequestedOutput(output, class_count=count)
    result = wire.client.infer(model, wire.tensors(inputs), outputs=[wanted]).as_numpy(output)
    return np.vectorize(lambda v: v if isinstance(v, str) else v.decode(), otypes=[np.object_])(result)


def parameters_of(result) -> dict:
    response = result.get_response()
    if isinstance(response, dict):
        return response.get("parameters", {})
    return {k: getattr(v, v.WhichOneof("parameter_choice")) for k, v in response.parameters.items()}


def post(server, path: str, body, headers: dict) -> tuple[int, dict, bytes]:
    connection = http.client.HTTPConnection(server.http, timeout=30)
    try:
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()
