"""A hand-written grpc.aio server with ONNX Runtime: the gRPC counterpart of the FastAPI one. Uses the clients' environment."""

from pathlib import Path

from peers import HERE, Launch, Place, Server, speaks


def python(place: Place) -> Path:
    return place.python("clients")


def launch(place: Place) -> Launch:
    return Launch([str(python(place)), str(HERE / "apps" / "grpc_app.py"), str(place.repository), str(place.grpc)])


SERVERS = [Server("grpc-aio", speaks("grpc"), launch, python)]
