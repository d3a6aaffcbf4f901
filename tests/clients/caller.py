"""One face for tritonclient's four clients: REST and gRPC, blocking and asyncio.

A call is made by name; gRPC answers come as JSON, so that one test reads all four.
"""

import asyncio
import inspect

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

from wires import grpc_input, rest_input

CLIENTS = {
    "rest": (tritonclient.http.InferenceServerClient, rest_input),
    "grpc": (tritonclient.grpc.InferenceServerClient, grpc_input),
    "rest-aio": (tritonclient.http.aio.InferenceServerClient, rest_input),
    "grpc-aio": (tritonclient.grpc.aio.InferenceServerClient, grpc_input),
}


class Caller:
    def __init__(self, kind: str, server):
        self.kind = kind
        self.server = server
        self.is_rest = kind.startswith("rest")
        self._new_client, self.tensor = CLIENTS[kind]
        self._address = server.http if self.is_rest else server.grpc

    def call(self, method: str, *arguments, **options):
        if self.kind.endswith("aio"):
            return asyncio.run(self._call_aio(method, arguments, options))
        with self._new_client(self._address) as client:
            return self._named(client, method, options)(*arguments, **options)

    async def _call_aio(self, method: str, arguments, options):
        async with self._new_client(self._address) as client:
            return await self._named(client, method, options)(*arguments, **options)

    def _named(self, client, method: str, options: dict):
        bound = getattr(client, method)
        if "as_json" in inspect.signature(bound).parameters:
            options["as_json"] = True
        return bound

    def infer(self, model: str, inputs: dict[str, np.ndarray], **options):
        tensors = [self.tensor(name, array) for name, array in inputs.items()]
        return self.call("infer", model, tensors, **options)


def integers(value):
    """JSON of a protocol message writes 64-bit integers as strings; REST writes numbers."""
    if isinstance(value, dict):
        return {k: integers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [integers(v) for v in value]
    return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value
