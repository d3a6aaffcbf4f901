"""Every datatype, shape and form of a tensor, there and back, bit for bit."""

import json

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http
from tritonclient.grpc import service_pb2

from wires import BINARY_ONLY, grpc_input, refused, rest_input
from zoo import DATATYPES

VALUES = {
    "BOOL": np.array([[True, False, True]]),
    "UINT8": np.array([[0, 1, 255]], np.uint8),
    "UINT16": np.array([[0, 1, 65535]], np.uint16),
    "UINT32": np.array([[0, 1, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**53 + 1, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 0, 127]], np.int8),
    "INT16": np.array([[-32768, 0, 32767]], np.int16),
    "INT32": np.array([[-(2**31), 0, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**53 + 1, 2**63 - 1]], np.int64),
    "FP16": np.array([[-65504, 6e-8, 1.5]], np.float16),
    "BF16": np.array([[-3.0e38, 1e-38, 1.5]], ml_dtypes.bfloat16),
    "FP32": np.array([[-3.4028235e38, 1e-45, 0.1]], np.float32),
    "FP64": np.array([[-1.7976931348623157e308, 5e-324, 0.1]], np.float64),
    "BYTES": np.array([[b"", "straße \U0001f426".encode(), b'"\\\n\x01']], np.object_),
}
SHAPES = {"one": (1, 3), "several": (5, 3), "long": (2, 1000), "no columns": (1, 0)}


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_identity_gives_back_what_it_got(wire, datatype, shape):
    skip_without_json_form(wire, datatype)
    sent = filled(datatype, SHAPES[shape])
    got = wire.infer(f"identity_{datatype.lower()}", {"x": sent}, ["y"])["y"]
    assert_same(got, sent)


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BYTES"])
def test_scalar(wire, datatype):
    sent = VALUES[datatype][0, 1:2].reshape(())
    got = wire.infer(f"scalar_{datatype.lower()}", {"x": sent}, ["y"])["y"]
    assert_same(got, sent)


@pytest.mark.parametrize("datatype", [d for d in DATATYPES if d not in BINARY_ONLY])
@pytest.mark.parametrize("nesting", ["flat", "nested"])
def test_flat_and_nested_json_are_the_same(rest, datatype, nesting):
    sent = np.concatenate([VALUES[datatype], VALUES[datatype]])
    array = text_of(sent) if datatype == "BYTES" else sent
    values = array.tolist() if nesting == "nested" else array.flatten().tolist()
    body = {"inputs": [{"name": "x", "shape": [2, 3], "datatype": datatype, "data": values}]}
    reply = rest.client._post(f"v2/models/identity_{datatype.lower()}/infer", json.dumps(body), None, None)
    assert reply.status_code == 200
    output = json.loads(reply.read())["outputs"][0]
    assert output["shape"] == [2, 3] and output["datatype"] == datatype
    assert np.ravel(np.array(output["data"], array.dtype)).tolist() == array.flatten().tolist()


@pytest.mark.parametrize("datatype", BINARY_ONLY)
def test_half_floats_have_no_json_form(rest, datatype):
    model = f"identity_{datatype.lower()}"
    inputs = [rest_input("x", VALUES[datatype])]
    outputs = [tritonclient.http.InferRequestedOutput("y", binary_data=False)]
    refused(lambda: rest.client.infer(model, inputs, outputs=outputs), "invalid", datatype, "binary")


@pytest.mark.parametrize("datatype", [d for d in DATATYPES if d not in BINARY_ONLY])
def test_typed_and_raw_grpc_agree(stub, datatype):
    sent = VALUES[datatype]
    request = service_pb2.ModelInferRequest(model_name=f"identity_{datatype.lower()}")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=sent.shape)
    getattr(tensor.contents, contents_field(datatype)).extend(sent.flatten().tolist())
    typed = stub.ModelInfer(request)
    raw_input = grpc_input("x", sent)
    tensor.ClearField("contents")
    request.raw_input_contents.append(raw_input._get_content())
    raw = stub.ModelInfer(request)
    assert typed.raw_output_contents[0] == raw.raw_output_contents[0] == raw_input._get_content()


