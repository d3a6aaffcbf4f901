"""The bare limits (echo/): hyper and tonic giving back what came. `echo` reads nothing of it, `echo-prost` decodes the gRPC message."""

from pathlib import Path

from peers import Launch, Place, Server, speaks


def binary(place: Place) -> Path:
    return place.target / "echo" / "release" / "echo"


def launch(place: Place) -> Launch:
    return Launch([str(binary(place)), f"127.0.0.1:{place.http}", f"127.0.0.1:{place.grpc}"])


RAW = {**speaks("json", "binary"), "grpc": "/inference.GRPCInferenceService/Echo"}
SERVERS = [Server("echo", RAW, launch, binary, echoes=True), Server("echo-prost", speaks("grpc"), launch, binary, echoes=True)]
