"""One client: inputs in, outputs back, over JSON, binary or gRPC on connections that stay open."""

from __future__ import annotations

import http.client
import json

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

Tensors = dict[str, np.ndarray]
WIRES = ("json", "binary", "grpc")
TIMEOUT_S = 120
MESSAGE_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


class Refused(Exception):
    """The server answered, but not with outputs."""


class Client:
    """For one thread."""

    def __init__(self, http_address: str, grpc_address: str) -> None:
        self.rest = http.client.HTTPConnection(http_address, timeout=TIMEOUT_S)
        self.channel = grpc.insecure_channel(grpc_address, MESSAGE_LIMIT)
        self.infer = self.channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", service_pb2.ModelInferRequest.SerializeToString, service_pb2.ModelInferResponse.FromString
        )

    def close(self) -> None:
        self.rest.close()
        self.channel.close()

    def ask(self, wire: str, model: str, inputs: Tensors) -> Tensors:
        return self.ask_grpc(model, inputs) if wire == "grpc" else self.ask_rest(model, inputs, wire == "binary")

    def ask_rest(self, model: str, inputs: Tensors, is_binary: bool) -> Tensors:
        tensors, raw = [], []
        for name, value in inputs.items():
            tensor = {"name": name, "shape": list(value.shape), "datatype": np_to_triton_dtype(value.dtype)}
            content = {"parameters": {"binary_data_size": value.nbytes}} if is_binary else {"data": value.ravel().tolist()}
            tensors.append(tensor | content)
            raw += [value.tobytes()] if is_binary else []
        head = json.dumps({"inputs": tensors} | ({"parameters": {"binary_data_output": True}} if is_binary else {})).encode()
        headers = {"inference-header-content-length": str(len(head))} if is_binary else {"content-type": "application/json"}
        self.rest.request("POST", f"/v2/models/{model}/infer", b"".join([head, *raw]), headers)
        response = self.rest.getresponse()
        answer = response.read()
        if response.status != 200:
            raise Refused(f"{response.status}: {answer[:200]!r}")
        return decode_rest(answer, int(response.headers.get("inference-header-content-length", len(answer))))

    def ask_grpc(self, model: str, inputs: Tensors) -> Tensors:
        request = service_pb2.ModelInferRequest(model_name=model)
        for name, value in inputs.items():
            request.inputs.add(name=name, datatype=np_to_triton_dtype(value.dtype)).shape.extend(value.shape)
            request.raw_input_contents.append(value.tobytes())
        try:
            answer = self.infer(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise Refused(f"{error.code().name}: {error.details()[:200]}") from error
        raw = zip(answer.outputs, answer.raw_output_contents, strict=True)
        return {tensor.name: np.frombuffer(content, triton_to_np_dtype(tensor.datatype)).reshape(tensor.shape) for tensor, content in raw}


def decode_rest(answer: bytes, head_length: int) -> Tensors:
    outputs, at = {}, head_length
    for tensor in json.loads(answer[:head_length])["outputs"]:
        dtype = triton_to_np_dtype(tensor["datatype"])
        if "data" in tensor:
            outputs[tensor["name"]] = np.array(tensor["data"], dtype).reshape(tensor["shape"])
            continue
        size = tensor["parameters"]["binary_data_size"]
        outputs[tensor["name"]] = np.frombuffer(answer[at : at + size], dtype).reshape(tensor["shape"])
        at += size
    return outputs


def agree(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(one[name].shape == other[name].shape and np.allclose(one[name], other[name], 1e-4, 1e-4) for name in one)
