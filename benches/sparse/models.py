"""Models with zeros, from dense ones: python models.py DENSE_FOLDER OUTPUT_FOLDER."""

import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

LAYERS = ("Conv", "Gemm", "MatMul")


def weights_of(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.TensorProto]]:
    """Layers with constant weights, but the first convolution, which nobody prunes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = [(node, constants[node.input[1]]) for node in model.graph.node if node.op_type in LAYERS and node.input[1] in constants]
    return found[1:] if found[0][0].op_type == "Conv" else found


def has_outputs_first(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" or any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def prune(model: onnx.ModelProto, share: float, block: tuple[int, int]) -> None:
    """Leaves out the smallest blocks of so many outputs by so many inputs, in every layer as many."""
    rows, columns = block
    for node, tensor in weights_of(model):
        weights = numpy_helper.to_array(tensor)
        layer = weights if has_outputs_first(node) else weights.T
        outputs, inputs = layer.shape[:2]
        layer = layer.reshape(outputs, inputs, -1)
        taps = layer.shape[2]
        padded = numpy.zeros((-(-outputs // rows) * rows, -(-inputs // columns) * columns, taps))
        padded[:outputs, :inputs] = numpy.abs(layer)
        size = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns, taps).sum((1, 3))
        least = numpy.partition(size.ravel(), int(size.size * share))[int(size.size * share)]
        kept = numpy.repeat(numpy.repeat(size >= least, rows, 0), columns, 1)[:outputs, :inputs]
        pruned = (layer * kept).reshape((weights if has_outputs_first(node) else weights.T).shape)
        pruned = pruned if has_outputs_first(node) else pruned.T
        tensor.CopyFrom(numpy_helper.from_array(numpy.ascontiguousarray(pruned), tensor.name))


def folded(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """With batch normalisation in the weights."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def ranges(model: onnx.ModelProto, values: set[str]) -> dict[str, tuple[float, float]]:
    """The least and the greatest element of values, for made-up inputs."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    given = {value.name for value in probe.graph.input} | {value.name for value in probe.graph.output}
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in values - given)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {}
    for value in session.get_inputs():
        shape = [extent if isinstance(extent, int) else 1 for extent in value.shape]
        random = numpy.random.default_rng(0).random(shape, numpy.float32)
        inputs[value.name] = random if "float" in value.type else numpy.ones(shape, numpy.int64)
    made = dict(zip((value.name for value in session.get_outputs()), session.run(None, inputs))) | inputs
    return {name: (min(0.0, float(made[name].min())), max(0.0, float(made[name].max()))) for name in values}


def in_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Layers as products of integers that are cast, scaled and given a bias."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in LAYERS and node.input[1] in constants]
    known = ranges(model, {node.input[0] for node in layers})
    nodes, more, done = [], [], {}

    def constant(name: str, value) -> str:
        more.append(numpy_helper.from_array(numpy.ascontiguousarray(value), name))
        return name

    def quantized(value: str) -> tuple[str, str, float]:
        if value not in done:
            low, high = known[value]
            scale = max((high - low) / 255, 1e-8)
            zero = constant(f"{value}_zero", numpy.array(round(-low / scale), numpy.uint8))
            operands = [value, constant(f"{value}_scale", numpy.array(scale, numpy.float32)), zero]
            nodes.append(helper.make_node("QuantizeLinear", operands, [f"{value}_q"]))
            done[value] = (f"{value}_q", zero, scale)
        return done[value]

    for node in model.graph.node:
        if node not in layers:
            nodes.append(node)
            continue
        x, zero, scale = quantized(node.input[0])
        weights, out = numpy_helper.to_array(constants[node.input[1]]), node.output[0]
        if node.op_type == "Gemm" and has_outputs_first(node):
            weights = weights.T
        unit = max(float(numpy.abs(weights).max()) / 127, 1e-8)
        integers = numpy.clip(numpy.round(weights / unit), -127, 127).astype(numpy.int8)
        operands = [x, constant(f"{out}_w", integers), zero, constant(f"{out}_wz", numpy.array(0, numpy.int8))]
        product = helper.make_node("ConvInteger" if node.op_type == "Conv" else "MatMulInteger", operands, [f"{out}_i"])
        if node.op_type == "Conv":
            product.attribute.extend(node.attribute)
        has_bias = len(node.input) > 2 and node.input[2]
        scaled = f"{out}_m" if has_bias else out
        nodes += [
            product,
            helper.make_node("Cast", [f"{out}_i"], [f"{out}_f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}_f", constant(f"{out}_s", numpy.array(scale * unit, numpy.float32))], [scaled]),
        ]
        if has_bias:
            bias = numpy_helper.to_array(constants[node.input[2]])
            bias = bias.reshape(1, -1, 1, 1) if node.op_type == "Conv" else bias
            nodes.append(helper.make_node("Add", [scaled, constant(f"{out}_b", bias)], [out]))
    taken = {name for node in nodes for name in node.input}
    left = [tensor for tensor in model.graph.initializer if tensor.name in taken]
    return at_opset_13(nodes, model, left + more)


def at_opset_13(nodes, model: onnx.ModelProto, constants) -> onnx.ModelProto:
    for node in nodes:
        # Zero, the default, says nothing, and is not known to it.
        kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
    graph = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    made.ir_version = 7
    return made


def main() -> None:
    dense, output = map(Path, sys.argv[1:])
    output.mkdir(parents=True, exist_ok=True)
    for name, shares in (("resnet50", (0.8, 0.9, 0.95)), ("bert", (0.9, 0.95)), ("mlp", (0.9,))):
        for share in shares:
            for block in ((1, 1), (1, 4)) if share == 0.9 else ((1, 1),):
                model = onnx.load(dense / f"{name}.onnx")
                prune(model, share, block)
                made = f"{name}_{round(share * 100)}_{block[0]}x{block[1]}"
                if block == (1, 1):
                    onnx.save(at_opset_13(list(model.graph.node), model, model.graph.initializer), output / f"{made}.onnx")
                if share == 0.9:
                    whole = folded(model, output / "folded.onnx")
                    onnx.save(in_integers(whole), output / f"{made}_integers.onnx")
    (output / "folded.onnx").unlink()


if __name__ == "__main__":
    main()
