"""TensorFlow Serving's gRPC services, by the stubs that `tensorflow-protobuf` was made with from TensorFlow's own files.

Its ModelService cannot be imported (it lacks a file of TensorFlow Serving's configuration): grpcurl asks that one.
"""

import json

import grpc
import ml_dtypes
import numpy as np
import pytest
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from server import Server
from test_command_line import grpcurl
from watching import wait_for
from zoo import DATATYPES, SLOW_WIDTH

# Open Inference Protocol name -> TensorFlow's, the list it has in a TensorProto, numpy's.
KINDS = {
    "BOOL": (types_pb2.DT_BOOL, "bool_val", np.bool_),
    "UINT8": (types_pb2.DT_UINT8, "int_val", np.uint8),
    "UINT16": (types_pb2.DT_UINT16, "int_val", np.uint16),
    "UINT32": (types_pb2.DT_UINT32, "uint32_val", np.uint32),
    "UINT64": (types_pb2.DT_UINT64, "uint64_val", np.uint64),
    "INT8": (types_pb2.DT_INT8, "int_val", np.int8),
    "INT16": (types_pb2.DT_INT16, "int_val", np.int16),
    "INT32": (types_pb2.DT_INT32, "int_val", np.int32),
    "INT64": (types_pb2.DT_INT64, "int64_val", np.int64),
    "FP16": (types_pb2.DT_HALF, "half_val", np.float16),
    "BF16": (types_pb2.DT_BFLOAT16, "half_val", ml_dtypes.bfloat16),
    "FP32": (types_pb2.DT_FLOAT, "float_val", np.float32),
    "FP64": (types_pb2.DT_DOUBLE, "double_val", np.float64),
}


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def shaped(dtype: int, shape: tuple, **values) -> tensor_pb2.TensorProto:
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=extent) for extent in shape]
    shape = tensor_shape_pb2.TensorShapeProto(dim=dims)
    return tensor_pb2.TensorProto(dtype=dtype, tensor_shape=shape, **values)


def as_bytes(name: str, array: np.ndarray) -> tensor_pb2.TensorProto:
    """As TensorFlow's make_tensor_proto sends arrays."""
    return shaped(KINDS[name][0], array.shape, tensor_content=array.tobytes())


def as_list(name: str, array: np.ndarray) -> tensor_pb2.TensorProto:
    dtype, field, _ = KINDS[name]
    flat = array.ravel().view(np.uint16) if field == "half_val" else array.ravel()
    return shaped(dtype, array.shape, **{field: flat.tolist()})


def read(tensor: tensor_pb2.TensorProto, name: str) -> np.ndarray:
    """As TensorFlow's make_ndarray reads lists."""
    dtype, field, kind = KINDS[name]
    assert tensor.dtype == dtype and not tensor.tensor_content
    values = list(getattr(tensor, field))
    flat = np.array(values, np.uint16).view(kind) if field == "half_val" else np.array(values, kind)
    return flat.reshape([dim.size for dim in tensor.tensor_shape.dim])


def request(model: str, inputs: dict, **spec) -> predict_pb2.PredictRequest:
    wanted = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=model, **spec))
    for name, tensor in inputs.items():
        wanted.inputs[name].CopyFrom(tensor)
    return wanted


def code_of(call, *words: str) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    missing = [word for word in words if word not in refused.value.details()]
    assert not missing, refused.value.details()
    return refused.value.code()


@pytest.mark.parametrize("name", [name for name in DATATYPES if name != "BYTES"])
@pytest.mark.parametrize("form", [as_bytes, as_list])
def test_both_forms_of_every_datatype(stub, name, form):
    array = np.array([[0, 1], [1, 1]]).astype(KINDS[name][2])
    answer = stub.Predict(request(f"identity_{name.lower()}", {"x": form(name, array)}))
    assert read(answer.outputs["y"], name).tobytes() == array.tobytes()
    assert (answer.model_spec.name, answer.model_spec.version.value) == (f"identity_{name.lower()}", 1)


