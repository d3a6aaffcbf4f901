"""Statistics add up: two readings around a known number of requests."""

import threading

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from caller import integers

ROWS = 3
REQUESTS = 5
DURATIONS = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}


def test_successes_are_counted(caller):
    before = entry(caller, "identity_fp32")
    for _ in range(REQUESTS):
        caller.infer("identity_fp32", {"x": np.ones((ROWS, 2), np.float32)})
    after = entry(caller, "identity_fp32")
    assert set(after["inference_stats"]) >= DURATIONS
    assert grown(before, after, "success") == REQUESTS
    assert grown(before, after, "queue") == REQUESTS
    for stage in ("compute_input", "compute_infer", "compute_output"):
        assert grown(before, after, stage) == REQUESTS
        assert after["inference_stats"][stage].get("ns", 0) >= before["inference_stats"][stage].get("ns", 0)
    assert grown(before, after, "fail") == 0
    assert grown(before, after, "cache_hit") == 0 and grown(before, after, "cache_miss") == 0
    assert after["inference_count"] - before.get("inference_count", 0) == ROWS * REQUESTS
    assert after["execution_count"] - before.get("execution_count", 0) == REQUESTS
    assert after["last_inference"] >= before.get("last_inference", 0) > 1_600_000_000_000 or not before.get(
        "last_inference"
    )


def test_batches_are_counted_by_size(caller):
    before = batches(entry(caller, "identity_fp32"))
    for _ in range(REQUESTS):
        caller.infer("identity_fp32", {"x": np.ones((ROWS, 2), np.float32)})
    after = batches(entry(caller, "identity_fp32"))
    assert after[ROWS] - before.get(ROWS, 0) == REQUESTS


def test_inference_count_is_the_batches_weighted(server, caller):
    """However requests met, rows and executions agree with the batch statistics."""
    shares = [threading.Thread(target=ask_some, args=(caller,)) for _ in range(4)]
    for share in shares:
        share.start()
    for share in shares:
        share.join()
    statistics = entry(caller, "add")
    by_size = batches(statistics)
    assert sum(by_size.values()) == statistics["execution_count"]
    assert sum(size * count for size, count in by_size.items()) == statistics["inference_count"]


def test_a_refused_request_is_no_success(caller):
    before = entry(caller, "fixed")
    with pytest.raises(InferenceServerException):
        caller.infer("fixed", {"x": np.ones((1, 4), np.float32)})
    after = entry(caller, "fixed")
    assert grown(before, after, "success") == 0
    assert after.get("inference_count", 0) == before.get("inference_count", 0)


def test_statistics_of_all_models_win_over_a_model_of_that_name(caller):
    names = {model["name"] for model in statistics(caller)}
    assert {"add", "stats", "latest", "versions"} <= names
    caller.infer("stats", {"x": np.ones((1, 1), np.float32)})


def test_every_served_version_has_an_entry(caller):
    """perf_analyzer crashes on an entry without a version."""
    assert sorted(m["version"] for m in statistics(caller, "versions")) == [1, 3]
    assert all(model["version"] for model in statistics(caller))
    assert [m["version"] for m in statistics(caller, "versions", "3")] == [3]


def statistics(caller, model: str = "", version: str = "") -> list[dict]:
    return integers(caller.call("get_inference_statistics", model, version))["model_stats"]


def entry(caller, model: str) -> dict:
    (only,) = statistics(caller, model)
    return only


def grown(before: dict, after: dict, what: str) -> int:
    return after["inference_stats"][what].get("count", 0) - before["inference_stats"][what].get("count", 0)


def batches(statistics: dict) -> dict[int, int]:
    return {b["batch_size"]: b["compute_infer"]["count"] for b in statistics.get("batch_stats", [])}


def ask_some(caller) -> None:
    one = np.ones((1, 16), np.float32)
    for _ in range(20):
        caller.infer("add", {"left": one, "right": one})
