"""Writes standard networks with made-up weights: `models.py FOLDER`. Speed does not depend on the weights but through their zeros."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8


class Network:
    """Nodes and weights in the order they are added; each method returns the name of its output."""

    def __init__(self, opset: int = OPSET, ir_version: int = IR_VERSION) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.nodes: list = []
        self.weights: list = []
        self.random = np.random.default_rng(0)

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(self, op: str, *inputs: str, **attributes) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        """Convolution and batch normalisation, as training leaves them."""
        depth = inputs // groups
        weights = self.random.normal(0, (2 / (depth * kernel * kernel)) ** 0.5, (outputs, depth, kernel, kernel))
        pad = kernel // 2
        y = self.node(
            "Conv", x, self.constant(weights), kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, group=groups
        )
        statistics = [self.random.uniform(0.5, 1.5, outputs) for _ in range(2)] + [self.random.normal(0, 0.1, outputs)]
        scale, variance, shift = statistics
        mean = self.random.normal(0, 0.1, outputs)
        return self.node("BatchNormalization", y, *[self.constant(part) for part in (scale, shift, mean, variance)])

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def classifier(self, x: str, inputs: int, outputs: int) -> str:
        flat = self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)
        weights = self.random.normal(0, inputs**-0.5, (outputs, inputs))
        return self.node("Gemm", flat, self.constant(weights), self.constant(np.zeros(outputs)), transB=1)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        weights = self.constant(self.random.normal(0, inputs**-0.5, (inputs, outputs)))
        return self.node("Add", self.node("MatMul", x, weights), self.constant(self.random.normal(0, 0.1, outputs)))

    def layer_norm(self, x: str, width: int) -> str:
        """In pieces, as exporters write it below opset 17."""
        difference = self.node("Sub", x, self.node("ReduceMean", x, axes=[-1]))
        variance = self.node("ReduceMean", self.node("Pow", difference, self.constant(np.float32(2))), axes=[-1])
        deviation = self.node("Sqrt", self.node("Add", variance, self.constant(np.float32(1e-12))))
        normalized = self.node("Div", difference, deviation)
        scaled = self.node("Mul", normalized, self.constant(self.random.uniform(0.5, 1.5, width)))
        return self.node("Add", scaled, self.constant(self.random.normal(0, 0.1, width)))

    def gelu(self, x: str) -> str:
        step = self.node("Erf", self.node("Div", x, self.constant(np.float32(2**0.5))))
        raised = self.node("Add", step, self.constant(np.float32(1)))
        return self.node("Mul", self.node("Mul", x, raised), self.constant(np.float32(0.5)))

    def integers(self, *values: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def halves(self, integers: np.ndarray, data_type: int) -> str:
        """Integers of four bits, two in a byte."""
        name = f"w{len(self.weights)}"
        nibbles = (integers.astype(np.int64) & 15).astype(np.uint8).ravel()
        packed = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
        self.weights.append(TensorProto(name=name, data_type=data_type, dims=integers.shape, raw_data=packed))
        return name

    def heads(self, x: str, width: int, heads: int, axes: list[int]) -> str:
        return self.node("Transpose", self.node("Reshape", x, self.integers(0, 0, heads, width // heads)), perm=axes)

    def model(self, output: str, row: list[int], outputs: int) -> onnx.ModelProto:
        return self.model_of(
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *row])],
            helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", outputs]),
        )

    def model_of(self, inputs: list, output) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "bench", inputs, [output], self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=self.ir_version)
        onnx.checker.check_model(made)
        return made


def resnet50() -> onnx.ModelProto:
    """He et al., "Deep Residual Learning for Image Recognition", 2016; 4.1 GMAC. Strides in the 3x3 convolutions."""
    net = Network()
    x = net.relu(net.conv("x", 3, 64, 7, 2))
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = 64
    for width, blocks, first in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for block in range(blocks):
            stride = first if block == 0 else 1
            y = net.relu(net.conv(x, inputs, width, 1))
            y = net.relu(net.conv(y, width, width, 3, stride))
            y = net.conv(y, width, 4 * width, 1)
            if block == 0:
                x = net.conv(x, inputs, 4 * width, 1, stride)
            x = net.relu(net.node("Add", y, x))
            inputs = 4 * width
    return net.model(net.classifier(x, 2048, 1000), [3, 224, 224], 1000)


def mobilenetv2() -> onnx.ModelProto:
    """Sandler et al., "MobileNetV2", 2018; 0.3 GMAC."""
    net = Network()

    def relu6(x: str) -> str:
        return net.node("Clip", x, net.constant(np.float32(0)), net.constant(np.float32(6)))

    x = relu6(net.conv("x", 3, 32, 3, 2))
    inputs = 32
    for expand, outputs, blocks, first in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:
        for block in range(blocks):
            stride = first if block == 0 else 1
            width = inputs * expand
            y = relu6(net.conv(x, inputs, width, 1)) if expand > 1 else x
            y = relu6(net.conv(y, width, width, 3, stride, groups=width))
            y = net.conv(y, width, outputs, 1)
            x = net.node("Add", x, y) if stride == 1 and inputs == outputs else y
            inputs = outputs
    x = relu6(net.conv(x, inputs, 1280, 1))
    return net.model(net.classifier(x, 1280, 1000), [3, 224, 224], 1000)


def mlp() -> onnx.ModelProto:
    net = Network()
    x, widths = "x", [784, 512, 512, 10]
    for index, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        weights = net.constant(net.random.normal(0, inputs**-0.5, (inputs, outputs)))
        x = net.node("Gemm", x, weights, net.constant(np.zeros(outputs)))
        if index < len(widths) - 2:
            x = net.relu(x)
    return net.model(x, [784], 10)


def encoder(layers: int, width: int) -> onnx.ModelProto:
    """Devlin et al., "BERT", 2019, for 128 tokens, twelve heads, a tenth of the vocabulary."""
    net, tokens, heads = Network(), 128, 12
    words, places, kinds = [net.constant(net.random.normal(0, 1, (count, width))) for count in (3000, 512, 2)]
    x = net.node("Add", net.node("Gather", words, "input_ids"), net.node("Gather", kinds, "token_type_ids"))
    x = net.node("Add", x, net.node("Gather", places, net.integers(*range(tokens))))
    x = net.layer_norm(x, width)
    seen = net.node("Cast", net.node("Unsqueeze", "attention_mask", net.integers(1, 2)), to=TensorProto.FLOAT)
    hidden = net.node("Sub", net.constant(np.float32(1)), seen)
    mask = net.node("Mul", hidden, net.constant(np.float32(-10000)))
    for _ in range(layers):
        q = net.heads(net.linear(x, width, width), width, heads, [0, 2, 1, 3])
        k = net.heads(net.linear(x, width, width), width, heads, [0, 2, 3, 1])
        v = net.heads(net.linear(x, width, width), width, heads, [0, 2, 1, 3])
        scores = net.node("Div", net.node("MatMul", q, k), net.constant(np.float32((width // heads) ** 0.5)))
        weights = net.node("Softmax", net.node("Add", scores, mask), axis=-1)
        mixed = net.node("Transpose", net.node("MatMul", weights, v), perm=[0, 2, 1, 3])
        mixed = net.linear(net.node("Reshape", mixed, net.integers(0, 0, width)), width, width)
        x = net.layer_norm(net.node("Add", mixed, x), width)
        wide = net.gelu(net.linear(x, width, 4 * width))
        x = net.layer_norm(net.node("Add", net.linear(wide, 4 * width, width), x), width)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", tokens]) for name in names]
    return net.model_of(inputs, helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", tokens, width]))


def minilm() -> onnx.ModelProto:
    """Wang et al., "MiniLM", 2020, of six layers; 1.4 GMAC."""
    return encoder(6, 384)


def bert() -> onnx.ModelProto:
    return encoder(12, 768)


def trees(dtype: type) -> onnx.ModelProto:
    """A regressor of 500 full trees of depth 8 over 50 features."""
    count, depth, features, random = 500, 8, 50, np.random.default_rng(0)
    branches, nodes = (1 << depth) - 1, (2 << depth) - 1
    numbers = np.tile(np.arange(nodes), count)
    owners = np.repeat(np.arange(count), nodes)
    is_branch = numbers < branches
    thresholds = np.where(is_branch, random.normal(0, 0.7, numbers.size), 0).astype(dtype)
    weights = random.normal(0, 0.1, count * (branches + 1)).astype(dtype)
    is_wide = dtype == np.float64
    made = {"nodes_values": thresholds, "target_weights": weights}
    made = {f"{k}_as_tensor": numpy_helper.from_array(v) for k, v in made.items()} if is_wide else {k: v.tolist() for k, v in made.items()}
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=owners.tolist(),
        nodes_nodeids=numbers.tolist(),
        nodes_featureids=np.where(is_branch, random.integers(0, features, numbers.size), 0).tolist(),
        nodes_modes=["BRANCH_LEQ" if branch else "LEAF" for branch in is_branch],
        nodes_truenodeids=np.where(is_branch, 2 * numbers + 1, 0).tolist(),
        nodes_falsenodeids=np.where(is_branch, 2 * numbers + 2, 0).tolist(),
        target_treeids=owners[~is_branch].tolist(),
        target_nodeids=numbers[~is_branch].tolist(),
        target_ids=[0] * weights.size,
        **made,
    )
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE if is_wide else TensorProto.FLOAT, ["N", features])
    graph = helper.make_graph([node], "bench", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def pruned(make, zeros: float) -> onnx.ModelProto:
    """With the smallest weights of every layer but the last replaced by zeros, wherever they are."""
    made = make()
    matrices = [tensor for tensor in made.graph.initializer if len(tensor.dims) == 2]
    for tensor in matrices[:-1]:
        weights = numpy_helper.to_array(tensor)
        kept = np.abs(weights) >= np.quantile(np.abs(weights), zeros)
        tensor.CopyFrom(numpy_helper.from_array(weights * kept, tensor.name))
    return made


WIDTH, LAYERS = 4096, 4


def wide(form: str = "") -> onnx.ModelProto:
    """Layers whose weights lie beyond the caches in FP32 and in bytes. Their form: FP32, `int4` with a scale for each column,
    `int4_32` with one for each 32 of its elements, `codebook` of 16 multiples of bytes, `ternary`, `binary`."""
    # Integers of four bits came with these versions.
    net, x = Network(opset=21, ir_version=10), "x"
    for layer in range(LAYERS):
        weights = net.random.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
        product = net.node("MatMul", x, low_bit(net, weights, form) if form else net.constant(weights))
        x = net.node("Add", product, net.constant(net.random.normal(0, 0.1, WIDTH)))
        x = net.relu(x) if layer + 1 < LAYERS else x
    return net.model(x, [WIDTH], WIDTH)


def low_bit(net: Network, weights: np.ndarray, form: str) -> str:
    """The nearest weights of a form."""
    if form == "codebook":
        table = np.quantile(weights, np.linspace(0.01, 0.99, 16))
        unit = np.float32(np.abs(table).max() / 127)
        table = (np.round(table / unit) * unit).astype(np.float32)
        places = np.digitize(weights, (table[1:] + table[:-1]) / 2)
        wide_places = net.node("Cast", net.halves(places, TensorProto.UINT4), to=TensorProto.INT64)
        return net.node("Gather", net.constant(table), wide_places, axis=0)
    if form in ("ternary", "binary"):
        zero = 0.7 * np.abs(weights).mean(0) if form == "ternary" else 0.0
        integers = np.where(np.abs(weights) > zero, np.where(weights < 0, -1, 1), 0)
        scales = (np.abs(weights) * (integers != 0)).sum(0) / np.maximum((integers != 0).sum(0), 1)
        return net.node("DequantizeLinear", net.halves(integers, TensorProto.INT4), net.constant(scales), axis=1)
    block = 32 if form == "int4_32" else WIDTH
    blocks = weights.reshape(WIDTH // block, block, WIDTH)
    scales = np.abs(blocks).max(1) / 7
    integers = np.clip(np.round(blocks / scales[:, None]), -8, 7).reshape(weights.shape)
    codes = net.halves(integers, TensorProto.INT4)
    if block == WIDTH:
        return net.node("DequantizeLinear", codes, net.constant(scales[0]), axis=1)
    return net.node("DequantizeLinear", codes, net.constant(scales), axis=0, block_size=block)


MODELS = {
    "bert": bert,
    "minilm": minilm,
    "mlp": mlp,
    "mlp_pruned90": lambda: pruned(mlp, 0.9),
    "mobilenetv2": mobilenetv2,
    "resnet50": resnet50,
    "trees": lambda: trees(np.float32),
    "trees_f64": lambda: trees(np.float64),
    "wide": wide,
    **{f"wide_{form}": partial(wide, form) for form in ("binary", "codebook", "int4", "int4_32", "ternary")},
}
QUANTIZED = ["minilm", "mlp", "mobilenetv2", "resnet50"]
QUANTIZED_DYNAMICALLY = ["minilm", "wide"]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        place = folder / f"{name}.onnx"
        if not place.exists():
            onnx.save(make(), place)
        if name in QUANTIZED and not (folder / f"{name}_int8.onnx").exists():
            quantize(place, folder / f"{name}_int8.onnx")
        if name in QUANTIZED_DYNAMICALLY and not (folder / f"{name}_dynamic.onnx").exists():
            quantize_dynamically(place, folder / f"{name}_dynamic.onnx")


def quantize(source: Path, target: Path) -> None:
    """Static quantization as ONNX Runtime's users do it: QDQ, unsigned activations, a scale for each channel of weights."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    values = onnx.load(source).graph.input

    def made_up(random: np.random.Generator, value) -> np.ndarray:
        shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == TensorProto.INT64:
            return random.integers(0, 2, shape)
        return random.standard_normal(shape).astype(np.float32)

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            random = np.random.default_rng(2)
            self.rows = iter([{value.name: made_up(random, value) for value in values} for _ in range(4)])

        def get_next(self):
            return next(self.rows, None)

    prepared = target.with_suffix(".prepared")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(prepared), str(target), Rows(), quant_format=QuantFormat.QDQ, per_channel=True, **types)
    prepared.unlink()


def quantize_dynamically(source: Path, target: Path) -> None:
    """Activations get their scale while the model runs, as transformers are quantized most."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8)


if __name__ == "__main__":
    main()