def test_strings(stub):
    words = [b"a", b"", "ü".encode()]
    sent = shaped(types_pb2.DT_STRING, (1, 3), string_val=words)
    answer = stub.Predict(request("identity_bytes", {"x": sent}))
    assert list(answer.outputs["y"].string_val) == words
    # As the bytes of a string tensor: lengths, then contents.
    packed = bytes(len(word) for word in words) + b"".join(words)
    sent = shaped(types_pb2.DT_STRING, (1, 3), tensor_content=packed)
    assert list(stub.Predict(request("identity_bytes", {"x": sent})).outputs["y"].string_val) == words


def test_one_value_stands_for_many(stub):
    one = shaped(types_pb2.DT_FLOAT, (2, 3), float_val=[0.5, 2.0])
    assert list(stub.Predict(request("identity_fp32", {"x": one})).outputs["y"].float_val) == [0.5, *[2.0] * 5]
    many = shaped(types_pb2.DT_FLOAT, (1 << 20, 1 << 10), float_val=[1.0])
    call = lambda: stub.Predict(request("identity_fp32", {"x": many}))
    assert code_of(call, "[1048576,1024]", "64") == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_versions_and_signatures(stub):
    row = {"x": shaped(types_pb2.DT_FLOAT, (1, 4), float_val=[0.0])}
    newest = stub.Predict(request("versions", row))
    assert newest.model_spec.version.value == 3 and newest.model_spec.signature_name == "serving_default"
    first = stub.Predict(request("versions", row, version={"value": 1}, signature_name="serving_default"))
    assert (first.model_spec.version.value, list(first.outputs["y"].float_val)) == (1, [1.0] * 4)
    for spec, code, word in [
        ({"version": {"value": 2}}, grpc.StatusCode.NOT_FOUND, "version 2"),
        ({"version_label": "canary"}, grpc.StatusCode.NOT_FOUND, "canary"),
        ({"signature_name": "other"}, grpc.StatusCode.FAILED_PRECONDITION, "other"),
    ]:
        assert code_of(lambda spec=spec: stub.Predict(request("versions", row, **spec)), word) == code
    assert code_of(lambda: stub.Predict(request("nope", row)), "nope") == grpc.StatusCode.NOT_FOUND


def test_a_filter_chooses_outputs(stub):
    pair = {name: shaped(types_pb2.DT_FLOAT, (1, 16), float_val=[2.0]) for name in ("INPUT0", "INPUT1")}
    wanted = request("sum_difference", pair)
    assert sorted(stub.Predict(wanted).outputs) == ["OUTPUT0", "OUTPUT1"]
    wanted.output_filter.append("OUTPUT1")
    assert list(stub.Predict(wanted).outputs) == ["OUTPUT1"]
    wanted.output_filter.append("nope")
    assert code_of(lambda: stub.Predict(wanted), "nope") == grpc.StatusCode.INVALID_ARGUMENT


def rows(*lists: list[float]) -> input_pb2.Input:
    def example(values):
        feature = feature_pb2.Feature(float_list=feature_pb2.FloatList(value=values))
        return example_pb2.Example(features=feature_pb2.Features(feature={"x": feature}))

    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example(values) for values in lists]))


def test_examples_are_classified(stub):
    spec = model_pb2.ModelSpec(name="labelled")
    wanted = classification_pb2.ClassificationRequest(model_spec=spec, input=rows([0.5, 1.5, 2.5], [3.0, 2.0, 1.0]))
    answer = stub.Classify(wanted)
    told = [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]
    assert told == [[("low", 0.5), ("middle", 1.5), ("high", 2.5)], [("low", 3.0), ("middle", 2.0), ("high", 1.0)]]
    assert answer.model_spec.version.value == 1


