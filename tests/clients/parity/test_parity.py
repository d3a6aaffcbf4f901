"""Answers of real models equal ONNX Runtime's, on every wire."""

import numpy as np
import pytest
import tritonclient.http

from parity.cases import CASES, INT8_BOUNDS, LENETS, LENETS_INT8, SILERO, digits
from wires import RestWire

ABSOLUTE = 1e-4
RELATIVE = 1e-4
# int8 networks round in other places: of 2,000 digits this many may change class.
CLASSES_CHANGED_MAX = 4
# Rows of one request: the default bound of a batch.
ROWS = 32
SILERO_CHUNKS = 6


@pytest.mark.parametrize(("model", "case"), CASES)
def test_answers_equal_the_oracle(parity_wire, oracle, model, case):
    inputs = CASES[model, case]()
    expected = oracle(model, inputs)
    got = parity_wire.infer(model, inputs, list(expected))
    for name, values in expected.items():
        assert_close(got[name], values, f"{model} {name}", INT8_BOUNDS.get(model, ABSOLUTE))


@pytest.mark.parametrize(("model", "rate", "samples"), SILERO)
def test_silero_with_the_state_kept_by_the_client(parity_wire, oracle, model, rate, samples):
    """Chunk by chunk, each side carrying its own state: an error in one would grow."""
    generator = np.random.default_rng(5)
    ours, theirs = (np.zeros((2, 1, 128), np.float32) for _ in range(2))
    rates = {} if rate is None else {"sr": np.array(rate, np.int64)}
    for chunk in range(SILERO_CHUNKS):
        tone = np.sin(np.arange(samples) * 0.05 * (chunk + 1)) * 0.4
        sound = (tone + generator.normal(0, 0.05, samples)).astype(np.float32)[None]
        expected = oracle(model, {"input": sound, "state": theirs, **rates})
        got = parity_wire.infer(model, {"input": sound, "state": ours, **rates}, list(expected))
        for name, values in expected.items():
            assert_close(got[name], values, f"chunk {chunk} {name}")
        ours, theirs = got["stateN"], expected["stateN"]


@pytest.mark.parametrize("model", LENETS)
def test_the_same_accuracy_on_all_digits(parity_wire, oracle, model):
    pictures, labels = digits()
    ours, theirs = classes(parity_wire, oracle, model, pictures)
    assert (ours == labels).mean() == (theirs == labels).mean()
    assert (ours == theirs).all()


@pytest.mark.parametrize("model", LENETS_INT8)
def test_int8_networks_name_the_same_classes(parity_wire, oracle_as_written, model):
    pictures, labels = digits()
    if model == "lenet_mnist_int8_dyn":
        # Its scale is taken over the whole request: compare what is asked alike, one image at a time.
        pictures = pictures[:300]
        ours, theirs = classes(parity_wire, oracle_as_written, model, pictures, rows=1)
    else:
        ours, theirs = classes(parity_wire, oracle_as_written, model, pictures)
    assert (ours != theirs).sum() <= CLASSES_CHANGED_MAX


def test_a_dynamic_scale_is_the_same_alone_and_in_company(parity_server):
    """The model that must not be merged: asked at once or one by one, bit for bit the same."""
    model = "lenet_mnist_int8_dyn"
    pictures = digits()[0][:32, None]
    wire = RestWire(parity_server, binary=True)
    alone = [wire.infer(model, {"image": p}, ["logits"])["logits"] for p in pictures]

    with tritonclient.http.InferenceServerClient(parity_server.http, concurrency=32) as client:
        pending = [client.async_infer(model, wire.tensors({"image": p})) for p in pictures]
        together = [request.get_result().as_numpy("logits") for request in pending]
    for one, other in zip(alone, together, strict=True):
        assert one.tobytes() == other.tobytes()


def test_all_are_ready(parity_server):
    client = RestWire(parity_server, binary=True).client
    states = {m["name"]: (m["state"], m.get("reason", "")) for m in client.get_model_repository_index()}
    client.close()
    assert {name: state for name, state in states.items() if state[0] != "READY"} == {}


def classes(wire, oracle, model: str, pictures: np.ndarray, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    ours, theirs = [], []
    for start in range(0, len(pictures), rows):
        inputs = {"image": pictures[start : start + rows]}
        ours.append(wire.infer(model, inputs, ["logits"])["logits"].argmax(axis=1))
        theirs.append(oracle(model, inputs)["logits"].argmax(axis=1))
    return np.concatenate(ours), np.concatenate(theirs)


def assert_close(got: np.ndarray, expected: np.ndarray, what: str, absolute: float = ABSOLUTE) -> None:
    assert got.shape == expected.shape and got.dtype == expected.dtype, what
    if expected.dtype == np.float32:
        bound = absolute + RELATIVE * np.abs(expected)
        worst = (np.abs(got - expected) - bound).max()
        assert worst <= 0, f"{what}: off by {np.abs(got - expected).max():.2e}"
    else:
        assert (got == expected).all(), what
