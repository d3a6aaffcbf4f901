"""A picture and a sentence as a client has them, against the pipelines that their authors run in Python.

RapidOCR's classifier of direction (OpenCV), Yahoo's open_nsfw (Pillow) and all-MiniLM-L6-v2 (Hugging Face's tokenizers, sentence-transformers'
pooling), each with ONNX Runtime in the middle: answers within 1e-3.
"""

import base64
import io
import json
import math
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image, ImageDraw
from tokenizers import Tokenizer

from bert import encoder
from server import Server
from wires import WIRES, refused

BUILD = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[2] / "target"))
NEAR = 1e-3

DIRECTION = """
[[steps]]
[steps.image]
height = 48
width = 192
fit = "height"
like = "opencv"
colour = "BGR"
white = 1.0
mean = [0.5]
std = [0.5]
padding = [127.5]

[[steps]]
model = "ppocr_cls"

[[steps]]
[steps.labels]
names = ["0", "180"]
"""

NSFW = """
[[steps]]
[steps.image]
width = 224
height = 224
fit = "crop"
resize_to = [256, 256]
colour = "BGR"
layout = "NHWC"
mean = [104.0, 117.0, 123.0]

[[steps]]
model = "open_nsfw"

[[steps]]
labels = { names_file = "labels.txt", top = 2 }
"""

SENTENCE = """
[[steps]]
text = { tokens_max = 256, padding = "longest", outputs = ["input_ids", "attention_mask", "token_type_ids"] }

[[steps]]
file = "model.onnx"

[[steps]]
pool = { mode = "mean", normalize = true }
"""

SENTENCES = [
    "That is a happy person",
    "That is a very happy person",
    "Today is a sunny day",
    "Ein Satz mit Umlauten: Äpfel, Öl, Übermut \u2014 und 42 Zahlen!",
    "word " * 400,
    "",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    real = BUILD / "real-models"
    for name in ("ppocr_cls", "open_nsfw"):
        (root / name / "1").mkdir(parents=True)
        os.link(real / name / "1" / "model.onnx", root / name / "1" / "model.onnx")
    write(root / "direction", DIRECTION)
    write(root / "nsfw", NSFW)
    (root / "nsfw" / "1").mkdir()
    (root / "nsfw" / "1" / "labels.txt").write_text("safe\nunsafe\n")
    write(root / "sentence", SENTENCE)
    weights = BUILD / "real-weights" / "minilm"
    (root / "sentence" / "1").mkdir()
    os.link(weights / "tokenizer.json", root / "sentence" / "1" / "tokenizer.json")
    onnx.save(encoder(weights), root / "sentence" / "1" / "model.onnx")
    return root


def write(folder: Path, manifest: str) -> None:
    folder.mkdir()
    (folder / "manifest.toml").write_text(manifest)


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    with Server([models], tmp_path_factory.mktemp("log") / "log") as running:
        yield running


@pytest.fixture(params=WIRES)
def wire(request, server):
    return WIRES[request.param](server)


@pytest.fixture(params=["rest-binary", "grpc"])
def bytes_wire(request, server):
    """JSON has no form for bytes that are no text."""
    return WIRES[request.param](server)


def line_of_text(words: str, width: int, is_turned: bool) -> Image.Image:
    image = Image.new("RGB", (width, 40), (235, 230, 220))
    ImageDraw.Draw(image).text((8, 4), words, fill=(20, 30, 60), font_size=26)
    return image.rotate(180) if is_turned else image


def scene(seed: int, size: tuple[int, int]) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8), "RGB").resize(size, Image.BICUBIC)
    drawing = ImageDraw.Draw(coarse)
    for _ in range(12):
        x, y = random.integers(0, size[0]), random.integers(0, size[1])
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        drawing.ellipse((x - 40, y - 30, x + 40, y + 30), fill=colour)
    return coarse


def encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 92} if form == "JPEG" else {}))
    return buffer.getvalue()


