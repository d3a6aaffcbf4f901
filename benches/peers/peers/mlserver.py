"""MLServer with a custom runtime (it ships none for ONNX). It answers 422 to binary tensors over REST, so those cells stay empty."""

import json
from pathlib import Path

from peers import HERE, Launch, Place, Server, speaks


def python(place: Place) -> Path:
    return place.python("mlserver")


def launch(place: Place) -> Launch:
    settings = {
        "host": "127.0.0.1",
        "http_port": place.http,
        "grpc_port": place.grpc,
        "metrics_port": place.admin,
        "debug": False,  # true logs every request
        "parallel_workers": 0,  # a worker pool only adds a hop for models this small
        "grpc_max_message_length": 64 << 20,
    }
    (place.folder / "settings.json").write_text(json.dumps(settings))
    for model in place.models():
        entry = {"name": model.name, "implementation": "mlserver_runtime.Onnx", "parameters": {"uri": str(model / "1" / "model.onnx")}}
        (place.folder / model.name).mkdir()
        (place.folder / model.name / "model-settings.json").write_text(json.dumps(entry))
    start = "from mlserver.cli import main; main()"
    return Launch([str(python(place)), "-c", start, "start", str(place.folder)], {"PYTHONPATH": str(HERE / "apps")})


SERVERS = [Server("mlserver", speaks("json", "grpc"), launch, python)]
