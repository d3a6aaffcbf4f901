"""The three ways tritonclient sends one request: REST with JSON, REST with binary tensors, gRPC.

A test that runs over all of WIRES says that the wires agree.
"""

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

# JSON has no number form for these: they travel as binary tensors only.
BINARY_ONLY = ("FP16", "BF16")

# The table of error codes, as tritonclient shows them.
REFUSALS = {
    "budget unmet": ("412", "StatusCode.FAILED_PRECONDITION"),
    "invalid": ("400", "StatusCode.INVALID_ARGUMENT"),
    "not found": ("404", "StatusCode.NOT_FOUND"),
    "too large": ("413", "StatusCode.RESOURCE_EXHAUSTED"),
    "overloaded": ("429", "StatusCode.RESOURCE_EXHAUSTED"),
    "deadline": ("504", "StatusCode.DEADLINE_EXCEEDED"),
    "unavailable": ("503", "StatusCode.UNAVAILABLE"),
    "denied": ("403", "StatusCode.PERMISSION_DENIED"),
    "unsupported": ("501", "StatusCode.UNIMPLEMENTED"),
}


class RestWire:
    def __init__(self, server, binary: bool):
        self.binary = binary
        self.client = tritonclient.http.InferenceServerClient(server.http, network_timeout=60)

    def infer(self, model: str, inputs: dict[str, np.ndarray], outputs: list[str], **options) -> dict:
        return as_arrays(self.request(model, inputs, outputs, **options), outputs)

    def request(self, model: str, inputs: dict[str, np.ndarray], outputs: list[str], **options):
        wanted = [tritonclient.http.InferRequestedOutput(o, binary_data=self.binary) for o in outputs]
        return self.client.infer(model, self.tensors(inputs), outputs=wanted, **options)

    def tensors(self, inputs: dict[str, np.ndarray]) -> list:
        return [rest_input(name, array, self.binary) for name, array in inputs.items()]


class GrpcWire:
    def __init__(self, server):
        self.client = tritonclient.grpc.InferenceServerClient(server.grpc)

    def infer(self, model: str, inputs: dict[str, np.ndarray], outputs: list[str], **options) -> dict:
        return as_arrays(self.request(model, inputs, outputs, **options), outputs)

    def request(self, model: str, inputs: dict[str, np.ndarray], outputs: list[str], **options):
        wanted = [tritonclient.grpc.InferRequestedOutput(o) for o in outputs]
        return self.client.infer(model, self.tensors(inputs), outputs=wanted, **options)

    def tensors(self, inputs: dict[str, np.ndarray]) -> list:
        return [grpc_input(name, array) for name, array in inputs.items()]


WIRES = {
    "rest-json": lambda server: RestWire(server, binary=False),
    "rest-binary": lambda server: RestWire(server, binary=True),
    "grpc": GrpcWire,
}


def rest_input(name: str, array: np.ndarray, binary: bool = True):
    tensor = tritonclient.http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array, binary_data=binary)


def grpc_input(name: str, array: np.ndarray):
    tensor = tritonclient.grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array)


def as_arrays(result, outputs: list[str]) -> dict[str, np.ndarray]:
    return {name: result.as_numpy(name) for name in outputs}


def refused(call, code: str, *words: str) -> str:
    """Runs `call`, which must fail with `code` and name every word; gives the message."""
    try:
        call()
    except InferenceServerException as error:
        assert error.status() in REFUSALS[code], f"expected {code}, came {error}"
        message = error.message()
        missing = [word for word in words if word.lower() not in message.lower()]
        assert not missing, f"expected {missing} in {message!r}"
        return message
    raise AssertionError(f"expected a refusal with {code}, came an answer")
