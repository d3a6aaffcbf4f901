"""All models there are, what each is asked in many shapes, and clients that ask at random while models come and go."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cases
import numpy as np
from clients import WIRES, Client, Refused, Tensors, agree
from server import Kinglet

ROOT = Path(__file__).resolve().parents[2]
JSON_ELEMENTS_MAX = 20_000  # writing more as text would measure Python
ERRORS_KEPT = 20


def repositories(target: Path) -> list[Path]:
    """`target` is this benchmark's folder; the real models lie beside it."""
    return [ROOT / "models", *sorted((ROOT / "tests" / "fixtures").glob("*.onnx")), target.parent / "real-models"]


def questions() -> dict[str, list[Callable[[], Tensors]]]:
    """Model -> makers of inputs. More shapes than the server keeps plans for, where a model needs one for each."""
    found: dict[str, list[Callable[[], Tensors]]] = {}
    for (model, _), make in cases.CASES.items():
        found.setdefault(model, []).append(make)
    for model in cases.LENETS_INT8:
        found[model] = [lambda n=n: cases.images(n) for n in (1, 3, 32)]
    found["digits"] += [lambda n=n: cases.images(n) for n in range(1, 33)]
    found["wine"] += [lambda n=n: cases.rows("wine_test.npz", "X", n) for n in range(1, 21)]
    found["vowels"] += [lambda n=n: {"series": cases.rows("vowels_test.npz", "series", 2)["series"][:, :, :n]} for n in range(3, 29)]
    found["gunpoint_fcn"] += [lambda n=n: cases.noise("series", 2, 1, n) for n in range(40, 151, 5)]
    found["ppocr_det"] += [lambda h=h, w=w: cases.pixels("x", 1, 3, h, w) for h in range(64, 225, 32) for w in range(64, 257, 32)]
    found["ppocr_rec"] += [lambda n=n, w=w: cases.pixels("x", n, 3, 48, w) for n in (1, 2) for w in range(64, 369, 16)]
    found["silero_vad_ifless"] = [speech]
    return found


def speech() -> Tensors:
    state = np.zeros((2, 1, 128), np.float32)
    return cases.noise("input", 1, 576) | {"state": state, "sr": np.array(16_000, np.int64)}


class Presence:
    """Whether a model is loaded, and how often that changed: a refusal is fair if the model was away meanwhile."""

    def __init__(self) -> None:
        self.present, self.changes = True, 0

    def change(self, present: bool) -> None:
        self.present, self.changes = present, self.changes + 1

    def seen(self) -> tuple[bool, int]:
        return self.present, self.changes


class Mixture:
    """Threads that ask while the context is open. Each rests between requests, so that the load stays below capacity."""

    def __init__(self, server: Kinglet, threads: int, rest: float) -> None:
        self.server, self.rest = server, rest
        self.questions = questions()
        self.presence = {model: Presence() for model in self.questions}
        self.counts: Counter[str] = Counter()
        self.shapes: set[tuple[str, int]] = set()
        self.errors: list[str] = []
        self.first_answers: dict[tuple[str, int], Tensors] = {}
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.keep_asking, args=(seed,), daemon=True) for seed in range(threads)]

    def __enter__(self) -> Mixture:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def keep_asking(self, seed: int) -> None:
        draw = random.Random(seed)
        client = Client(self.server.http, self.server.grpc)
        while not self.ended.is_set():
            model = draw.choice(list(self.questions))
            start = time.monotonic()
            try:
                self.ask_anything(client, draw, model)
            except Exception as error:  # a broken connection, an answer that is none: always a finding
                self.fail(f"{model}: {error!r}")
                client.close()
                client = Client(self.server.http, self.server.grpc)
            self.ended.wait(self.rest * (time.monotonic() - start))
        client.close()

    def ask_all(self) -> None:
        """Each question once, always in the same order: afterwards the server's caches hold much the same each time."""
        client = Client(self.server.http, self.server.grpc)
        for model, questions in self.questions.items():
            for index, make in enumerate(questions):
                try:
                    self.ask(client, "binary", model, index, make())
                except Exception as error:
                    self.fail(f"{model}: {error!r}")
                    client.close()
                    client = Client(self.server.http, self.server.grpc)
        client.close()

    def ask_anything(self, client: Client, draw: random.Random, model: str) -> None:
        index = draw.randrange(len(self.questions[model]))
        inputs = self.questions[model][index]()
        small = sum(value.size for value in inputs.values()) <= JSON_ELEMENTS_MAX
        self.ask(client, draw.choice(WIRES if small else WIRES[1:]), model, index, inputs)

    def ask(self, client: Client, wire: str, model: str, index: int, inputs: Tensors) -> None:
        before = self.presence[model].seen()
        try:
            answer = client.ask(wire, model, inputs)
        except Refused as refused:
            if before == (True, self.presence[model].changes):
                self.fail(f"{model} over {wire}: {refused}")
            else:
                self.counts["refused while away"] += 1
            return
        self.counts[wire] += 1
        self.shapes.add((model, index))
        first = self.first_answers.setdefault((model, index), answer)
        if not agree(first, answer):
            self.fail(f"{model} over {wire}: the answer differs from the first one to the same question")

    def fail(self, text: str) -> None:
        self.counts["errors"] += 1
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append(text)
            print(f"!!! {text}", flush=True)

    def answered(self) -> int:
        return sum(self.counts[wire] for wire in WIRES)
