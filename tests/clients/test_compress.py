"""Models made smaller by the command: what the report says of them, and what the server then answers."""

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import make_wire
from server import Server, binary

ROOT = Path(__file__).parent.parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
DENSE = ROOT / "models" / "digits" / "1" / "model.onnx"
PRUNED = FIXTURES / "lenet_mnist_pruned90.onnx"


def compress(model: Path, folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [binary(), "compress", str(model), "-o", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def report(model: Path, folder: Path, *options: str) -> dict:
    done = compress(model, folder, *options)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "compression.json").read_text())


def digits(name: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Images as the models take them, and labels."""
    with numpy.load(FIXTURES / name) as file:
        grey = numpy.round(file["images"] / 255, 3).astype(numpy.float32)
        return numpy.pad(grey, ((0, 0), (2, 2), (2, 2)))[:, None], file["labels"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("rows")
    for name in ("calibration", "test"):
        images, labels = digits(f"digits_{name}.npz")
        numpy.savez(folder / f"{name}.npz", image=images, labels=labels)
    return ["--calibrate", str(folder / "calibration.npz"), "--evaluate", str(folder / "test.npz")]


@pytest.mark.parametrize(
    ("model", "options", "accuracy"),
    [
        (DENSE, ["--prune", "0.9", "--quantize", "int8"], 0.977),
        (DENSE, ["--prune", "0.9", "--quantize", "int8", "--sensitivity"], 0.98),
        (PRUNED, ["--quantize", "int8"], 0.985),
        (PRUNED, ["--prune", "0.9", "--keep", "/c1/Conv,/f2/Gemm"], 0.985),
    ],
    ids=["dense", "dense-sensitivity", "pruned-int8", "pruned-again"],
)
def test_the_report_says_what_the_server_answers(model, options, accuracy, rows, tmp_path):
    folder = tmp_path / "models" / "digits" / "1"
    told = report(model, folder, *options, *rows)
    assert sorted(path.name for path in folder.iterdir()) == [
        "compression.json", "compression.md", "compression.svg", "model.safetensors",
    ]
    assert told["bytes"] == [model.stat().st_size, (folder / "model.safetensors").stat().st_size]
    assert told["compared"]["accuracy"][1] >= accuracy
    if "--prune" in options:
        zeros = sum(layer["zeros"][1] for layer in told["layers"])
        assert zeros / sum(layer["weights"] for layer in told["layers"]) >= 0.899
    assert f"| accuracy | {100 * told['compared']['accuracy'][0]:.2f} % |" in (folder / "compression.md").read_text()
    picture = ElementTree.parse(folder / "compression.svg").getroot()
    assert picture.tag.endswith("svg") and len(list(picture)) > 5 * len(told["layers"])
    images, labels = digits("digits_test.npz")
    with Server([tmp_path / "models"], tmp_path / "kinglet.log") as server:
        wire = make_wire("rest-binary", server)
        answers = numpy.concatenate([infer(wire, "digits", some) for some in numpy.split(images, 80)])
    right = float(numpy.mean(answers.argmax(1) == labels))
    assert right == pytest.approx(told["compared"]["accuracy"][1], abs=1e-9)


def infer(wire, model: str, x: numpy.ndarray) -> numpy.ndarray:
    from tritonclient.http import InferInput

    tensor = InferInput("image", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return wire.client.infer(model, [tensor]).as_numpy("logits")


def test_int8_layers_are_products_of_bytes(rows, tmp_path):
    report(DENSE, tmp_path, "--quantize", "int8", *rows)
    shown = subprocess.run([binary(), "inspect", "--layers", str(tmp_path)], capture_output=True, text=True, check=True)
    layers = [line for line in shown.stdout.splitlines() if "/Conv" in line or "/Gemm" in line]
    # Each in the table of times, with its kernel, and then in that of what is moved.
    assert len(layers) == 10 and all("u8s8" in line for line in layers[:5]), shown.stdout


def test_too_great_a_loss_leaves_nothing(rows, tmp_path):
    folder = tmp_path / "models" / "digits" / "1"
    done = compress(DENSE, folder, "--prune", "0.99", *rows, "--max-loss", "0.01")
    assert done.returncode == 1
    assert "is lost of accuracy, at most 0.01 may be; nothing was written" in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_job_that_was_ended_goes_on(rows, tmp_path):
    whole = report(DENSE, tmp_path / "whole", "--prune", "0.9", "--quantize", "int8", *rows)
    command = [binary(), "compress", str(DENSE), "-o", str(tmp_path / "cut"), "--prune", "0.9", "--quantize", "int8", *rows]
    cut = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    third = tmp_path / "cut" / ".compress" / "layer-2.json"
    while not third.exists() and cut.poll() is None:
        pass
    cut.kill()
    cut.wait()
    assert third.exists()
    # Told apart from layers that are found again, which would have this layer's error.
    change = json.loads(third.read_text())
    change["errors"] = [7.0, 7.0]
    third.write_text(json.dumps(change))
    again = report(DENSE, tmp_path / "cut", "--prune", "0.9", "--quantize", "int8", *rows)
    assert again["layers"][2]["errors"] == [7.0, 7.0]
    assert again["compared"] == whole["compared"]
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert models[0] == models[1] and not (tmp_path / "cut" / ".compress").exists()


def test_a_factorization_that_was_ended_goes_on(rows, tmp_path):
    whole = report(DENSE, tmp_path / "whole", "--factorize", "0.95", *rows)
    command = [binary(), "compress", str(DENSE), "-o", str(tmp_path / "cut"), "--factorize", "0.95", *rows]
    cut = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    second = tmp_path / "cut" / ".compress" / "factors-1.json"
    while not second.exists() and cut.poll() is None:
        pass
    cut.kill()
    cut.wait()
    assert second.exists()
    two = json.loads(second.read_text())
    two["told"]["error"] = 7.0
    second.write_text(json.dumps(two))
    again = report(DENSE, tmp_path / "cut", "--factorize", "0.95", *rows)
    errors = {layer["name"]: layer["error"] for layer in again["factored"]}
    assert errors[two["told"]["name"]] == 7.0
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert models[0] == models[1] and again["compared"] == whole["compared"]


def test_blocks_of_low_rank_are_convolutions_of_groups(tmp_path):
    """Each quarter of the outputs sees two directions of its own, which the layer as a whole has eight of."""
    blocks = numpy.concatenate([RANDOM.standard_normal((8, 2)) @ RANDOM.standard_normal((2, 16 * 9)) for _ in range(4)])
    weights = {"w": blocks.reshape(32, 16, 3, 3), "b": RANDOM.standard_normal(32)}
    conv = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="it", pads=[1, 1, 1, 1])
    model, rows = made(tmp_path, [conv], weights, [16, 6, 6])
    for options in ([], rows):
        whole = report(model, tmp_path / "out", "--factorize", "0.9999999", *options, "--evaluate", rows[1])
        assert whole["factored"][0]["weights"] == [32 * 144, 8 * (144 + 32)]
        told = report(model, tmp_path / "out", "--factorize", "0.9999999", "--blocks", "8", *options, "--evaluate", rows[1])
        [layer] = told["factored"]
        assert (layer["groups"], layer["rank"], layer["weights"]) == ([1, 4], 8, [32 * 144, 8 * 144 + 32 * 2])
        assert told["compared"]["output_error"] < 1e-3


def test_blocks_of_low_rank_in_a_linear_layer_are_zeros_between_them(tmp_path):
    """By outputs and by inputs; what is left out is neither stored nor multiplied."""
    by_outputs = numpy.concatenate([RANDOM.standard_normal((64, 4)) @ RANDOM.standard_normal((4, 256)) for _ in range(4)])
    for weights, groups in ((by_outputs, [1, 4]), (by_outputs.T, [4, 1])):
        gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="it", transB=1)
        model, rows = made(tmp_path, [gemm], {"w": weights, "b": RANDOM.standard_normal(256)}, [256])
        sizes = {}
        for blocks in ("1", "4"):
            options = ["--factorize", "0.9999999", "--blocks", blocks, *rows, "--evaluate", rows[1]]
            told = report(model, tmp_path / "out", *options)
            [layer] = told["factored"]
            assert told["compared"]["output_error"] < 1e-3
            sizes[blocks] = (tmp_path / "out" / "model.safetensors").stat().st_size
        assert (layer["groups"], layer["rank"], layer["weights"]) == (groups, 16, [256 * 256, 16 * 256 + 64 * 4 * 4])
        assert sizes["4"] < 0.75 * sizes["1"]


def test_channels_of_sums_go_together(tmp_path):
    """Half of the channels of every value are of no use to any layer, and can go from sums and from depthwise layers."""
    names = iter(range(100))
    weights: dict[str, numpy.ndarray] = {}

    def conv(x: str, outputs: int, inputs: int, useful: list[int], **attributes) -> tuple:
        name = f"conv{next(names)}"
        weights[name] = RANDOM.standard_normal((outputs, inputs, 3, 3)) / 6
        if attributes.get("group", 1) == 1:
            weights[name][:, [at for at in range(inputs) if at not in useful]] = 0
        weights[f"{name}b"] = RANDOM.standard_normal(outputs)
        node = helper.make_node("Conv", [x, name, f"{name}b"], [f"{name}y"], name=name, pads=[1, 1, 1, 1], **attributes)
        return node, f"{name}y"

    trunk, inner = [0, 2, 3, 7], [1, 2, 4, 5, 6, 11]
    stem, a = conv("x", 8, 3, [0, 1, 2])
    wide, b = conv(a, 12, 8, trunk)
    alone, c = conv("relu", 12, 1, [], group=12)
    narrow, d = conv(c, 8, 12, inner)
    again, e = conv("sum", 8, 8, trunk)
    last = helper.make_node("Conv", ["sum2", "lastw"], ["y"], name="last")
    weights["lastw"] = RANDOM.standard_normal((5, 8, 1, 1))
    weights["lastw"][:, [1, 4, 5, 6]] = 0
    nodes = [stem, wide, helper.make_node("Relu", [b], ["relu"]), alone, narrow, helper.make_node("Add", [a, d], ["sum"]),
             again, helper.make_node("Add", [e, "sum"], ["sum2"]), last]
    model, rows = made(tmp_path, nodes, weights, [3, 9, 9])
    for options in ([], rows):
        told = report(model, tmp_path / "out", "--prune", "0.5", "--pattern", "channels", *options, "--evaluate", rows[1])
        left = {layer["name"]: layer["weights"] - layer["zeros"][1] for layer in told["layers"]}
        assert [left[node.name] for node in (stem, wide, alone, narrow, again, last)] == [
            4 * 27, 6 * 4 * 9, 6 * 9, 4 * 6 * 9, 4 * 4 * 9, 5 * 4]
        # A ridge holds weights of the least squares solution near those that were there.
        assert told["compared"]["output_error"] < (1e-2 if options else 1e-5)


def made(folder: Path, nodes: list, weights: dict[str, numpy.ndarray], shape: list) -> tuple[Path, list[str]]:
    """A model of one input and output, and rows for it."""
    constants = [numpy_helper.from_array(array.astype(numpy.float32), name) for name, array in weights.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *dims]) for name, dims in
              (("x", shape), ("y", [None] * (1 if nodes[-1].op_type in ("Gemm", "MatMul") else len(shape))))]
    graph = helper.make_graph(nodes, "made", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "made.onnx")
    numpy.savez(folder / "rows.npz", x=numpy.random.default_rng(1).random((200, *shape), numpy.float32))
    return folder / "made.onnx", ["--calibrate", str(folder / "rows.npz")]


RANDOM = numpy.random.default_rng(7)
KINDS = {
    "strided": (["Conv", {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}], (6, 3, 3, 2), [3, 9, 8]),
    "same": (["Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}], (4, 3, 4, 3), [3, 8, 7]),
    "same-lower": (["Conv", {"auto_pad": "SAME_LOWER"}], (4, 3, 2, 4), [3, 8, 7]),
    "grouped": (["Conv", {"group": 2}], (4, 3, 3, 3), [6, 6, 6]),
    "channelwise": (["Conv", {"group": 6}], (6, 1, 3, 3), [6, 6, 6]),
    "line": (["Conv", {"strides": [3]}], (5, 4, 3), [4, 30]),
    "gemm": (["Gemm", {}], (12, 7), [12]),
    "gemm-transposed": (["Gemm", {"transB": 1}], (7, 12), [12]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_a_layer_of_any_kind_can_be_spared(kind, tmp_path):
    """Every other input channel is nearly the one before it, so that many weights are not needed."""
    (operator, attributes), shape, inputs = KINDS[kind]
    weights = {"w": RANDOM.standard_normal(shape), "b": RANDOM.standard_normal(7 if operator == "Gemm" else shape[0])}
    model, rows = made(tmp_path, [helper.make_node(operator, ["x", "w", "b"], ["y"], name="it", **attributes)], weights, inputs)
    x = numpy.random.default_rng(3).random((200, *inputs), numpy.float32)
    x[:, 1::2] = x[:, : 2 * (x.shape[1] // 2) : 2] + 1e-3 * x[:, 1::2]
    numpy.savez(tmp_path / "rows.npz", x=x)
    told = report(model, tmp_path / "out", "--prune", "0.5", *rows)
    [layer] = told["layers"]
    assert layer["zeros"][1] == round(layer["weights"] / 2)
    cut, fitted = layer["errors"]
    # Channels that meet one weight each have no twin to lean on.
    assert fitted < (1.0 if kind == "channelwise" else 0.7) * cut
    # What was said of the layer is what its answers show.
    session = onnxruntime.InferenceSession(model)
    [before] = session.run(None, {"x": x})
    assert told["compared"]["output_error"] == pytest.approx(
        (fitted * before.var(axis=tuple(a for a in range(before.ndim) if a != 1)).mean() / (before**2).mean()) ** 0.5, rel=0.05)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    weights = RANDOM.standard_normal((4, 4))
    weights[1, 2], weights[3, 3] = numpy.nan, numpy.inf
    model, rows = made(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="it")], {"w": weights}, [4])
    for options in (["--prune", "0.5"], ["--prune", "0.5", *rows], ["--quantize", "int8", *rows]):
        done = compress(model, tmp_path / "out", *options)
        assert done.returncode == 1 and "layer it: expected finite weights, 2 of 16 are not" in done.stderr
        assert not (tmp_path / "out").exists()
    assert report(model, tmp_path / "out", "--prune", "0.5", "--keep", "it")["layers"] == []


def test_zeros_of_all_sorts_are_taken_as_they_are(tmp_path):
    """A layer of zeros, outputs of zeros alone, inputs that never are anything else, and zeros with a sign."""
    first = RANDOM.standard_normal((6, 8))
    first[:, 2] = 0
    first[0, :] = -0.0
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Gemm", ["q", "z", "bz"], ["r"], name="zeros"),
        helper.make_node("Gemm", ["r", "c", "bc"], ["y"], name="last"),
    ]
    weights = {"a": first, "z": numpy.zeros((8, 5)), "bz": numpy.ones(5), "c": RANDOM.standard_normal((5, 3)), "bc": numpy.zeros(3)}
    model, rows = made(tmp_path, nodes, weights, [6])
    x = numpy.random.default_rng(5).random((100, 6), numpy.float32)
    x[:, 4] = 0
    numpy.savez(tmp_path / "rows.npz", x=x)
    for options in (["--prune", "0.5"], ["--prune", "0.5", "--quantize", "int8"], ["--quantize", "ternary"],
                    ["--prune", "1.0"], ["--prune", "0.0"], ["--prune", "0.4", "--sensitivity"]):
        told = report(model, tmp_path / "out", *options, *rows)
        layers = {layer["name"]: layer for layer in told["layers"]}
        assert layers["zeros"]["zeros"] == [40, 40]
        assert layers["first"]["zeros"][0] == 13
        assert told["compared"]["output_error"] < 1e-2


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("options", "bytes_max", "accuracy"),
    [
        (["--quantize", "bf16"], 590_000, 0.986),
        (["--quantize", "int4"], 260_000, 0.98),
        (["--quantize", "ternary", "--keep", "/c1/Conv,/f2/Gemm"], 320_000, 0.96),
        (["--quantize", "binary", "--keep", "/c1/Conv,/f2/Gemm"], 320_000, 0.9),
        (["--quantize", "codebook:16"], 310_000, 0.98),
        (["--factorize", "0.99"], 700_000, 0.975),
        (["--factorize", "0.99", "--quantize", "int8"], 200_000, 0.975),
        (["--prune", "0.5", "--pattern", "channels"], 400_000, 0.95),
        (["--prune", "0.5", "--pattern", "channels", "--quantize", "int8"], 120_000, 0.95),
        (["--prune", "0.5", "--pattern", "nm"], 1_170_000, 0.98),
        (["--prune", "0.8", "--pattern", "block", "--keep", "/c1/Conv,/f2/Gemm"], 1_170_000, 0.975),
        (["--prune", "0.8", "--pattern", "block:1x4", "--keep", "/c1/Conv,/f2/Gemm", "--quantize", "int8"], 315_000, 0.975),
        (["--target-speedup", "1.5"], 700_000, 0.95),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_other_forms_keep_most_of_the_accuracy(options, bytes_max, accuracy, rows, tmp_path):
    told = report(DENSE, tmp_path, *options, *rows)
    assert told["bytes"][1] <= bytes_max
    assert told["compared"]["accuracy"][1] >= accuracy


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--prune", "0.5", "--keep", "nothing"], "no layer \"nothing\", expected some of /c1/Conv, /c2/Conv"),
        (["--quantize", "int8"], "--quantize int8 needs calibration rows"),
        (["--prune", "0.5", "--sensitivity"], "--sensitivity needs calibration rows"),
        (["--prune", "0.9", "--pattern", "nm:2:4"], "the pattern nm:2:4 has a share of its own, expected --prune 0.5"),
        (["--prune", "0.9", "--pattern", "channels", "--global"], "--pattern channels does not go together with --global"),
        (["--prune", "0.9", "--max-loss", "0.1"], "--max-loss needs rows to judge by"),
        (["--prune", "0.5", "--calibrate", "tests/fixtures/digits_test.npz"], "expected FP32, got UINT8"),
        (["--prune", "0.5", "--calibrate", "nowhere.npz"], "cannot read nowhere.npz"),
        (["--prune", "0.5", "--calibrate", "README.md"], "expected a zip file of arrays"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_refused(options, why, tmp_path):
    command = [binary(), "compress", str(DENSE), "-o", str(tmp_path / "out"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 1 and why in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(300)
def test_a_speedup_that_is_out_of_reach_leaves_nothing(rows, tmp_path):
    done = compress(DENSE, tmp_path / "out", "--target-speedup", "1000", *rows)
    assert done.returncode == 1 and "expected a model 1000 times as fast" in done.stderr
    assert not (tmp_path / "out").exists()
