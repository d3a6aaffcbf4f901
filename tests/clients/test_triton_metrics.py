"""Metrics under Triton's names: those that its dashboards and autoscalers ask for, with the figures that the statistics tell."""

import re
import threading

import numpy as np
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from server import Server
from watching import metrics, wait_for
from wires import rest_input
from zoo import SLOW_WIDTH, add, plus, save, slow

SETTINGS = {"KINGLET__ADMIN__TRITON_METRICS": "true", "KINGLET__METERING__WINDOW": "100ms"}
ROW = np.ones((1, 16), np.float32)
VERSION = {"model", "version"}
# As Triton documents them, by labels.
NAMES = {
    "nv_inference_request_success": VERSION,
    "nv_inference_request_failure": VERSION | {"reason"},
    "nv_inference_count": VERSION,
    "nv_inference_exec_count": VERSION,
    "nv_inference_request_duration_us": VERSION,
    "nv_inference_queue_duration_us": VERSION,
    "nv_inference_compute_input_duration_us": VERSION,
    "nv_inference_compute_infer_duration_us": VERSION,
    "nv_inference_compute_output_duration_us": VERSION,
    "nv_inference_pending_request_count": VERSION,
    "nv_cache_num_hits_per_model": VERSION,
    "nv_cache_num_misses_per_model": VERSION,
    "nv_cache_hit_duration_per_model": VERSION,
    "nv_cache_miss_duration_per_model": VERSION,
    "nv_cpu_utilization": set(),
    "nv_cpu_memory_total_bytes": set(),
    "nv_cpu_memory_used_bytes": set(),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    save(root / "add", add())
    save(root / "slow", slow())
    save(root / "kept", plus(1))
    (root / "kept" / "manifest.toml").write_text("response_cache = true\n")
    return root


@pytest.fixture
def server(models, tmp_path):
    with Server([models], tmp_path / "log", SETTINGS) as running:
        yield running


def pair(array: np.ndarray) -> list:
    return [rest_input(name, array) for name in ("left", "right")]


def of_triton(server) -> dict[str, float]:
    return {name: value for name, value in metrics(server).items() if name.startswith("nv_")}


def test_names_and_labels_are_tritons(server):
    wait_for(lambda: "nv_cpu_utilization" in of_triton(server))
    told = {}
    for series in of_triton(server):
        name, _, labels = series.partition("{")
        told.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    assert told == NAMES


def test_figures_are_those_of_the_statistics(server):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        for rows in (1, 3):
            client.infer("add", pair(np.ones((rows, 16), np.float32)))
        with pytest.raises(InferenceServerException):
            client.infer("add", pair(ROW[:, :15]))
        told = of_triton(server)
        entry = client.get_inference_statistics("add")["model_stats"][0]
    of = lambda name, more="": told[f'nv_inference_{name}{{model="add"{more},version="1"}}']
    assert (of("request_success"), of("count"), of("exec_count")) == (2, 4, 2)
    assert (entry["inference_count"], entry["execution_count"]) == (4, 2)
    for name, stage in [
        ("request_duration_us", "success"),
        ("queue_duration_us", "queue"),
        ("compute_input_duration_us", "compute_input"),
        ("compute_infer_duration_us", "compute_infer"),
        ("compute_output_duration_us", "compute_output"),
    ]:
        assert of(name) == entry["inference_stats"][stage]["ns"] // 1000, name
    failures = {reason: of("request_failure", f',reason="{reason}"') for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")}
    assert failures == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 1}


def test_hits_and_misses_are_those_of_the_cache(server):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        for value in (1, 2, 1, 1):
            client.infer("kept", [rest_input("x", np.full((1, 4), value, np.float32))])
    told = of_triton(server)
    of = lambda name: told[f'nv_cache_num_{name}_per_model{{model="kept",version="1"}}']
    assert (of("hits"), of("misses")) == (2, 2)
    assert told['nv_inference_count{model="kept",version="1"}'] == 2, "what was kept is not computed"
    assert not any("cache" in name and "add" in name for name in told)


def test_what_waits_is_pending(server):
    """By this autoscalers add servers."""
    pending = 'nv_inference_pending_request_count{model="slow",version="1"}'
    ones = rest_input("x", np.ones((1, 1, SLOW_WIDTH), np.float32))

    def ask():
        with tritonclient.http.InferenceServerClient(server.http) as client:
            for _ in range(20):
                client.infer("slow", [ones])

    crowd = [threading.Thread(target=ask) for _ in range(12)]
    for one in crowd:
        one.start()
    wait_for(lambda: of_triton(server)[pending] > 0)
    for one in crowd:
        one.join()
    assert of_triton(server)[pending] == 0


def test_unless_asked_for_they_are_not_there(models, tmp_path):
    with Server([models], tmp_path / "log") as running:
        assert of_triton(running) == {}
