"""KServe's Python server with a custom model (its SDK ships no ONNX one). One process, as its gRPC side needs."""

from pathlib import Path

from peers import HERE, Launch, Place, Server, speaks


def python(place: Place) -> Path:
    return place.python("kserve")


def launch(place: Place) -> Launch:
    command = [str(python(place)), str(HERE / "apps" / "kserve_app.py"), f"--http_port={place.http}", f"--grpc_port={place.grpc}"]
    # At its default level it writes three lines a request.
    environment = {"MODEL_REPOSITORY": str(place.repository), "KSERVE_LOGLEVEL": "WARNING"}
    return Launch([*command, "--workers=1", "--enable_latency_logging=false"], environment)


SERVERS = [Server("kserve", speaks("json", "binary", "grpc"), launch, python)]
