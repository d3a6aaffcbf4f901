"""What the layers of a model take, as the admin listener tells: a pruned model is multiplied without its zeros."""

from pathlib import Path

import pytest
import requests

from server import Server

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("layers")
    for name in ("lenet_mnist_pruned90", "lenet_mnist_pruned90_int8_qdq", "digits_mlp"):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes((FIXTURES / f"{name}.onnx").read_bytes())
    with Server([root], root / "kinglet.log") as server:
        yield server


def layers(server, path: str) -> requests.Response:
    return requests.get(f"http://{server.admin}/v2/models/{path}", timeout=30)


@pytest.mark.parametrize("name", ["lenet_mnist_pruned90", "lenet_mnist_pruned90_int8_qdq"])
def test_zeros_are_told(server, name):
    told = layers(server, f"{name}/versions/1/layers?batch=4").json()
    assert (told["name"], told["version"], told["batch"]) == (name, "1", 4)
    assert all(layer["time_us"] > 0 and layer["kernel"] and layer["bytes"] > 0 for layer in told["layers"])
    sparse = [layer["weights"] for layer in told["layers"] if layer["weights"]]
    assert sparse, told["layers"]
    for weights in sparse:
        assert 0 < weights["nonzero"] <= weights["multiplied"] <= weights["all"]
        assert weights["sparsity"] == pytest.approx(1 - weights["nonzero"] / weights["all"])
        assert weights["speed_up_max"] == pytest.approx(weights["all"] / weights["nonzero"])


def test_dense_layers_have_none(server):
    told = layers(server, "digits_mlp/layers").json()
    assert told["layers"] and not any(layer["weights"] for layer in told["layers"])


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("nobody/layers", 404, "nobody"),
        ("digits_mlp/versions/7/layers", 404, "7"),
        ("digits_mlp/layers?variant=small", 404, "small"),
        ("digits_mlp/layers?batch=0", 400, "from 1 to"),
        ("digits_mlp/layers?extent=100000000", 400, "from 1 to"),
        ("digits_mlp/layers?batch=many", 400, "query"),
        ("digits_mlp/layers?rows=2", 400, "rows"),
    ],
)
def test_what_cannot_be_told_is_refused(server, path, status, message):
    answer = layers(server, path)
    assert answer.status_code == status and message in answer.json()["error"], answer.text


def test_clients_are_not_told(server):
    assert requests.get(f"http://{server.http}/v2/models/digits_mlp/layers", timeout=10).status_code == 404
