"""Writes the models every server serves: `models.py FOLDER [COPIES]`. Layout: <model>/1/model.onnx, input x, output y."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTHS = {"add16": 16, "mlp": 784, "add150528": 150_528}  # floats of one request; the large one last, for RSS only grows
OPSET, IR_VERSION = 17, 8  # what the oldest peer reads


def write_all(folder: Path) -> None:
    save(add(16), folder, "add16")
    save(add(150_528), folder, "add150528")
    save(mlp([784, 512, 512, 10]), folder, "mlp")


def write_copies(folder: Path, copies: int) -> None:
    """A repository for the idle measurement: the same small model under many names."""
    for index in range(copies):
        save(add(16), folder, f"add16_{index}" if index else "add16")


def add(width: int) -> onnx.ModelProto:
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    return model([helper.make_node("Add", ["x", "one"], ["y"])], width, width, [one])


def mlp(widths: list[int]) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for index, (rows, columns) in enumerate(zip(widths, widths[1:])):
        last = index == len(widths) - 2
        kernel = random.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)
        weights += [numpy_helper.from_array(kernel, f"w{index}"), numpy_helper.from_array(np.zeros(columns, np.float32), f"b{index}")]
        out = "y" if last else f"h{index}"
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [out]))
        if not last:
            value = f"r{index}"
            nodes.append(helper.make_node("Relu", [out], [value]))
    return model(nodes, widths[0], widths[-1], weights)


def model(nodes: list, inputs: int, outputs: int, weights: list) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs])
    graph = helper.make_graph(nodes, "bench", [x], [y], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(made)
    return made


def save(made: onnx.ModelProto, folder: Path, name: str) -> None:
    version = folder / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    onnx.save(made, version / "model.onnx")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        write_copies(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        write_all(Path(sys.argv[1]))
