"""One server over the real models, the demo models and the fixtures; the oracle for each."""

import os
import shutil
from pathlib import Path

import onnxruntime
import pytest

from parity.cases import FIXTURES, ROOT
from server import Server

WARM_UP_SECONDS_MAX = 120


@pytest.fixture(scope="session")
def repositories(tmp_path_factory) -> list[Path]:
    """Fixtures are bare files; each becomes a model of its own name."""
    fixtures = tmp_path_factory.mktemp("fixtures")
    for file in FIXTURES.glob("*.onnx"):
        place = fixtures / file.stem / "1"
        place.mkdir(parents=True)
        shutil.copy(file, place / "model.onnx")
    real = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "real-models"
    if not real.is_dir():
        pytest.fail(f"no real models in {real}: run tests/clients/parity/fetch")
    return [real, fixtures, ROOT / "models"]


@pytest.fixture(scope="session")
def parity_server(repositories, tmp_path_factory):
    server = Server(repositories, tmp_path_factory.mktemp("log") / "kinglet.log")
    server.ready_seconds_max = WARM_UP_SECONDS_MAX
    with server as running:
        yield running


@pytest.fixture(scope="session", params=["rest-json", "rest-binary", "grpc"])
def parity_wire(request, parity_server):
    from wires import WIRES

    return WIRES[request.param](parity_server)


@pytest.fixture(scope="session")
def oracle(repositories):
    """Runs a model in ONNX Runtime, one thread, with its own reading of the same file."""
    return in_onnx_runtime(repositories, onnxruntime.SessionOptions())


@pytest.fixture(scope="session")
def oracle_as_written(repositories):
    """The same without optimisation: fused int8 products saturate at 16 bits on processors without VNNI, so that what
    ONNX Runtime makes of a quantised model depends on the machine, and differs from its own unfused answer."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return in_onnx_runtime(repositories, options)


def in_onnx_runtime(repositories, options):
    sessions = {}
    options.intra_op_num_threads = 1
    options.log_severity_level = 3

    def run(model: str, inputs: dict) -> dict:
        if model not in sessions:
            (file,) = [r / model / "1" / "model.onnx" for r in repositories if (r / model).is_dir()]
            sessions[model] = onnxruntime.InferenceSession(str(file), options)
        session = sessions[model]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run
