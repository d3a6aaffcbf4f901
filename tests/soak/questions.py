"""What a soak asks: requests as bytes for every wire, and the bytes that must come back.

Expected answers are asked of the quiet server before the load, one at a time, and held against ONNX Runtime. From then on
an answer is right if every byte of it is, but for the request's own id and, of a model that is swapped, the version.
"""

import http.client
import json
import random
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import cases
import grpc
import numpy as np
import onnxruntime
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

METHOD = "/inference.GRPCInferenceService/ModelInfer"
WIRES = ("json", "binary", "grpc")
# As long as what stands in their place, so that lengths stay.
ID, VERSION = b"<the-id-is-16-b>", b"<v>"
FIRST_VERSION = 100
JSON_ELEMENTS_MAX = 20_000  # writing more as text would measure Python
# Beyond rounding: a sum in another order. The network of bytes may be a step of its last grid off.
TOLERANCE, TOLERANCE_INT8 = 1e-3, 0.3

EXPLICIT, POLLED = "explicit", "polled"
SWAPPED, GOING, TOUCHED = "swapped", "going", "touched"


@dataclass
class Question:
    server: str
    model: str
    wire: str
    weight: float
    request: bytes
    head_bytes: int = 0  # of a binary request over REST: its JSON
    expected: dict[bool, bytes] = field(default_factory=dict)  # by whether the version is odd, where the model is swapped


def told() -> list[tuple[str, str, float, list]]:
    """Server, model, weight and makers of inputs. Small networks more often than large ones, as they cost less."""
    return [
        (EXPLICIT, "digits", 18, [lambda: cases.images(1), lambda: cases.images(3)]),
        (EXPLICIT, "wine", 12, [lambda: cases.rows("wine_test.npz", "X", 1), lambda: cases.rows("wine_test.npz", "X", 20)]),
        (EXPLICIT, "vowels", 12, [lambda: cases.rows("vowels_test.npz", "series", 4)]),
        (EXPLICIT, "lenet_mnist_int8_qdq", 8, [lambda: cases.images(1), lambda: cases.images(3)]),
        (EXPLICIT, "magika", 10, [lambda: cases.file_bytes(1)]),
        (EXPLICIT, "ppocr_cls", 8, [lambda: cases.pixels("x", 1, 3, 48, 192)]),
        (EXPLICIT, "ppocr_rec", 6, [lambda: cases.pixels("x", 1, 3, 48, 160), lambda: cases.pixels("x", 2, 3, 48, 96)]),
        (EXPLICIT, "ppocr_det", 6, [lambda: cases.pixels("x", 1, 3, 96, 96), lambda: cases.pixels("x", 1, 3, 64, 160)]),
        (EXPLICIT, "silero_vad_sequence", 6, [lambda: cases.chunks(1), lambda: cases.chunks(40)]),
        (EXPLICIT, "open_nsfw", 1, [lambda: cases.pixels("input:0", 1, 224, 224, 3, low=-120, high=130)]),
        (EXPLICIT, GOING, 4, [lambda: cases.rows("vowels_test.npz", "series", 2)]),
        (POLLED, SWAPPED, 8, [lambda: cases.images(1), lambda: cases.images(2)]),
        (POLLED, TOUCHED, 4, [lambda: cases.rows("wine_test.npz", "X", 5)]),
    ]


def make() -> tuple[list[Question], dict[int, dict]]:
    """Questions without answers, and the inputs of each by its place in the list."""
    found, inputs = [], {}
    for server, model, weight, makers in told():
        for tensors in (maker() for maker in makers):
            small = sum(value.size for value in tensors.values()) <= JSON_ELEMENTS_MAX
            wires = WIRES if small else WIRES[1:]
            for wire in wires:
                inputs[len(found)] = tensors
                request, head_bytes = encoded(model, wire, tensors)
                found.append(Question(server, model, wire, weight / len(makers) / len(wires), request, head_bytes))
    return found, inputs


