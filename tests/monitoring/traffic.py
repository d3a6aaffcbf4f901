"""Servers under light load that between them have everything to tell: joules from a model and from a meter, carbon,
variants, budgets, a limit of power, a model that does not load, refusals, errors of clients, both wires, TLS, windows that
are dropped.
"""

import contextlib
import http.client
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc

from files import ROOT
from prometheus import Prometheus
from server import Server

MODELS = ROOT / "models"
PAUSE_SECONDS = 0.03
# Rows of one request over gRPC: enough that some of a crowd meet a server that takes two at a time.
ROWS, CROWD = 32, 12
WATTS = 20
# Of the builds of the digits.
ACCURACY, ACCURACY_SMALL = 0.98, 0.9
# A meter that somebody sets back this often costs a window each time.
SET_BACK_SECONDS = 4


@dataclass(frozen=True)
class Scene:
    prometheus: Prometheus
    servers: list[Server]
    # One of them: it refuses nearly all for its limit of power.
    limited: Server


@contextlib.contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Servers, their clients and Prometheus; all of them end with it."""
    lay_out(folder / "models")
    meter = Meter(folder / "meter")
    modelled = {
        "KINGLET__METERING__SOURCE": "model",
        "KINGLET__METERING__CARBON_INTENSITY": "300",
        "KINGLET__METERING__CARBON_EMBODIED": "300000",
    }
    measured = {
        "KINGLET__METERING__SOURCE": "file",
        "KINGLET__METERING__FILE_PATH": str(meter.path),
        "KINGLET__ADMISSION__REQUESTS_MAX": "2",
    }
    # No machine rests at a milliwatt.
    certificate = self_signed(folder)
    limited = {
        "KINGLET__TLS__CERTIFICATE": str(certificate),
        "KINGLET__TLS__KEY": str(certificate),
        "KINGLET__TLS__LISTENERS": "grpc",
        "KINGLET__METERING__SOURCE": "model",
        "KINGLET__METERING__WINDOW": "100ms",
        "KINGLET__BUDGETS__POWER_WATTS_MAX": "0.001",
    }
    settings_by_name = {"modelled": modelled, "measured": measured, "limited": limited}
    with contextlib.ExitStack() as stack:
        stack.enter_context(Repeating(meter.tick))
        servers = [
            stack.enter_context(Server([folder / "models"], folder / f"{name}.log", settings))
            for name, settings in settings_by_name.items()
        ]
        for server in servers:
            trusted = certificate if server is servers[-1] else None
            for ask in (RestClient(server).ask, GrpcClient(server, trusted).ask):
                stack.enter_context(Repeating(ask))
        targets = [server.admin for server in servers]
        yield Scene(stack.enter_context(Prometheus(targets, folder)), servers, limited=servers[-1])


def lay_out(repository: Path) -> None:
    """The demo models, one of them with a variant and what both builds are worth, and a file that is no model."""
    shutil.copytree(MODELS, repository)
    small = repository / "digits/1/variants/small"
    small.mkdir(parents=True)
    shutil.copy(MODELS / "digits/1/model.onnx", small)
    manifest = repository / "digits/manifest.toml"
    manifest.write_text(f"accuracy = {ACCURACY}\n{manifest.read_text()}\n[variants.small]\naccuracy = {ACCURACY_SMALL}\n")
    broken = repository / "broken/1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"this is no ONNX model")


def self_signed(folder: Path) -> Path:
    """A certificate and its key in one file."""
    file = folder / "server.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = ["openssl", "req", "-x509", *curve, *named, "-keyout", file, "-out", folder / "certificate.pem"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text((folder / "certificate.pem").read_text() + file.read_text())
    return file


class Repeating(AbstractContextManager):
    """Calls a function again and again on a thread of its own. What it raises ends the test with it."""

    def __init__(self, call: Callable[[], None]):
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)

    def __enter__(self) -> "Repeating":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join(20)
        if self._failure:
            raise self._failure

    def _run(self, call: Callable[[], None]) -> None:
        try:
            while not self._ended.wait(PAUSE_SECONDS):
                call()
        except BaseException as failure:  # noqa: BLE001, raised again where the thread is waited for
            self._failure = failure


class Meter:
    """A file that counts microjoules."""

    def __init__(self, path: Path):
        self.path = path
        self._started = self._set_back = time.monotonic()
        self.tick()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._set_back > SET_BACK_SECONDS:
            self._set_back = self._started = now
        text = str(int((now - self._started) * WATTS * 1e6))
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)


class RestClient:
    """Samples of every model, and now and then what is wrong."""

    def __init__(self, server: Server):
        self._connection = http.client.HTTPConnection(server.http, timeout=10)
        sample = {name: (MODELS / name / "sample_request.json").read_bytes() for name in ("digits", "vowels", "wine")}
        digits = json.loads(sample["digits"])
        # A variant by its name; a budget that one build keeps, and one that none does.
        wanted = [{"variant": "small"}, {"min_accuracy": ACCURACY}, {"min_accuracy": 1}]
        chosen = [("digits", json.dumps(digits | {"parameters": parameters}).encode()) for parameters in wanted]
        self._bodies = [*sample.items(), *chosen, ("digits", b"{"), ("unheard-of", sample["wine"])]
        self._turn = 0

    def ask(self) -> None:
        model, body = self._bodies[self._turn % len(self._bodies)]
        self._turn += 1
        self._connection.request("POST", f"/v2/models/{model}/infer", body=body)
        self._connection.getresponse().read()


class GrpcClient:
    """A crowd of large requests at once."""

    def __init__(self, server: Server, trusted: Path | None):
        self._client = grpc.InferenceServerClient(server.grpc, ssl=trusted is not None, root_certificates=trusted and str(trusted))
        (sample,) = json.loads((MODELS / "digits/sample_request.json").read_text())["inputs"]
        rows = np.resize(np.array(sample["data"], np.float32), [ROWS, *sample["shape"][1:]])
        self._tensor = grpc.InferInput(sample["name"], rows.shape, sample["datatype"])
        self._tensor.set_data_from_numpy(rows)

    def ask(self) -> None:
        left = threading.Semaphore(0)
        for _ in range(CROWD):
            self._client.async_infer("digits", [self._tensor], callback=lambda result, error: left.release())
        for _ in range(CROWD):
            assert left.acquire(timeout=10), "expected an answer within 10 s"
        time.sleep(10 * PAUSE_SECONDS)
