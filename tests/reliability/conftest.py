"""What the tests share: the healthy client, and a server whose times are short enough to be waited for."""

import time
from pathlib import Path

import pytest
from onnx import helper

from bounds import SHORT
from ordeal import Commander, Ordeal, write_report
from server import Server
from zoo import DATATYPES, add, f32, identity, manifest, model, save, slow

def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="faults that last minutes, for `just reliability`")


@pytest.fixture(scope="session")
def seconds(request) -> float:
    """How long a fault goes on."""
    return 20.0 if request.config.getoption("--long") else 1.2


@pytest.fixture(scope="session")
def shelf(tmp_path_factory) -> Path:
    """The models that faults and the healthy client ask."""
    models = tmp_path_factory.mktemp("shelf")
    save(models / "add", add())
    save(models / "identity", identity(DATATYPES["FP32"], ["batch", "width"]))
    save(models / "texts", identity(DATATYPES["BYTES"], ["batch", "width"]))
    save(models / "slow", slow(24))
    manifest(models / "slow", {"batching.batch_size_max": "1", "instances.max": "1", "batching.queue_requests_max": "8"})
    # Sums that wait for company, so that strangers share a batch.
    save(models / "together", add())
    manifest(models / "together", {"batching.queue_delay_max": '"2ms"', "batching.batch_size_max": "16"})
    save(models / "quotient", quotient())
    return models


def quotient():
    shape = ["batch", 4]
    return model(
        [helper.make_node("Div", ["over", "under"], ["y"])], [f32("over", shape), f32("under", shape)], [f32("y", shape)]
    )


@pytest.fixture(scope="session")
def server(shelf, tmp_path_factory):
    with Server([shelf], tmp_path_factory.mktemp("log") / "kinglet.log", SHORT) as running:
        yield running


@pytest.fixture(scope="session")
def commander():
    told = Commander()
    yield told
    told.close()


@pytest.fixture(scope="session")
def report():
    rows: list[dict] = []
    yield rows
    write_report(rows)


@pytest.fixture
def ordeal(request, commander, report) -> Ordeal:
    return Ordeal(commander, request.node.name, report)


@pytest.fixture
def until(seconds):
    """True while the fault shall go on, from the first time it is asked."""
    began: list[float] = []

    def goes_on() -> bool:
        began or began.append(time.monotonic())
        return time.monotonic() - began[0] < seconds

    return goes_on
