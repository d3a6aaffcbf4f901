"""What each real model is asked: inputs of several sizes, made from fixtures or from a fixed seed.

Knows models and their inputs only; how they are sent and compared is the test's matter.
"""

from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures"
SEED = 20260101


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """2,000 test images as the network takes them, and their labels."""
    split = np.load(FIXTURES / "digits_test.npz")
    grey = np.round(split["images"] / 255, 3).astype(np.float32)
    return np.pad(grey, ((0, 0), (2, 2), (2, 2)))[:, None], split["labels"]


def images(count: int) -> dict:
    return {"image": digits()[0][:count]}


def rows(file: str, name: str, count: int) -> dict:
    return {name: np.load(FIXTURES / file)["x"][:count]}


def noise(name: str, *shape: int) -> dict:
    return {name: np.random.default_rng(SEED).standard_normal(shape, np.float32)}


def pixels(name: str, *shape: int, low: float = -1, high: float = 1) -> dict:
    """Smooth stripes with a little noise: closer to a picture than noise alone."""
    generator = np.random.default_rng(SEED)
    grid = np.indices(shape[-2:]).sum(axis=0) / 7
    stripes = (np.sin(grid) + 1) / 2 + generator.normal(0, 0.05, shape)
    return {name: (low + (high - low) * np.clip(stripes, 0, 1)).astype(np.float32)}


@cache
def file_bytes(count: int) -> dict:
    """The first and last 1,024 bytes of a file of this repository, padded by 256."""
    sources = ["Cargo.toml", "tests/clients/server.py", "tests/clients/run", "tests/fixtures/README.md"]
    batch = np.full((count, 2048), 256, np.int32)
    for row, source in zip(batch, sources, strict=False):
        content = np.frombuffer((ROOT / source).read_bytes(), np.uint8)
        head, tail = content[:1024], content[-1024:]
        row[: len(head)] = head
        row[2048 - len(tail) :] = tail
    return {"bytes": batch}


def chunks(count: int) -> dict:
    states = {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}
    return {"input": noise("", count, 576)[""] * np.float32(0.1), **states}


LENETS = ["digits", "lenet_mnist_pruned90", "lenet_mnist_oneshot98_bad"]
LENETS_INT8 = ["lenet_mnist_int8_qdq", "lenet_mnist_pruned90_int8_qdq", "lenet_mnist_int8_qop", "lenet_mnist_int8_dyn"]

# (model, label of the case) -> its inputs. Every output is compared.
CASES = {
    **{(model, f"{n} images"): lambda n=n: images(n) for model in LENETS for n in (1, 3, 32)},
    ("wine", "1 row"): lambda: rows("wine_test.npz", "X", 1),
    ("wine", "20 rows"): lambda: rows("wine_test.npz", "X", 20),
    ("iris_logreg", "20 rows"): lambda: rows("iris_test.npz", "X", 20),
    ("digits_mlp", "20 rows"): lambda: rows("digits_mlp_test.npz", "X", 20),
    ("vowels", "25 steps"): lambda: rows("vowels_test.npz", "series", 4),
    ("vowels", "7 steps"): lambda: {"series": rows("vowels_test.npz", "series", 2)["series"][:, :, :7]},
    ("gunpoint_fcn", "150 steps"): lambda: noise("series", 3, 1, 150),
    ("gunpoint_fcn", "61 steps"): lambda: noise("series", 1, 1, 61),
    ("magika", "1 file"): lambda: file_bytes(1),
    ("magika", "4 files"): lambda: file_bytes(4),
    ("ppocr_cls", "48x192"): lambda: pixels("x", 1, 3, 48, 192),
    ("ppocr_cls", "3 of 48x192"): lambda: pixels("x", 3, 3, 48, 192),
    ("ppocr_det", "96x96"): lambda: pixels("x", 1, 3, 96, 96),
    ("ppocr_det", "64x160"): lambda: pixels("x", 1, 3, 64, 160),
    ("ppocr_det", "160x96"): lambda: pixels("x", 1, 3, 160, 96),
    ("ppocr_rec", "48x160"): lambda: pixels("x", 1, 3, 48, 160),
    ("ppocr_rec", "48x320"): lambda: pixels("x", 1, 3, 48, 320),
    ("ppocr_rec", "2 of 48x96"): lambda: pixels("x", 2, 3, 48, 96),
    ("smart_turn", "1 window"): lambda: noise("input_features", 1, 80, 800),
    ("smart_turn", "2 windows"): lambda: noise("input_features", 2, 80, 800),
    ("silero_vad_sequence", "1 chunk"): lambda: chunks(1),
    ("silero_vad_sequence", "40 chunks"): lambda: chunks(40),
    ("open_nsfw", "1 image"): lambda: pixels("input:0", 1, 224, 224, 3, low=-120, high=130),
    ("open_nsfw", "2 images"): lambda: pixels("input:0", 2, 224, 224, 3, low=-120, high=130),
}

# int8 networks whose answers are compared on their last quantisation grid: two steps of it, as far as the
# oracle's own optimisation levels lie apart. smart_turn: a step of 0.0394 before a sigmoid of slope <= 1/4.
INT8_BOUNDS = {
    "smart_turn": 2 * 0.0394 / 4,
}

# Voice activity: the model, and samples of a chunk by the rate that they are taken at.
SILERO = [
    ("silero_vad", 16000, 576),
    ("silero_vad", 8000, 288),
    ("silero_vad_ifless", 16000, 576),
    ("silero_vad_ifless", 8000, 288),
    ("silero_vad_op15", 16000, 576),
    ("silero_vad_half", None, 576),
    ("silero_vad_fixed", None, 576),
]
