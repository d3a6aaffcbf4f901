"""The model repository of the client tests: tiny ONNX models whose answers are known by heart.

Every model is written here by onnx.helper; nothing is trained and nothing is downloaded.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

# Open Inference Protocol name -> ONNX element type.
DATATYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
CLASSES = ["ant", "bee", "cicada", "dragonfly", "earwig", "firefly"]
CONFIGURED_BATCH_MAX = 4
SLOW_WIDTH = 256
SLOW_LAYERS = 96


def write_zoo(repository: Path) -> None:
    for datatype, element in DATATYPES.items():
        save(repository / f"identity_{datatype.lower()}", identity(element, ["batch", "width"]))
    for datatype in ("FP32", "INT64", "BYTES"):
        save(repository / f"scalar_{datatype.lower()}", identity(DATATYPES[datatype], []))
    save(repository / "one_text", identity(DATATYPES["BYTES"], ["batch", 1]))
    save(repository / "add", add())
    save(repository / "sum_difference", sum_difference())
    save(repository / "fixed", fixed_batch())
    save(repository / "mixes_rows", mixes_rows())
    save(repository / "labelled", identity(DATATYPES["FP32"], ["batch", 3]))
    (repository / "labelled" / "labels.txt").write_text("low\nmiddle\nhigh\n")
    manifest(repository / "labelled", outputs='[{ name = "y", labels_file = "labels.txt" }]')
    write_slow(repository)
    # A model of this name must not hide the statistics of all models.
    save(repository / "stats", identity(DATATYPES["FP32"], ["batch", "width"]))
    for version in (1, 2):
        save(repository / "latest", plus(version), version)
    for version in (1, 2, 3):
        save(repository / "versions", plus(version), version)
    (repository / "versions" / "config.pbtxt").write_text(
        'name: "versions"\nplatform: "onnxruntime_onnx"\nversion_policy { specific { versions: [1, 3] } }\n'
    )
    write_configured(repository / "configured")


def write_slow(repository: Path) -> None:
    """The same slow network, queued in the ways that the tests of queues need."""
    one_at_a_time = {"batching.batch_size_max": "1", "instances.max": "1"}
    save(repository / "slow", slow())
    save(repository / "slow_single", slow())
    manifest(
        repository / "slow_single",
        one_at_a_time
        | {
            "batching.allow_timeout_override": "true",
            "batching.priority_levels": "2",
            "batching.default_priority": "2",
        },
    )
    save(repository / "slow_short_queue", slow())
    manifest(repository / "slow_short_queue", one_at_a_time | {"batching.queue_requests_max": "2"})
    save(repository / "slow_delaying", slow())
    manifest(
        repository / "slow_delaying",
        one_at_a_time
        | {
            "batching.allow_timeout_override": "true",
            "batching.timeout_action": '"delay"',
        },
    )
    save(repository / "slow_batching", slow())
    manifest(repository / "slow_batching", {"batching.batch_size_max": "8", "instances.max": "1"})


def manifest(folder: Path, settings: dict[str, str] | None = None, **more: str) -> None:
    """Settings as dotted TOML keys."""
    lines = [f"{key} = {value}" for key, value in ((settings or {}) | more).items()]
    (folder / "manifest.toml").write_text("\n".join(lines) + "\n")


def write_configured(folder: Path) -> None:
    """What a Triton user has on disk: a batch bound, labels, a queue policy."""
    width = len(CLASSES)
    save(folder, identity(DATATYPES["FP32"], ["batch", width], "scores", "ranked"))
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "config.pbtxt").write_text(
        f"""name: "configured"
platform: "onnxruntime_onnx"
max_batch_size: {CONFIGURED_BATCH_MAX}
input [ {{ name: "scores" data_type: TYPE_FP32 dims: [ {width} ] }} ]
output [ {{ name: "ranked" data_type: TYPE_FP32 dims: [ {width} ] label_filename: "labels.txt" }} ]
dynamic_batching {{
  max_queue_delay_microseconds: 1000
  priority_levels: 2
  default_priority_level: 1
}}
"""
    )


def identity(element: int, shape: list, source: str = "x", target: str = "y"):
    return model(
        [helper.make_node("Identity", [source], [target])],
        [helper.make_tensor_value_info(source, element, shape)],
        [helper.make_tensor_value_info(target, element, shape)],
    )


def add():
    shape = ["batch", 16]
    return model(
        [helper.make_node("Add", ["left", "right"], ["sum"])],
        [f32("left", shape), f32("right", shape)],
        [f32("sum", shape)],
    )


def sum_difference():
    shape = ["batch", 16]
    return model(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [f32("INPUT0", shape), f32("INPUT1", shape)],
        [f32("OUTPUT0", shape), f32("OUTPUT1", shape)],
    )


def fixed_batch():
    """Axis 0 is 2 and nothing else: never merged, never split."""
    return model([helper.make_node("Neg", ["x"], ["y"])], [f32("x", [2, 4])], [f32("y", [2, 4])])


def mixes_rows():
    """Each answer depends on every row of its request, so requests must not share a batch."""
    shape = ["batch", 4]
    return model([helper.make_node("Softmax", ["x"], ["y"], axis=0)], [f32("x", shape)], [f32("y", shape)])


def plus(number: int):
    shape = ["batch", 4]
    return model(
        [helper.make_node("Add", ["x", "number"], ["y"])],
        [f32("x", shape)],
        [f32("y", shape)],
        {"number": np.array([number], np.float32)},
    )


def slow(layers: int = SLOW_LAYERS):
    """A chain of matrix products, several milliseconds a row on any machine of today.

    The matrix is a scaled reflection, its own inverse up to rounding: nothing grows or fades. Bounds that nothing reaches
    keep products from being one.
    """
    width = SLOW_WIDTH
    direction = np.random.default_rng(7).standard_normal((width, 1))
    direction /= np.linalg.norm(direction)
    reflection = (np.eye(width) - 2 * direction @ direction.T).astype(np.float32)
    nodes = [helper.make_node("Mul", ["x", "ones"], ["layer0"])]
    for layer in range(layers):
        nodes.append(helper.make_node("MatMul", [f"layer{layer}", "matrix"], [f"product{layer}"]))
        nodes.append(helper.make_node("Clip", [f"product{layer}", "least", "most"], [f"layer{layer + 1}"]))
    nodes.append(helper.make_node("ReduceMean", [f"layer{layers}"], ["y"], axes=[1], keepdims=1))
    return model(
        nodes,
        [f32("x", ["batch", 1, width])],
        [f32("y", ["batch", 1, width])],
        {
            "ones": np.ones((1, width, 1), np.float32),
            "matrix": reflection,
            "least": np.float32(-1e30),
            "most": np.float32(1e30),
        },
    )


def f32(name: str, shape: list):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray] | None = None):
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "zoo", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(folder: Path, built, version: int = 1) -> None:
    version_folder = folder / str(version)
    version_folder.mkdir(parents=True, exist_ok=True)
    save_model(built, version_folder / "model.onnx")
