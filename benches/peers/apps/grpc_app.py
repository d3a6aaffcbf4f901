"""`grpc_app.py REPOSITORY PORT`: ModelInfer on grpc.aio, one FP32 input as raw bytes."""

import asyncio
import sys

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from sessions import open_all


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, repository: str) -> None:
        self.sessions = open_all(repository)

    async def ModelInfer(self, request, context):  # noqa: N802 - the protocol's name
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
        y = self.sessions[request.model_name].run(None, {"x": x})[0]
        response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        tensor = response.outputs.add(name="y", datatype="FP32")
        tensor.shape.extend(y.shape)
        response.raw_output_contents.append(y.tobytes())
        return response


async def serve(repository: str, port: str) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(repository), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(serve(*sys.argv[1:]))