def test_examples_are_regressed(stub):
    spec = model_pb2.ModelSpec(name="identity_fp32")
    wanted = regression_pb2.RegressionRequest(model_spec=spec, input=rows([0.5], [1.5]))
    assert [one.value for one in stub.Regress(wanted).result.regressions] == [0.5, 1.5]
    wide = regression_pb2.RegressionRequest(model_spec=spec, input=rows([0.5, 1.5]))
    assert code_of(lambda: stub.Regress(wide), "one number for each row") == grpc.StatusCode.INVALID_ARGUMENT
    none = regression_pb2.RegressionRequest(model_spec=spec)
    assert code_of(lambda: stub.Regress(none), "expected examples") == grpc.StatusCode.INVALID_ARGUMENT


def test_metadata(stub):
    spec = model_pb2.ModelSpec(name="sum_difference")
    wanted = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
    packed = stub.GetModelMetadata(wanted).metadata["signature_def"]
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert packed.Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    assert len(signature.outputs) == 2 and signature.method_name == "tensorflow/serving/predict"
    left = next(iter(signature.inputs.values()))
    assert (left.dtype, left.tensor_shape.dim[0].size) == (types_pb2.DT_FLOAT, -1)


def test_several_at_once_are_refused(stub):
    call = lambda: stub.MultiInference(inference_pb2.MultiInferenceRequest())
    assert code_of(call, "Classify or Regress") == grpc.StatusCode.UNIMPLEMENTED


def test_energy_is_told_behind_the_answer(zoo, tmp_path):
    metering = {"KINGLET__METERING__SOURCE": "model", "KINGLET__METERING__WINDOW": "100ms"}
    with Server([zoo], tmp_path / "log", metering) as metered, grpc.insecure_channel(metered.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        row = request("identity_fp32", {"x": shaped(types_pb2.DT_FLOAT, (1, 1), float_val=[0.0])})
        told = lambda: dict(stub.Predict.with_call(row)[1].trailing_metadata())
        # Whoever asks before the first window has ended is told nothing.
        wait_for(lambda: "kinglet-energy-joules" in told())
        assert told()["kinglet-energy-source"] == "model"
        examples = classification_pb2.ClassificationRequest(model_spec=row.model_spec, input=rows([0.5]))
        assert "kinglet-energy-joules" in dict(stub.Classify.with_call(examples)[1].trailing_metadata())


def test_metadata_of_a_call(stub):
    row = request("identity_fp32", {"x": shaped(types_pb2.DT_FLOAT, (1, 1), float_val=[0.0])})
    # What a build takes is known once it has run.
    stub.Predict(row)
    stub.Predict(row, metadata=[("kinglet-max-latency-ms", "60000")])
    wrong = [("kinglet-min-accuracy", "97")]
    assert code_of(lambda: stub.Predict(row, metadata=wrong), "min_accuracy") == grpc.StatusCode.INVALID_ARGUMENT
    slow = request("slow", {"x": shaped(types_pb2.DT_FLOAT, (16, 1, SLOW_WIDTH), float_val=[1.0])})
    assert code_of(lambda: stub.Predict(slow, timeout=0.01)) == grpc.StatusCode.DEADLINE_EXCEEDED


def test_messages_are_bounded(zoo, tmp_path):
    with Server([zoo], tmp_path / "log", {"KINGLET__LIMITS__BODY_BYTES_MAX": "64KiB"}) as small:
        with grpc.insecure_channel(small.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            large = np.zeros((1, 20000), np.float32)
            call = lambda: stub.Predict(request("identity_fp32", {"x": as_bytes("FP32", large)}))
            assert code_of(call) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_states(server):
    asked = lambda call, sent, check=True: grpcurl(server, f"tensorflow.serving.ModelService/{call}", sent=sent, check=check)
    told = json.loads(asked("GetModelStatus", {"model_spec": {"name": "versions"}}).stdout)
    states = [(one["version"], one["state"]) for one in told["modelVersionStatus"]]
    assert states == [("3", "AVAILABLE"), ("1", "AVAILABLE")]
    assert "NotFound" in asked("GetModelStatus", {"model_spec": {"name": "nope"}}, check=False).stderr
    assert "RepositoryModelLoad" in asked("HandleReloadConfigRequest", {}, check=False).stderr