def test_json_and_binary_tensors_mix_in_one_message(rest):
    first, second = np.ones((1, 16), np.float32), np.full((1, 16), 2, np.float32)
    for binary_in in ((True, False), (False, True)):
        inputs = [
            rest_input("INPUT0", first, binary_in[0]),
            rest_input("INPUT1", second, binary_in[1]),
        ]
        for binary_out in ((True, False), (False, True)):
            outputs = [
                tritonclient.http.InferRequestedOutput("OUTPUT0", binary_data=binary_out[0]),
                tritonclient.http.InferRequestedOutput("OUTPUT1", binary_data=binary_out[1]),
            ]
            result = rest.client.infer("sum_difference", inputs, outputs=outputs)
            assert (result.as_numpy("OUTPUT0") == 3).all()
            assert (result.as_numpy("OUTPUT1") == -1).all()
            for name, binary in zip(("OUTPUT0", "OUTPUT1"), binary_out, strict=True):
                assert ("data" in result.get_output(name)) != binary


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_json_cannot_say(rest, grpc_wire, value):
    """Taken in JSON as the tokens Python writes, given in binary, never written into JSON."""
    sent = np.array([[value]], np.float32)
    assert_same(rest.infer("identity_fp32", {"x": sent}, ["y"])["y"], sent)
    assert_same(grpc_wire.infer("identity_fp32", {"x": sent}, ["y"])["y"], sent)

    result = rest.client.infer("identity_fp32", [rest_input("x", sent, binary=False)])
    assert_same(result.as_numpy("y"), sent)

    json_out = [tritonclient.http.InferRequestedOutput("y", binary_data=False)]
    refused(
        lambda: rest.client.infer("identity_fp32", [rest_input("x", sent)], outputs=json_out),
        "invalid",
        "binary",
    )


def test_bytes_that_are_no_text(rest, grpc_wire):
    """Any bytes travel in binary; JSON strings cannot hold them and the server says so."""
    sent = np.array([[b"\xff\xfe\x00"]], np.object_)
    assert_same(rest.infer("identity_bytes", {"x": sent}, ["y"])["y"], sent)
    assert_same(grpc_wire.infer("identity_bytes", {"x": sent}, ["y"])["y"], sent)
    json_out = [tritonclient.http.InferRequestedOutput("y", binary_data=False)]
    refused(
        lambda: rest.client.infer("identity_bytes", [rest_input("x", sent)], outputs=json_out),
        "invalid",
        "utf-8",
    )


def test_eight_mebibytes_both_ways(wire):
    """Above the usual defaults of body and message size (2 and 4 MiB)."""
    width = (8 << 20) // 4
    sent = np.arange(width, dtype=np.float32).reshape(1, -1)
    assert_same(wire.infer("identity_fp32", {"x": sent}, ["y"])["y"], sent)


def filled(datatype: str, shape: tuple[int, int]) -> np.ndarray:
    return np.resize(VALUES[datatype], shape)


def contents_field(datatype: str) -> str:
    if datatype in ("INT8", "INT16", "INT32"):
        return "int_contents"
    if datatype in ("UINT8", "UINT16", "UINT32"):
        return "uint_contents"
    return f"{datatype.lower()}_contents"


def text_of(array: np.ndarray) -> np.ndarray:
    return np.array([[v.decode() for v in row] for row in array], np.object_)


def skip_without_json_form(wire, datatype: str) -> None:
    if datatype in BINARY_ONLY and not getattr(wire, "binary", True):
        pytest.skip(f"{datatype} has no JSON form")


def assert_same(got: np.ndarray, sent: np.ndarray) -> None:
    assert got.shape == sent.shape
    if sent.dtype == np.object_:
        # tritonclient gives str for JSON strings and bytes for binary ones.
        as_bytes = [v.encode() if isinstance(v, str) else v for v in got.flatten().tolist()]
        assert as_bytes == sent.flatten().tolist()
        return
    assert got.dtype == sent.dtype
    assert got.tobytes() == sent.tobytes()
