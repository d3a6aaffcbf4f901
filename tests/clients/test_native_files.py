"""Native model files: written by the command, opened by the safetensors library, served beside the models they were made of."""

import json
import subprocess
from pathlib import Path

import numpy
import pytest
from safetensors import safe_open

from conftest import make_wire
from server import Server, binary

FIXTURES = Path(__file__).parent.parent / "fixtures"
MODELS = {
    "lenet": FIXTURES / "lenet_mnist_pruned90.onnx",
    "lenet_int8": FIXTURES / "lenet_mnist_int8_qdq.onnx",
    "gunpoint": FIXTURES / "gunpoint_fcn.onnx",
}


def compress(model: Path, folder: Path) -> str:
    command = [binary(), "compress", str(model), "--output", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("native")
    for name, model in MODELS.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes(model.read_bytes())
        assert "answers as" in compress(model, root / f"{name}_native" / "1")
    return root


@pytest.mark.parametrize("name", MODELS)
def test_safetensors_opens_them(repository, name):
    with safe_open(repository / f"{name}_native" / "1" / "model.safetensors", "np") as file:
        words = file.metadata()
        assert words["kinglet.format"] == "1" and words["kinglet.source"] == MODELS[name].name
        graph = json.loads(words["kinglet.graph"])["graph"]
        weights = {key: file.get_tensor(key) for key in file.keys() if not key.startswith("__filler__")}
    assert weights.keys() == json.loads(words["kinglet.digests"]).keys()
    named = {entry["value"] for tensor in graph["initializer"] for entry in tensor.get("externalData", [])}
    assert weights and named <= weights.keys()


@pytest.mark.parametrize("settings", [{}, {"KINGLET__ENGINE__MAPPED": "false"}], ids=["mapped", "copied"])
def test_they_answer_as_their_sources(repository, settings, tmp_path):
    with Server([repository], tmp_path / "kinglet.log", settings) as server:
        wire = make_wire("rest-binary", server)
        for name in MODELS:
            metadata = wire.client.get_model_metadata(name)
            [given] = metadata["inputs"]
            # A free extent is as long as a recorded gesture.
            shape = [3, *(extent if extent > 0 else 150 for extent in given["shape"][1:])]
            x = numpy.random.default_rng(1).random(shape, numpy.float32)
            answers = [infer(wire, model, given["name"], x) for model in (name, f"{name}_native")]
            assert answers[0].keys() == answers[1].keys()
            for output, expected in answers[0].items():
                assert numpy.array_equal(answers[1][output], expected), (name, output)


def infer(wire, model: str, given: str, x: numpy.ndarray) -> dict[str, numpy.ndarray]:
    from tritonclient.http import InferInput

    tensor = InferInput(given, list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    result = wire.client.infer(model, [tensor])
    return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}


def test_one_that_was_cut_short_is_refused_and_the_rest_serves(repository, tmp_path):
    broken = tmp_path / "models" / "broken" / "1"
    broken.mkdir(parents=True)
    whole = (repository / "lenet_native" / "1" / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[:-1])
    (tmp_path / "models" / "lenet").symlink_to(repository / "lenet_native", target_is_directory=True)
    (tmp_path / "models" / "good" / "1").mkdir(parents=True)
    (tmp_path / "models" / "good" / "1" / "model.safetensors").write_bytes(whole)
    with Server([tmp_path / "models"], tmp_path / "kinglet.log") as server:
        client = make_wire("rest-binary", server).client
        assert client.is_model_ready("good") and not client.is_model_ready("broken")
        index = {entry["name"]: entry for entry in client.get_model_repository_index()}
        assert "not a safetensors file" in index["broken"]["reason"]
