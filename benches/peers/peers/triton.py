"""Triton's core with its Python backend and ONNX Runtime in it, one instance a model or one a core.

The C++ ONNX Runtime backend is in no package registry."""

import os
import sysconfig
from pathlib import Path

from peers import HERE, Launch, Place, Server, speaks

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 64
input [{{ name: "x", data_type: TYPE_FP32, dims: [ -1 ] }}]
output [{{ name: "y", data_type: TYPE_FP32, dims: [ -1 ] }}]
dynamic_batching {{ }}
instance_group [{{ kind: KIND_CPU, count: {count} }}]
parameters {{ key: "onnx" value: {{ string_value: "{onnx}" }} }}
"""


def binary(place: Place) -> Path:
    return place.site_packages("triton") / "pytriton" / "tritonserver" / "bin" / "tritonserver"


def launch(place: Place, instances: int) -> Launch:
    for model in place.models():
        version = place.folder / model.name / "1"
        version.mkdir(parents=True)
        (version / "model.py").symlink_to(HERE / "apps" / "triton_model.py")
        (version.parent / "config.pbtxt").write_text(CONFIG.format(count=instances, name=model.name, onnx=model / "1" / "model.onnx"))
    flags = {
        "model-repository": place.folder,
        "backend-directory": place.target / "triton-backends",
        "http-address": "127.0.0.1",
        "http-port": place.http,
        "grpc-address": "127.0.0.1",
        "grpc-port": place.grpc,
        "allow-metrics": "false",
        "log-verbose": 0,
    }
    # The stub must load the libpython that belongs to the packages, or every model fails with an error about RLock.
    # It was copied out of the wheel, away from the libraries beside it, and its Python is isolated: it ignores PYTHONPATH.
    packages = place.site_packages("triton")
    libraries = f"{sysconfig.get_config_var('LIBDIR')}:{packages / 'nvidia_pytriton.libs'}"
    environment = {"LD_LIBRARY_PATH": libraries, "MODEL_PACKAGES": str(packages)}
    return Launch([str(binary(place)), *(f"--{name}={value}" for name, value in flags.items())], environment)


CORES = len(os.sched_getaffinity(0))
SERVERS = [
    Server("triton-python-1", speaks("json", "binary", "grpc"), lambda place: launch(place, 1), binary),
    Server("triton-python-cores", speaks("json", "binary", "grpc"), lambda place: launch(place, CORES), binary),
]
