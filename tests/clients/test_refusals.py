"""Bad requests: one row each, with the status on both wires and what the message must name.

REST rows are raw bodies, sent by Python's own HTTP client, because well-meaning clients cannot say
most of them; gRPC rows go through tritonclient's generated stub.
"""

import gzip
import http.client
import json
import socket
import zlib
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server import Server

HEADER = "Inference-Header-Content-Length"
FLOATS = np.zeros((1, 16), np.float32)


def tensor(name: str, **changes) -> dict:
    return {"name": name, "shape": [1, 16], "datatype": "FP32", "data": [0] * 16} | changes


def without(name: str, key: str) -> dict:
    return {k: v for k, v in tensor(name).items() if k != key}


def body(*inputs: dict, **fields) -> str:
    return json.dumps({"inputs": list(inputs)} | fields)


def deep(levels: int) -> str:
    return body(tensor("left", data="@"), tensor("right")).replace('"@"', "[" * levels + "]" * levels)


ADD = "/v2/models/add/infer"
# id: (path, body, status, words of the message)
REST_ROWS = {
    "unknown model": ("/v2/models/nope/infer", body(tensor("left")), 404, ["nope"]),
    "unknown version": ("/v2/models/add/versions/9/infer", body(tensor("left")), 404, ["add", "9"]),
    "version not served": ("/v2/models/latest/versions/1/infer", body(tensor("x")), 404, ["latest", "1"]),
    "unknown input": (ADD, body(tensor("left"), tensor("other")), 400, ["other"]),
    "one input too many": (ADD, body(tensor("left"), tensor("right"), tensor("other")), 400, ["other"]),
    "input twice": (ADD, body(tensor("left"), tensor("right"), tensor("left")), 400, ["left"]),
    "missing input": (ADD, body(tensor("left")), 400, ["right"]),
    "no inputs": (ADD, "{}", 400, ["inputs"]),
    "empty inputs": (ADD, body(), 400, []),
    "inputs is no list": (ADD, '{"inputs": 5}', 400, []),
    "unknown output": (ADD, body(tensor("left"), tensor("right"), outputs=[{"name": "total"}]), 400, ["total"]),
    "no name": (ADD, body(without("left", "name"), tensor("right")), 400, ["name"]),
    "no datatype": (ADD, body(without("left", "datatype"), tensor("right")), 400, ["datatype"]),
    "no shape": (ADD, body(without("left", "shape"), tensor("right")), 400, ["shape"]),
    "no values": (ADD, body(without("left", "data"), tensor("right")), 400, ["left"]),
    "wrong datatype": (ADD, body(tensor("left", datatype="INT32"), tensor("right")), 400, ["FP32", "INT32"]),
    "unknown datatype": (ADD, body(tensor("left", datatype="FP33"), tensor("right")), 400, ["FP33"]),
    "wrong shape": (
        ADD,
        body(tensor("left", shape=[1, 15], data=[0] * 15), tensor("right")),
        400,
        ["left", "16", "15"],
    ),
    "wrong rank": (ADD, body(tensor("left", shape=[16]), tensor("right")), 400, ["left"]),
    "rows differ": (ADD, body(tensor("left"), tensor("right", shape=[2, 16], data=[0] * 32)), 400, []),
    "negative axis": (ADD, body(tensor("left", shape=[-1, 16]), tensor("right")), 400, []),
    "too few values": (ADD, body(tensor("left", data=[0] * 15), tensor("right")), 400, ["16", "15"]),
    "too many values": (ADD, body(tensor("left", data=[0] * 17), tensor("right")), 400, ["16"]),
    "ragged rows": (
        "/v2/models/identity_fp32/infer",
        body({"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1], [2, 3, 4]]}),
        400,
        ["1 elements along axis 1", "[2,2]"],
    ),
    "nested beside flat": (
        "/v2/models/identity_fp32/infer",
        body({"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, [3, 4]]}),
        400,
        ["an array beside values"],
    ),
    "nested deeper than the shape": (
        "/v2/models/identity_fp32/infer",
        body({"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[[1, 2], [3, 4]]]}),
        400,
        ["array", "[2,2]"],
    ),
    "beyond the range of a float": (
        "/v2/models/identity_fp32/infer",
        body({"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1e39, 0]}),
        400,
        ["FP32", "1e39", "out of range"],
    ),
    "extent is no whole number": (ADD, body(tensor("left", shape=[1.0, 16]), tensor("right")), 400, ["`1.0`", "whole"]),
    "long name": (ADD, body(tensor("n" * (1 << 20))), 400, ["unexpected input", "nnn"]),
    "generate": ("/v2/models/add/generate", "{}", 501, ["generate"]),
    "generate, as a stream": ("/v2/models/add/versions/1/generate_stream", "{}", 501, ["generate"]),
    "unknown path": ("/v2/nothing", "{}", 404, ["no such path", "/v2/nothing"]),
    "wrong verb": ("/v2/models/add/ready", "{}", 405, ["expected GET", "got POST"]),
    "text for a number": (ADD, body(tensor("left", data=["x"] * 16), tensor("right")), 400, ["FP32"]),
    "null for a number": (ADD, body(tensor("left", data=[None] * 16), tensor("right")), 400, []),
    "object for a number": (ADD, body(tensor("left", data=[{}] * 16), tensor("right")), 400, []),
    "fraction for an integer": (
        "/v2/models/identity_int32/infer",
        body({"name": "x", "shape": [1, 1], "datatype": "INT32", "data": [1.5]}),
        400,
        ["INT32"],
    ),
    "integer too large": (
        "/v2/models/identity_int8/infer",
        body({"name": "x", "shape": [1, 1], "datatype": "INT8", "data": [128]}),
        400,
        ["INT8"],
    ),
    "negative for unsigned": (
        "/v2/models/identity_uint64/infer",
        body({"name": "x", "shape": [1, 1], "datatype": "UINT64", "data": [-1]}),
        400,
        ["UINT64"],
    ),
    "number for text": (
        "/v2/models/identity_bytes/infer",
        body({"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": [1]}),
        400,
        [],
    ),
    "shape overflows": (ADD, body(tensor("left", shape=[2**62, 16]), tensor("right")), 400, []),
    "shape overflows to zero": (ADD, body(tensor("left", shape=[2**32, 2**32]), tensor("right")), 400, []),
    "batch too large": (
        "/v2/models/configured/infer",
        body({"name": "scores", "shape": [5, 6], "datatype": "FP32", "data": [0] * 30}),
        400,
        ["4", "5"],
    ),
    "fixed batch": (
        "/v2/models/fixed/infer",
        body({"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0] * 4}),
        400,
        ["2"],
    ),
    "no JSON": (ADD, "inputs please", 400, []),
    "cut JSON": (ADD, body(tensor("left"), tensor("right"))[:-3], 400, []),
    "more than one value": (ADD, body(tensor("left"), tensor("right")) + "{}", 400, []),
    "empty body": (ADD, "", 400, ["the body is empty"]),
    "no UTF-8": (ADD, b'{"inputs": "\xff\xfe"}', 400, []),
    "depth 101": (ADD, deep(101), 400, ["nested"]),
    "depth 100000": (ADD, deep(100_000), 400, ["nested"]),
    "timeout is no number": (
        ADD,
        body(tensor("left"), tensor("right"), parameters={"timeout": "soon"}),
        400,
        ["timeout"],
    ),
    "priority is no number": (
        ADD,
        body(tensor("left"), tensor("right"), parameters={"priority": "high"}),
        400,
        ["priority"],
    ),
    "classification is no number": (
        ADD,
        body(tensor("left"), tensor("right"), outputs=[{"name": "sum", "parameters": {"classification": "three"}}]),
        400,
        ["classification"],
    ),
    "sequence": (ADD, body(tensor("left"), tensor("right"), parameters={"sequence_id": 1}), 501, ["sequence"]),
    "shared memory": (
        ADD,
        body(tensor("left", parameters={"shared_memory_region": "r", "shared_memory_byte_size": 64}), tensor("right")),
        501,
        ["shared"],
    ),
    "traversal in the model": ("/v2/models/..%2F..%2Fetc%2Fpasswd/infer", body(tensor("left")), 400, []),
    "traversal in the version": (
        "/v2/models/add/versions/..%2F1/infer",
        body(tensor("left"), tensor("right")),
        400,
        [],
    ),
    "null byte in the model": ("/v2/models/add%00/infer", body(tensor("left"), tensor("right")), 400, []),
}


@pytest.mark.parametrize("row", REST_ROWS)
def test_rest(server, row):
    path, sent, status, words = REST_ROWS[row]
    answer = post(server, path, sent if isinstance(sent, bytes) else sent.encode())
    expect(answer, status, words)
    assert len(answer[2]) < 5000, "an error does not repeat all that came"


BLOB = FLOATS.tobytes()


def binary(*sizes: int | None, **changes) -> bytes:
    names = ["left", "right"]
    inputs = []
    for name, size in zip(names, sizes, strict=True):
        described = without(name, "data") | changes
        if size is not None:
            described["parameters"] = {"binary_data_size": size}
        inputs.append(described)
    return body(*inputs).encode()


# id: (JSON part, blobs, header length, words); header length None means the true one.
BINARY_ROWS = {
    "header longer than the body": (binary(64, 64), BLOB * 2, "100000", ["100000"]),
    "header is no number": (binary(64, 64), BLOB * 2, "many", [HEADER]),
    "header is negative": (binary(64, 64), BLOB * 2, "-1", [HEADER]),
    "header cuts the JSON": (binary(64, 64), BLOB * 2, "10", []),
    "blob too short": (binary(64, 64), BLOB + BLOB[:-4], None, []),
    "blob too long": (binary(64, 64), BLOB * 3, None, []),
    "size is not the shape's": (binary(60, 64), BLOB[:60] + BLOB, None, ["left", "64", "60"]),
    "size is negative": (binary(-64, 64), BLOB * 2, None, []),
    "size overflows": (binary(2**64 - 64, 64), BLOB * 2, None, []),
    "values and size": (binary(64, 64, data=[0] * 16), BLOB * 2, None, ["left"]),
    "shape overflows": (binary(64, 64, shape=[2**62, 16]), BLOB * 2, None, []),
}


@pytest.mark.parametrize("row", BINARY_ROWS)
def test_rest_binary(server, row):
    described, blobs, length, words = BINARY_ROWS[row]
    answer = post(server, ADD, described + blobs, {HEADER: length or str(len(described))})
    expect(answer, 400, words)


# id: (model, raw body, words)
RAW_ROWS = {
    "two inputs": ("add", BLOB, ["input"]),
    "no whole number of elements": ("identity_fp32", b"\0" * 7, []),
    "fixed shape": ("fixed", b"\0" * 12, []),
}


@pytest.mark.parametrize("row", RAW_ROWS)
def test_rest_raw_binary(server, row):
    model, sent, words = RAW_ROWS[row]
    expect(post(server, f"/v2/models/{model}/infer", sent, {HEADER: "0"}), 400, words)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"\x05\0\0\0hello", []),
        (b"\x06\0\0\0hello\x05\0\0\0hello", []),
        (b"\x05\0\0\0hello\xff\xff\xff\xffhello", []),
        (b"\x05\0\0\0hello\x05\0\0\0hello\x05\0\0\0hello", []),
        (b"\x05\0\0\0hello\x05\0", []),
    ],
)
def test_texts_that_do_not_add_up(server, sent, words):
    described = {"name": "x", "shape": [1, 2], "datatype": "BYTES", "parameters": {"binary_data_size": len(sent)}}
    text = body(described).encode()
    expect(post(server, "/v2/models/identity_bytes/infer", text + sent, {HEADER: str(len(text))}), 400, words)


BOMB = b'{"inputs": "' + b" " * (200 << 20) + b'"}'


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_decompression_bomb(server, encoding):
    packed = gzip.compress(BOMB, 1) if encoding == "gzip" else zlib.compress(BOMB, 1)
    expect(post(server, ADD, packed, {"Content-Encoding": encoding}), 413, ["inflate_ratio_max"])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_broken_compression(server, encoding):
    expect(post(server, ADD, b"not compressed at all", {"Content-Encoding": encoding}), 400, [encoding])


@pytest.mark.parametrize("path", ["/v2/health/ready", "/inference.GRPCInferenceService/ServerReady"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_http_at_the_grpc_port(server, method, path):
    """A probe at the wrong port must not pass. Only HTTP/2 is spoken there by gRPC clients; probes speak HTTP/1.1."""
    connection = http.client.HTTPConnection(server.grpc, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    expect((answer.status, dict(answer.getheaders()), answer.read()), 415, ["application/grpc", "http.listen"])
    connection.close()


def test_grpc_at_the_rest_port(server):
    with grpc.insecure_channel(server.http) as channel:
        with pytest.raises(grpc.RpcError) as failure:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive(service_pb2.ServerLiveRequest(), timeout=30)
    assert failure.value.code().name == "UNIMPLEMENTED"
    assert "this is the REST port" in failure.value.details()


def test_unknown_compression(server):
    expect(post(server, ADD, b"{}", {"Content-Encoding": "br"}), 415, ["br"])


def test_body_too_large(server):
    """The length alone is enough: the answer comes before the body is read."""
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.putrequest("POST", ADD)
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    answer = connection.getresponse()
    expect((answer.status, dict(answer.getheaders()), answer.read()), 413, [])
    connection.close()


def test_tiny_chunks_cost_no_memory(server):
    """A body in 300,000 chunks of one byte, as in an attack on another server: answered, and not hoarded."""
    text = body(tensor("left"), tensor("right")).encode().ljust(300_000)
    frames = b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n"
    before = peak_memory(server)
    with socket.create_connection(server.http.split(":"), timeout=60) as connection:
        head = f"POST {ADD} HTTP/1.1\r\nHost: kinglet\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + frames)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    assert peak_memory(server) - before < 64 << 20


CONTROL = ["/v2/logging", "/v2/repository/index", "/v2/repository/models/add/unload"]
TREE = b"[" + b",".join([b'{"a":0}'] * 7_000) + b"]"


@pytest.mark.parametrize("path", CONTROL)
def test_control_bodies_are_small(server, path):
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", "65537")
    connection.endheaders()
    answer = connection.getresponse()
    expect((answer.status, dict(answer.getheaders()), answer.read()), 413, ["65536"])
    connection.close()


@pytest.mark.parametrize("path", CONTROL)
@pytest.mark.parametrize("sent", [TREE, b"[" * 60_000, b'{"a":' * 12_000], ids=["tree", "arrays", "objects"])
def test_control_bodies_build_no_tree(server, path, sent):
    before = peak_memory(server)
    expect(post(server, path, sent), 400, [])
    assert peak_memory(server) - before < 8 << 20


def test_a_load_keeps_files_alone(zoo, tmp_path):
    """32 MB of objects that mean nothing: as a tree of values they took 2.9 GB."""
    sent = b'{"other": [' + b",".join([b'{"a":0}'] * 4_000_000) + b"]}"
    with Server([zoo], tmp_path / "kinglet.log", {"KINGLET__REPOSITORY__CONTROL": "explicit"}) as server:
        before = peak_memory(server)
        expect(post(server, "/v2/repository/models/nope/load", sent), 404, ["nope"])
        assert peak_memory(server) - before < 4 * len(sent)


def test_loads_that_are_not_allowed_are_not_read(server):
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.putrequest("POST", "/v2/repository/models/add/load")
    connection.putheader("Content-Length", str(32 << 20))
    connection.endheaders()
    answer = connection.getresponse()
    expect((answer.status, dict(answer.getheaders()), answer.read()), answer.status, ['"none"', "explicit"])
    assert answer.status >= 400
    connection.close()


def test_grpc_control_messages_are_small(stub):
    request = service_pb2.LogSettingsRequest()
    for number in range(20_000):
        request.settings[str(number)].bool_param = True
    with pytest.raises(grpc.RpcError) as failure:
        stub.LogSettings(request)
    assert failure.value.code().name == "RESOURCE_EXHAUSTED"


def test_grpc_load_parameters_are_counted(stub):
    request = service_pb2.RepositoryModelLoadRequest(model_name="add")
    for number in range(65):
        request.parameters[str(number)].bool_param = True
    with pytest.raises(grpc.RpcError) as failure:
        stub.RepositoryModelLoad(request)
    assert failure.value.code().name == "INVALID_ARGUMENT"
    assert "at most 64 parameters" in failure.value.details()


# id: (changes of a good request, status, words)
GRPC_ROWS = {
    "unknown model": (dict(model_name="nope"), "NOT_FOUND", ["nope"]),
    "unknown version": (dict(model_version="9"), "NOT_FOUND", ["add", "9"]),
    "traversal in the model": (dict(model_name="../add"), "INVALID_ARGUMENT", []),
    "traversal in the version": (dict(model_version="../1"), "INVALID_ARGUMENT", []),
    "no model": (dict(model_name=""), "INVALID_ARGUMENT", []),
    "unknown input": (dict(names="left other"), "INVALID_ARGUMENT", ["other"]),
    "input twice": (dict(names="left left"), "INVALID_ARGUMENT", ["left"]),
    "missing input": (dict(names="left"), "INVALID_ARGUMENT", ["right"]),
    "no inputs": (dict(names=""), "INVALID_ARGUMENT", []),
    "unknown output": (dict(output="total"), "INVALID_ARGUMENT", ["total"]),
    "wrong datatype": (dict(datatype="INT32"), "INVALID_ARGUMENT", ["FP32", "INT32"]),
    "unknown datatype": (dict(datatype="FP33"), "INVALID_ARGUMENT", ["FP33"]),
    "wrong shape": (dict(shape=[1, 15], raw=60), "INVALID_ARGUMENT", ["16", "15"]),
    "wrong rank": (dict(shape=[16]), "INVALID_ARGUMENT", []),
    "negative axis": (dict(shape=[-1, 16]), "INVALID_ARGUMENT", []),
    "shape overflows": (dict(shape=[2**62, 16]), "INVALID_ARGUMENT", []),
    "raw too short": (dict(raw=60), "INVALID_ARGUMENT", ["64", "60"]),
    "raw too long": (dict(raw=68), "INVALID_ARGUMENT", ["64", "68"]),
    "raw of one input only": (dict(raws=1), "INVALID_ARGUMENT", []),
    "raw of three inputs": (dict(raws=3), "INVALID_ARGUMENT", []),
    "raw and contents": (dict(contents=True), "INVALID_ARGUMENT", ["contents"]),
    "neither raw nor contents": (dict(raws=0), "INVALID_ARGUMENT", []),
    "contents in another field": (dict(raws=0, int_contents=True), "INVALID_ARGUMENT", []),
    "sequence": (dict(sequence=1), "UNIMPLEMENTED", ["sequence"]),
}


@pytest.mark.parametrize("row", GRPC_ROWS)
def test_grpc(stub, row):
    changes, code, words = GRPC_ROWS[row]
    expect_grpc(stub, grpc_request(**changes), code, words)


def test_grpc_batch_too_large(stub):
    request = service_pb2.ModelInferRequest(model_name="configured")
    request.inputs.add(name="scores", datatype="FP32", shape=[5, 6])
    request.raw_input_contents.append(bytes(120))
    expect_grpc(stub, request, "INVALID_ARGUMENT", ["4", "5"])


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_grpc_half_floats_have_no_typed_field(stub, datatype):
    request = service_pb2.ModelInferRequest(model_name=f"identity_{datatype.lower()}")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 1])
    tensor.contents.fp32_contents.append(1.0)
    expect_grpc(stub, request, "INVALID_ARGUMENT", [datatype])


def test_grpc_integer_too_large_for_its_type(stub):
    request = service_pb2.ModelInferRequest(model_name="identity_int8")
    tensor = request.inputs.add(name="x", datatype="INT8", shape=[1, 1])
    tensor.contents.int_contents.append(128)
    expect_grpc(stub, request, "INVALID_ARGUMENT", ["INT8"])


def test_a_healthy_client_is_served_after_all_this(wire):
    assert (wire.infer("add", {"left": FLOATS, "right": FLOATS}, ["sum"])["sum"] == 0).all()


def grpc_request(
    model_name="add",
    model_version="",
    names="left right",
    datatype="FP32",
    shape=(1, 16),
    raw=64,
    raws=None,
    output=None,
    contents=False,
    int_contents=False,
    sequence=None,
):
    request = service_pb2.ModelInferRequest(model_name=model_name, model_version=model_version)
    for name in names.split():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if contents:
            tensor.contents.fp32_contents.extend([0.0] * 16)
        if int_contents:
            tensor.contents.int_contents.extend([0] * 16)
    request.raw_input_contents.extend([bytes(raw)] * (len(names.split()) if raws is None else raws))
    if output:
        request.outputs.add(name=output)
    if sequence:
        request.parameters["sequence_id"].int64_param = sequence
    return request


def post(server, path: str, sent: bytes, headers: dict | None = None) -> tuple[int, dict, bytes]:
    connection = http.client.HTTPConnection(server.http, timeout=60)
    try:
        connection.request("POST", path, body=sent, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def peak_memory(server) -> int:
    """Bytes, by the kernel's account."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def expect(answer: tuple[int, dict, bytes], status: int, words: list[str]) -> None:
    got, headers, text = answer
    assert got == status, f"expected {status}, came {got}: {text[:300]!r}"
    assert {k.lower(): v for k, v in headers.items()}["content-type"] == "application/json"
    message = json.loads(text)["error"]
    assert message, "expected a reason"
    missing = [word for word in words if word.lower() not in message.lower()]
    assert not missing, f"expected {missing} in {message!r}"


def expect_grpc(stub, request, code: str, words: list[str]) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.ModelInfer(request)
    error = failure.value
    assert error.code().name == code, f"expected {code}, came {error.code()} {error.details()}"
    assert error.details(), "expected a reason"
    missing = [word for word in words if word.lower() not in error.details().lower()]
    assert not missing, f"expected {missing} in {error.details()!r}"
