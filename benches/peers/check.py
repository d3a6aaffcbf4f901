"""Sends one request with a real client (httpx, grpc) and compares the answer with ONNX Runtime's, before anything is timed."""

from __future__ import annotations

import json

import grpc
import httpx
import numpy as np
from tritonclient.grpc import service_pb2

from bodies import Body

TOLERANCE = 1e-4  # relative and absolute, as everywhere in this project
# One client for all: making one costs a tenth of a second, which would show in the time to ready.
CLIENT = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))


class WrongAnswer(Exception):
    pass


def check(address: str, path: str, body: Body, echoes: bool, timeout_s: float = 60) -> int:
    """Returns the length of the right answer on the wire, or raises."""
    headers, answer = (call_grpc if body.protocol == "grpc" else call_http)(address, path, body, timeout_s)
    framing = 5 if body.protocol == "grpc" else 0
    if echoes and answer == body.payload:
        return len(answer) + framing
    got = DECODERS[body.protocol](headers, answer)
    expected = body.input if echoes else body.expected
    if got.size != expected.size or not np.allclose(got.reshape(expected.shape), expected, TOLERANCE, TOLERANCE):
        raise WrongAnswer(f"expected {expected.ravel()[:4]}, got {got.ravel()[:4]}")
    return len(answer) + framing


def call_http(address: str, path: str, body: Body, timeout_s: float) -> tuple[dict[str, str], bytes]:
    # Clients that offer compression would get a compressed answer from some servers, h2load would not.
    headers = {**body.headers, "accept-encoding": "identity"}
    response = CLIENT.post(f"http://{address}{path}", content=body.payload, headers=headers, timeout=timeout_s)
    if response.status_code != 200:
        raise WrongAnswer(f"expected 200, got {response.status_code}: {response.text[:300]}")
    return {name.lower(): value for name, value in response.headers.items()}, response.content


def call_grpc(address: str, path: str, body: Body, timeout_s: float) -> tuple[dict[str, str], bytes]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options) as channel:
        return {}, channel.unary_unary(path)(body.payload, timeout=timeout_s)


def decode_json(_: dict[str, str], answer: bytes) -> np.ndarray:
    return np.array(json.loads(answer)["outputs"][0]["data"], np.float32)


def decode_binary(headers: dict[str, str], answer: bytes) -> np.ndarray:
    if "inference-header-content-length" not in headers:
        raise WrongAnswer("expected a binary answer, got no inference-header-content-length")
    return np.frombuffer(answer[int(headers["inference-header-content-length"]) :], np.float32)


def decode_grpc(_: dict[str, str], answer: bytes) -> np.ndarray:
    response = service_pb2.ModelInferResponse.FromString(answer)
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], np.float32)
    return np.array(response.outputs[0].contents.fp32_contents, np.float32)


DECODERS = {"json": decode_json, "binary": decode_binary, "grpc": decode_grpc}
