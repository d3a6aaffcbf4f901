"""The request bodies, the same bytes for every server, and the answers ONNX Runtime gives to them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from tritonclient.grpc import service_pb2

PROTOCOLS = ("json", "binary", "grpc")


@dataclass(frozen=True)
class Body:
    protocol: str
    model: str
    payload: bytes  # what a client sends; for gRPC the bare message
    file: Path  # what h2load sends; for gRPC with the five bytes of framing
    headers: dict[str, str]
    input: np.ndarray
    expected: np.ndarray


def make_bodies(repository: Path, folder: Path, models: list[str], protocols: list[str]) -> list[Body]:
    folder.mkdir(parents=True, exist_ok=True)
    bodies = []
    for model in models:
        session = onnxruntime.InferenceSession(str(repository / model / "1" / "model.onnx"))
        x = np.random.default_rng(1).random((1, session.get_inputs()[0].shape[1]), np.float32)
        expected = session.run(None, {"x": x})[0]
        for protocol in protocols:
            payload, headers = ENCODERS[protocol](model, x)
            framing = b"\0" + struct.pack(">I", len(payload)) if protocol == "grpc" else b""
            file = folder / f"{model}.{protocol}"
            file.write_bytes(framing + payload)
            bodies.append(Body(protocol, model, payload, file, headers, x, expected))
    return bodies


def encode_json(model: str, x: np.ndarray) -> tuple[bytes, dict[str, str]]:
    # tolist() widens to double, so that numbers have 17 to 19 digits, as the bodies of real Python clients do.
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    return body, {"content-type": "application/json"}


def encode_binary(model: str, x: np.ndarray) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    start = json.dumps(head, separators=(",", ":")).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(start))}
    return start + x.tobytes(), headers


def encode_grpc(model: str, x: np.ndarray) -> tuple[bytes, dict[str, str]]:
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype="FP32")
    tensor.shape.extend(x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request.SerializeToString(), {"content-type": "application/grpc", "te": "trailers"}


ENCODERS = {"json": encode_json, "binary": encode_binary, "grpc": encode_grpc}