def session(models: Path, name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(models / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def direction_in_python(run: onnxruntime.InferenceSession, file: bytes) -> np.ndarray:
    """What RapidOCR does with one picture."""
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    width = min(192, math.ceil(48 * image.shape[1] / image.shape[0]))
    resized = cv2.resize(image, (width, 48)).astype(np.float32).transpose(2, 0, 1) / 255
    padded = np.zeros((3, 48, 192), np.float32)
    padded[:, :, :width] = (resized - 0.5) / 0.5
    return run.run(None, {run.get_inputs()[0].name: padded[None]})[0][0]


def nsfw_in_python(run: onnxruntime.InferenceSession, file: bytes) -> np.ndarray:
    """The authors' pipeline but for its second JPEG of what it has cropped."""
    image = Image.open(io.BytesIO(file)).convert("RGB").resize((256, 256), Image.BILINEAR).crop((16, 16, 240, 240))
    values = np.asarray(image, np.float32)[:, :, ::-1] - np.array([104, 117, 123], np.float32)
    return run.run(None, {run.get_inputs()[0].name: values[None]})[0][0]


def sentences_in_python(run: onnxruntime.InferenceSession, folder: Path, texts: list[str]) -> np.ndarray:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    all_of_them = tokenizer.encode_batch(texts)
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    inputs = {name: np.array([getattr(text, of) for text in all_of_them]) for name, of in fields.items()}
    hidden = run.run(None, inputs)[0]
    mask = inputs["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / np.clip(mask.sum(1), 1e-9, None)
    return mean / np.clip(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12, None)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_picture_is_classified_as_rapidocr_does(models, bytes_wire, form):
    run = session(models, "ppocr_cls")
    lines = [("Kinglet serves", 240), ("A long line of text, for sure", 420)]
    # Decoders of JPEG differ in how they spread colours at edges (docs/steps.md): of so few pixels a network can see that.
    lines += [("No", 60)] if form == "PNG" else []
    for words, width in lines:
        for is_turned in (False, True):
            file = encoded(line_of_text(words, width, is_turned), form)
            expected = direction_in_python(run, file)
            answer = bytes_wire.infer("direction", {"image": np.array([file], object)}, ["labels", "scores"])
            label, score = answer["labels"].ravel()[0], answer["scores"].ravel()[0]
            assert label == [b"0", b"180"][expected.argmax()], (words, is_turned)
            assert abs(score - expected.max()) < NEAR, (words, is_turned, score, expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_pictures_are_classified_as_pillow_and_onnxruntime_do(models, bytes_wire, form):
    run = session(models, "open_nsfw")
    files = [encoded(scene(seed, size), form) for seed, size in enumerate([(640, 480), (224, 224), (300, 900), (97, 53)])]
    answer = bytes_wire.infer("nsfw", {"image": np.array(files, object)}, ["labels", "scores"])
    for file, labels, scores in zip(files, answer["labels"], answer["scores"]):
        expected = nsfw_in_python(run, file)
        of = dict(zip(labels, scores))
        assert abs(of[b"safe"] - expected[0]) < NEAR and abs(of[b"unsafe"] - expected[1]) < NEAR, (of, expected)


def test_sentences_have_the_vectors_of_their_authors(models, wire):
    folder = models / "sentence" / "1"
    run = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    texts = np.array([text.encode() for text in SENTENCES], object)
    vectors = wire.infer("sentence", {"text": texts}, ["embedding"])["embedding"]
    expected = sentences_in_python(run, folder, SENTENCES)
    assert vectors.shape == (len(SENTENCES), 384)
    np.testing.assert_allclose(vectors, expected, atol=NEAR)
    alike = vectors @ vectors.T
    assert alike[0, 1] > 0.9 > 0.5 > alike[0, 2], "a model that knows what sentences mean"


def test_curl_sends_a_file_and_reads_a_label(server):
    """As JSON, text stays text; a picture goes as raw bytes after its length, or as base64 in v1."""
    file = encoded(line_of_text("upside down", 220, True), "PNG")
    body = json.dumps({"instances": [{"b64": base64.b64encode(file).decode()}]}).encode()
    request = urllib.request.Request(f"http://{server.http}/v1/models/direction:predict", body)
    prediction = json.load(urllib.request.urlopen(request))["predictions"][0]
    assert prediction["labels"] == ["180"], prediction
    one = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["Today is a sunny day"]}
    request = urllib.request.Request(f"http://{server.http}/v2/models/sentence/infer", json.dumps({"inputs": [one]}).encode())
    assert json.load(urllib.request.urlopen(request))["outputs"][0]["shape"] == [1, 384]


def test_hostile_inputs_are_refused_by_name(bytes_wire):
    png = encoded(scene(1, (60, 40)), "PNG")
    for file in (b"", b"GIF89a", png[:40], png[:16] + b"\xff" * 8 + png[24:]):
        refused(lambda: bytes_wire.infer("direction", {"image": np.array([file], object)}, ["labels"]), "invalid", 'step "image"')
    text = np.array([b"\xff\xfe"], object)
    refused(lambda: bytes_wire.infer("sentence", {"text": text}, ["embedding"]), "invalid", 'step "text"', "UTF-8")


def test_a_broken_picture_costs_no_other(models, server):
    """Pictures that come together share a batch; the broken one alone is refused."""
    good = encoded(line_of_text("good", 200, False), "PNG")

    def ask(at: int):
        file = good if at % 3 else good[:100]
        try:
            WIRES["grpc"](server).infer("direction", {"image": np.array([file], object)}, ["labels"])
            return True
        except Exception:
            return False

    with ThreadPoolExecutor(8) as crowd:
        assert list(crowd.map(ask, range(30))) == [at % 3 != 0 for at in range(30)]
