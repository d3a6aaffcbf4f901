"""Joules as clients and dashboards see them: from a model, and from a powercap tree that the test moves on."""

import contextlib
import http.client
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

import grpc
from server import Server, binary
from watching import wait_for
from wires import grpc_input
from zoo import SLOW_WIDTH, add, save, slow

WINDOW = {"KINGLET__METERING__WINDOW": "100ms"}
MODEL = {"KINGLET__METERING__SOURCE": "model", **WINDOW}


@pytest.fixture
def models(tmp_path):
    save(tmp_path / "models" / "add", add())
    save(tmp_path / "models" / "slow", slow())
    return tmp_path / "models"


@pytest.fixture
def modelled(models, tmp_path):
    with Server([models], tmp_path / "log", MODEL) as running:
        wait_for(lambda: energy(running)["window"])
        yield running


def test_rest_answers_tell_joules_in_headers(modelled):
    headers, body = post(modelled)
    assert headers["kinglet-energy-source"] == "model"
    assert is_quantised(float(headers["kinglet-energy-joules"]))
    assert "parameters" not in body


def test_grpc_answers_tell_joules_in_trailing_metadata(modelled):
    trailing, response = grpc_call(modelled)
    assert trailing["kinglet-energy-source"] == "model"
    assert is_quantised(float(trailing["kinglet-energy-joules"]))
    assert not response.parameters


WANTED = {"energy_joules", "energy_source", "energy_quality", "cpu_seconds"}
BATCH = {"kinglet_batch_size", "kinglet_batch_reason", "kinglet_queue_us", "kinglet_compute_us"}


def test_parameters_are_told_on_request(modelled):
    headers, body = post(modelled, {"energy": True})
    told = body["parameters"]
    assert set(told) == WANTED | BATCH
    assert told["energy_source"] == "model" and told["energy_quality"] == "modelled"
    assert told["energy_joules"] == float(headers["kinglet-energy-joules"]) and told["cpu_seconds"] > 0

    trailing, response = grpc_call(modelled, energy=True)
    assert set(response.parameters) == WANTED | BATCH
    assert response.parameters["energy_source"].string_param == "model"
    assert response.parameters["energy_joules"].double_param == float(trailing["kinglet-energy-joules"])


def test_streams_tell_joules_in_parameters(modelled):
    with grpc.insecure_channel(modelled.grpc) as channel:
        request = message(energy=True)
        answers = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request]))
        response = next(iter(answers)).infer_response
    assert WANTED <= set(response.parameters)


def test_what_is_switched_off_is_not_told(models, tmp_path):
    off = {"KINGLET__METERING__REPLY_HEADERS": "false", "KINGLET__METERING__REPLY_PARAMETERS": "true"}
    with Server([models], tmp_path / "log", MODEL | off) as running:
        wait_for(lambda: energy(running)["window"])
        headers, body = post(running)
        assert not [name for name in headers if name.startswith("kinglet-energy")]
        assert set(body["parameters"]) == WANTED
        trailing, _ = grpc_call(running)
        assert not [name for name in trailing if name.startswith("kinglet-energy")]


def test_without_a_source_nothing_is_told(models, tmp_path):
    with Server([models], tmp_path / "log", {"KINGLET__METERING__SOURCE": "none", **WINDOW}) as running:
        headers, body = post(running, {"energy": True})
        assert set(body["parameters"]) == BATCH | {"cpu_seconds"}
        assert not [name for name in headers if name.startswith("kinglet-energy")]
        assert not [name for name, _ in metrics(running) if name.startswith("kinglet_energy") and "sampler" not in name]
        assert "energy_joules" not in statistics(running, "add") and statistics(running, "add")["cpu_seconds"] > 0
        assert energy(running) == {"source": None, "quality": None, "window": None}


def test_parts_add_up_and_statistics_agree(modelled):
    for _ in range(20):
        post(modelled)
        grpc_call(modelled)
        ask_slow(modelled)
    # The last batches' window has to end.
    before = total(modelled, "kinglet_energy_joules_total")
    wait_for(lambda: total(modelled, "kinglet_energy_joules_total") > before)
    read = metrics(modelled)
    whole = summed(read, "kinglet_energy_joules_total")
    attributed = summed(read, "kinglet_energy_attributed_joules_total")
    rest = [summed(read, f"kinglet_energy_{part}_joules_total") for part in ("overhead", "idle", "other")]
    assert attributed > 0 and whole == pytest.approx(attributed + sum(rest), rel=1e-9)
    told = statistics(modelled, "slow")
    assert told["energy_source"] == "model" and told["energy_quality"] == "modelled"
    assert told["energy_joules"] == pytest.approx(attributed_to(modelled, "slow"), rel=0.2)
    assert summed(read, "kinglet_request_energy_joules_count") == 60