def encoded(model: str, wire: str, tensors: dict[str, np.ndarray]) -> tuple[bytes, int]:
    if wire == "grpc":
        message = service_pb2.ModelInferRequest(model_name=model, id=ID.decode())
        for name, value in tensors.items():
            message.inputs.add(name=name, datatype=np_to_triton_dtype(value.dtype), shape=value.shape)
            message.raw_input_contents.append(value.tobytes())
        return message.SerializeToString(), 0
    described, raw = [], []
    for name, value in tensors.items():
        tensor = {"name": name, "shape": list(value.shape), "datatype": np_to_triton_dtype(value.dtype)}
        if wire == "binary":
            tensor["parameters"] = {"binary_data_size": value.nbytes}
            raw.append(value.tobytes())
        else:
            tensor["data"] = value.ravel().tolist()
        described.append(tensor)
    body = {"id": ID.decode(), "inputs": described}
    if wire == "binary":
        body["parameters"] = {"binary_data_output": True}
    head = json.dumps(body).encode()
    return b"".join([head, *raw]), len(head) if wire == "binary" else 0


def ask(question: Question, server, root: bytes | None, number: str = "0" * len(ID)) -> tuple[bytes, int]:
    """The answer's bytes, and how many of them are JSON. For the quiet server: one connection each."""
    request = question.request.replace(ID, number.encode(), 1)
    if question.wire == "grpc":
        secure = root and question.server == EXPLICIT
        channel = grpc.secure_channel(server.grpc, grpc.ssl_channel_credentials(root)) if secure else grpc.insecure_channel(server.grpc)
        with channel:
            return channel.unary_unary(METHOD)(request, timeout=60), 0
    connection = http.client.HTTPConnection(server.http, timeout=60)
    headers = {"inference-header-content-length": str(question.head_bytes)} if question.head_bytes else {}
    connection.request("POST", f"/v2/models/{question.model}/infer", request, headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{question.model} over {question.wire}: expected 200, came {answer.status} {body[:300]!r}")
    return body, int(answer.getheader("inference-header-content-length", len(body)))


def learn(question: Question, server, root: bytes | None, oracle: dict[str, np.ndarray], version: int | None) -> None:
    """Asks twice, holds the answer against the oracle's, and keeps it as what is expected."""
    body, head_bytes = ask(question, server, root)
    again, _ = ask(question, server, root)
    if body != again:
        raise RuntimeError(f"{question.model} over {question.wire}: expected one answer, came two to the same question")
    compare(question, decoded(question, body, head_bytes), oracle)
    question.expected[bool(version and version % 2)] = template(body, version)


def template(body: bytes, version: int | None) -> bytes:
    if body.count(b"0" * len(ID)) < 1:
        raise RuntimeError(f"expected the request's id in its answer, came {body[:200]!r}")
    body = body.replace(b"0" * len(ID), ID, 1)
    if version:
        at = body.index(str(version).encode())
        body = body[:at] + VERSION + body[at + len(VERSION) :]
    return body


def decoded(question: Question, body: bytes, head_bytes: int) -> dict[str, np.ndarray]:
    if question.wire == "grpc":
        answer = service_pb2.ModelInferResponse.FromString(body)
        raw = zip(answer.outputs, answer.raw_output_contents, strict=True)
        return {one.name: np.frombuffer(content, triton_to_np_dtype(one.datatype)).reshape(one.shape) for one, content in raw}
    found, at = {}, head_bytes
    for tensor in json.loads(body[:head_bytes])["outputs"]:
        dtype = triton_to_np_dtype(tensor["datatype"])
        if "data" in tensor:
            found[tensor["name"]] = np.array(tensor["data"], dtype).reshape(tensor["shape"])
            continue
        size = tensor["parameters"]["binary_data_size"]
        found[tensor["name"]] = np.frombuffer(body[at : at + size], dtype).reshape(tensor["shape"])
        at += size
    return found


def oracle(model: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def compare(question: Question, came: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    tolerance = TOLERANCE_INT8 if "int8" in question.model else TOLERANCE
    for name, value in came.items():
        if not np.allclose(value, wanted[name], tolerance, tolerance):
            most = np.abs(value.astype(np.float64) - wanted[name]).max()
            raise RuntimeError(f"{question.model} over {question.wire}: {name} is {most:g} off ONNX Runtime's answer")


def trusting(root: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(root))


def draw(chance: random.Random, questions: list[Question]):
    """Gives questions for ever, by their weights."""
    weights = [question.weight for question in questions]
    while True:
        yield from chance.choices(questions, weights, k=1000)
