"""A BERT encoder of safetensors, as Hugging Face names its weights, as ONNX: input_ids, attention_mask and token_type_ids to
last_hidden_state.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name


def encoder(folder: Path) -> onnx.ModelProto:
    config = json.loads((folder / "config.json").read_text())
    weights = {name.removeprefix("bert."): value for name, value in load_file(folder / "model.safetensors").items()}
    heads, width = config["num_attention_heads"], config["hidden_size"]
    graph = Graph()
    weight = lambda name: graph.constant(name, weights[name].astype(np.float32))

    def linear(x: str, name: str) -> str:
        matrix = graph.constant(f"{name}.weight", weights[f"{name}.weight"].astype(np.float32).T)
        return graph.node("Add", graph.node("MatMul", x, matrix), weight(f"{name}.bias"))

    def norm(x: str, name: str) -> str:
        return graph.node("LayerNormalization", x, weight(f"{name}.weight"), weight(f"{name}.bias"), axis=-1, epsilon=config["layer_norm_eps"])

    def split(x: str, order: list[int]) -> str:
        return graph.node("Transpose", graph.node("Reshape", x, "heads"), perm=order)

    graph.constant("heads", np.array([0, 0, heads, width // heads], dtype=np.int64))
    graph.constant("together", np.array([0, 0, width], dtype=np.int64))
    for name, value in (("one", 1.0), ("scale", (width // heads) ** 0.5), ("far", -10000.0), ("root", 2**0.5), ("half", 0.5)):
        graph.constant(name, np.array(value, dtype=np.float32))
    for name, value in (("zero", [0]), ("middle", [1, 2])):
        graph.constant(name, np.array(value, dtype=np.int64))

    words = graph.node("Gather", weight("embeddings.word_embeddings.weight"), "input_ids")
    kinds = graph.node("Gather", weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    tokens = graph.node("Shape", "input_ids", start=1, end=2)
    places = graph.node("Slice", weight("embeddings.position_embeddings.weight"), "zero", tokens, "zero")
    x = norm(graph.node("Add", graph.node("Add", words, kinds), places), "embeddings.LayerNorm")
    mask = graph.node("Unsqueeze", graph.node("Cast", "attention_mask", to=TensorProto.FLOAT), "middle")
    mask = graph.node("Mul", graph.node("Sub", "one", mask), "far")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        query = split(linear(x, f"{at}.attention.self.query"), [0, 2, 1, 3])
        key = split(linear(x, f"{at}.attention.self.key"), [0, 2, 3, 1])
        value = split(linear(x, f"{at}.attention.self.value"), [0, 2, 1, 3])
        scores = graph.node("Add", graph.node("Div", graph.node("MatMul", query, key), "scale"), mask)
        mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
        mixed = graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), "together")
        x = norm(graph.node("Add", linear(mixed, f"{at}.attention.output.dense"), x), f"{at}.attention.output.LayerNorm")
        wide = linear(x, f"{at}.intermediate.dense")
        bent = graph.node("Add", graph.node("Erf", graph.node("Div", wide, "root")), "one")
        wide = graph.node("Mul", graph.node("Mul", wide, bent), "half")
        x = norm(graph.node("Add", linear(wide, f"{at}.output.dense"), x), f"{at}.output.LayerNorm")
    graph.nodes[-1].output[0] = "last_hidden_state"
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask", "token_type_ids")]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", width])
    body = helper.make_graph(graph.nodes, "bert", inputs, [output], graph.constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