def test_replies_sum_to_what_is_attributed(modelled):
    """Each reply is an estimate; over many windows of the model they are the attributed energy, within a few windows' noise."""
    replied = sum(ask_slow(modelled) for _ in range(200))
    wait_for(lambda: attributed_to(modelled, "slow") > 0.5 * replied)
    assert 0.5 < attributed_to(modelled, "slow") / replied < 2


class Tree:
    """A powercap tree with one package, at so many watts while it is advanced."""

    def __init__(self, path, watts: float):
        self.zone, self.watts, self.joules = path / "intel-rapl:0", watts, 262_100.0
        self.zone.mkdir(parents=True)
        (self.zone / "name").write_text("package-0\n")
        (self.zone / "max_energy_range_uj").write_text("262143328850\n")
        self.advance(0)

    def advance(self, seconds: float) -> None:
        self.joules += self.watts * seconds
        # The zone may be away.
        with contextlib.suppress(FileNotFoundError):
            (self.zone / "new").write_text(str(int(self.joules * 1e6) % 262_143_328_850))
            (self.zone / "new").replace(self.zone / "energy_uj")

    def run(self, stop: threading.Event) -> None:
        last = time.monotonic()
        while not stop.wait(0.01):
            now = time.monotonic()
            self.advance(now - last)
            last = now


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "powercap", watts=50)


@pytest.fixture
def advancing(tree):
    stop = threading.Event()
    thread = threading.Thread(target=tree.run, args=(stop,))
    thread.start()
    yield tree
    stop.set()
    thread.join()


def measuring(tree, source="powercap") -> dict[str, str]:
    path = {"KINGLET__METERING__POWERCAP_PATH": str(tree.zone.parent), "KINGLET__METERING__IDLE_WATTS": "20"}
    return {"KINGLET__METERING__SOURCE": source, **path, **WINDOW}


@pytest.mark.parametrize("source", ["powercap", "auto"])
def test_a_counter_is_attributed_as_it_moves(models, tmp_path, advancing, source):
    """50 W of which 20 are idle; the counter comes to its end on the way."""
    with Server([models], tmp_path / "log", measuring(advancing, source)) as running:
        wait_for(lambda: energy(running)["window"])
        assert (energy(running)["source"], energy(running)["quality"]) == ("powercap", "measured")
        first, before, busy = advancing.joules, metrics(running), host_seconds()
        until = time.monotonic() + 4
        while time.monotonic() < until:
            ask_slow(running)
        after, passed, busy = metrics(running), advancing.joules - first, host_seconds() - busy
        whole, idle = (grown(before, after, name) for name in ("kinglet_energy_joules_total", "kinglet_energy_idle_joules_total"))
        # A window at either end is in one of both only.
        assert whole == pytest.approx(passed, abs=50 * 0.25 + 0.05 * passed)
        assert idle == pytest.approx(whole * 20 / 50, rel=0.1)
        models = grown(before, after, "kinglet_energy_attributed_joules_total")
        seconds = grown(before, after, "kinglet_model_cpu_seconds_total")
        assert models == pytest.approx((whole - idle) * seconds / busy, rel=0.2)
        parts = [f"kinglet_energy_{part}_joules_total" for part in ("attributed", "overhead", "idle", "other")]
        assert summed(after, "kinglet_energy_joules_total") == pytest.approx(sum(summed(after, part) for part in parts), rel=1e-9)
        assert advancing.joules > 262_143, "the counter has come to its end"
        headers, _ = post(running)
        assert headers["kinglet-energy-source"] == "powercap"


def test_a_source_that_vanishes_is_not_told_until_it_is_back(models, tmp_path, advancing):
    with Server([models], tmp_path / "log", measuring(advancing)) as running:
        wait_for(lambda: energy(running)["window"])
        away = advancing.zone.rename(tmp_path / "away")
        wait_for(lambda: energy(running)["window"] is None)
        assert total(running, "kinglet_energy_joules_total") == 0
        assert not [name for name in post(running)[0] if name.startswith("kinglet-energy")]
        assert total(running, "kinglet_energy_windows_dropped_total") > 0
        away.rename(advancing.zone)
        wait_for(lambda: energy(running)["window"])
        assert total(running, "kinglet_energy_joules_total") > 0
    log = (tmp_path / "log").read_text()
    assert log.count("energy source lost") == 1 and log.count("energy source is back") == 1


def test_a_source_that_does_not_work_keeps_the_server_from_starting(models, tmp_path):
    server = Server([models], tmp_path / "log", measuring(Tree(tmp_path / "powercap", 1)))
    (tmp_path / "powercap" / "intel-rapl:0" / "energy_uj").write_text("much")
    server.start()
    assert server.wait_exit() == 2
    assert "expected a whole number of microjoules, got" in (tmp_path / "log").read_text()


def test_carbon_is_told_where_it_is_known(models, tmp_path):
    intensity = tmp_path / "intensity.csv"
    intensity.write_text("0,3600\n")
    carbon = {"KINGLET__METERING__CARBON_INTENSITY_PATH": str(intensity), "KINGLET__METERING__CARBON_EMBODIED": "1e6"}
    with Server([models], tmp_path / "log", MODEL | carbon) as running:
        wait_for(lambda: ask_slow(running) and total(running, "kinglet_carbon_operational_grams_total") > 0)
        read = metrics(running)
        joules = summed(read, "kinglet_energy_attributed_joules_total")
        assert summed(read, "kinglet_carbon_operational_grams_total") == pytest.approx(joules / 1000, rel=1e-6)
        assert summed(read, "kinglet_carbon_embodied_grams_total") > 0


def test_bench_tells_joules_of_a_row(models):
    command = [binary(), "bench", "--json", "--time", "300", "--batch", "1", "--threads", "1", str(models / "slow")]
    line = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert line["joules_per_row"] > 0 and line["energy_quality"] in ("measured", "modelled")


# Requests and readings.


def post(server, parameters: dict | None = None, model: str = "add"):
    row = {"shape": [1, 16], "datatype": "FP32", "data": [1.0] * 16}
    body = {"inputs": [{"name": name, **row} for name in ("left", "right")]}
    if parameters:
        body["parameters"] = parameters
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text
    return dict(answer.getheaders()), json.loads(text)


def message(**parameters):
    request = service_pb2.ModelInferRequest(model_name="add")
    for name in ("left", "right"):
        tensor = request.inputs.add(name=name, datatype="FP32", shape=[1, 16])
        tensor.contents.fp32_contents.extend([1.0] * 16)
    for key, value in parameters.items():
        request.parameters[key].bool_param = value
    return request


def grpc_call(server, **parameters):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response, call = stub.ModelInfer.with_call(message(**parameters))
        return dict(call.trailing_metadata()), response


def ask_slow(server) -> float:
    """Joules of one answer of the slow model, 0 where they are not told."""
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        row = grpc_input("x", np.ones((1, 1, SLOW_WIDTH), np.float32))
        response = client.infer("slow", [row], parameters={"energy": True}).get_response()
    return response.parameters["energy_joules"].double_param


def energy(server) -> dict:
    return json.loads(read(server.admin, "/admin/energy"))


def statistics(server, model: str) -> dict:
    return json.loads(read(server.http, f"/v2/models/{model}/stats"))["model_stats"][0]


def metrics(server) -> list[tuple[str, float]]:
    lines = read(server.admin, "/metrics").decode().splitlines()
    return [(line.rsplit(" ", 1)[0], float(line.rsplit(" ", 1)[1])) for line in lines if not line.startswith("#")]


def summed(read: list[tuple[str, float]], name: str) -> float:
    return sum(value for series, value in read if series.split("{")[0] == name)


def total(server, name: str) -> float:
    return summed(metrics(server), name)


def grown(before: list[tuple[str, float]], after: list[tuple[str, float]], name: str) -> float:
    return summed(after, name) - summed(before, name)


def host_seconds() -> float:
    """CPU time of everything on this machine, as the server counts it."""
    user, nice, system, _, _, interrupt, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + interrupt + soft) / os.sysconf("SC_CLK_TCK")


def attributed_to(server, model: str) -> float:
    series = [entry for entry in metrics(server) if f'model="{model}"' in entry[0]]
    return summed(series, "kinglet_energy_attributed_joules_total")


def read(address: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200, path
    return answer.read()


def is_quantised(joules: float) -> bool:
    return joules > 0 and abs(joules * 1e5 - round(joules * 1e5)) < 1e-6
