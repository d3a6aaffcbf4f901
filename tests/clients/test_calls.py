"""Every call of tritonclient's four clients, but inference variants and repository control."""

import time

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import KeepAliveOptions
from tritonclient.grpc.auth import BasicAuth

from caller import CLIENTS, integers
from wires import refused
from zoo import CONFIGURED_BATCH_MAX

EXTENSIONS = {
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
}
ROW = np.arange(16, dtype=np.float32).reshape(1, 16)


def test_server_health(caller):
    assert caller.call("is_server_live") is True
    assert caller.call("is_server_ready") is True


@pytest.mark.parametrize(
    ("model", "version", "ready"),
    [
        ("add", "", True),
        ("add", "1", True),
        ("latest", "2", True),
        ("latest", "1", False),
        ("add", "9", False),
        ("nope", "", False),
    ],
)
def test_model_ready(caller, model, version, ready):
    assert caller.call("is_model_ready", model, version) is ready


def test_server_metadata(caller):
    metadata = caller.call("get_server_metadata")
    assert metadata["name"] == "kinglet"
    assert metadata["version"]
    assert set(metadata["extensions"]) == EXTENSIONS


@pytest.mark.parametrize("version", ["", "1"])
def test_model_metadata(caller, version):
    metadata = integers(caller.call("get_model_metadata", "add", version))
    assert metadata["name"] == "add"
    assert metadata["versions"] == [1]
    assert metadata["platform"]
    assert metadata["inputs"] == [
        {"name": "left", "datatype": "FP32", "shape": [-1, 16]},
        {"name": "right", "datatype": "FP32", "shape": [-1, 16]},
    ]
    assert metadata["outputs"] == [{"name": "sum", "datatype": "FP32", "shape": [-1, 16]}]


def test_metadata_names_the_served_versions(caller):
    assert integers(caller.call("get_model_metadata", "versions"))["versions"] == [1, 3]
    assert integers(caller.call("get_model_metadata", "latest"))["versions"] == [2]


def test_metadata_of_a_model_that_does_not_batch(caller):
    metadata = integers(caller.call("get_model_metadata", "fixed"))
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [2, 4]}]


@pytest.mark.parametrize("version", ["", "1"])
def test_model_config(caller, version):
    config = model_config(caller, "add", version)
    assert config["name"] == "add"
    assert config["max_batch_size"] > 1
    assert [(i["name"], i["data_type"], i["dims"]) for i in config["input"]] == [
        ("left", "TYPE_FP32", [16]),
        ("right", "TYPE_FP32", [16]),
    ]
    assert [(o["name"], o["dims"]) for o in config["output"]] == [("sum", [16])]


def test_config_comes_from_config_pbtxt(caller):
    config = model_config(caller, "configured")
    assert config["max_batch_size"] == CONFIGURED_BATCH_MAX
    assert config["output"][0]["label_filename"] == "labels.txt"
    assert config["dynamic_batching"]["priority_levels"] == 2


@pytest.mark.parametrize("model", ["fixed", "mixes_rows"])
def test_config_of_a_model_that_must_not_be_merged(caller, model):
    config = model_config(caller, model)
    assert config.get("max_batch_size", 0) == 0
    assert config["input"][0]["dims"][-1] == 4 and len(config["input"][0]["dims"]) == 2


def test_repository_index(caller):
    index = {(m["name"], m.get("version")): m for m in repository_index(caller)}
    for entry in [("add", "1"), ("latest", "2"), ("versions", "1"), ("versions", "3")]:
        assert index[entry]["state"] == "READY"


def test_inference_by_each_client(caller):
    result = caller.infer("sum_difference", {"INPUT0": ROW, "INPUT1": ROW}, request_id="my id")
    assert (result.as_numpy("OUTPUT0") == 2 * ROW).all()
    assert (result.as_numpy("OUTPUT1") == 0).all()
    response = result.get_response()
    if caller.is_rest:
        assert (response["id"], response["model_name"], response["model_version"]) == ("my id", "sum_difference", "1")
    else:
        assert (response.id, response.model_name, response.model_version) == ("my id", "sum_difference", "1")


@pytest.mark.parametrize(
    ("model", "version", "added"),
    [
        ("latest", "", 2),
        ("latest", "2", 2),
        ("versions", "", 3),
        ("versions", "1", 1),
        ("versions", "3", 3),
    ],
)
def test_version_is_chosen(caller, model, version, added):
    sent = np.zeros((1, 4), np.float32)
    result = caller.infer(model, {"x": sent}, model_version=version)
    assert (result.as_numpy("y") == added).all()


def test_headers_and_parameters_of_ones_own_are_taken(caller):
    options = {"parameters": {"colour": "red", "count": 3, "flag": True}, "headers": {"x-team": "birds"}}
    if caller.is_rest:
        options["query_params"] = {"trace": "1"}
    result = caller.infer("add", {"left": ROW, "right": ROW}, **options)
    assert (result.as_numpy("sum") == 2 * ROW).all()


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_a_client_plugin_adds_its_header(server, kind):
    """Credentials that nobody asked for are no reason to refuse."""
    new_client, tensor = CLIENTS[kind]
    with new_client(server.http if kind == "rest" else server.grpc) as client:
        client.register_plugin(BasicAuth("name", "word"))
        result = client.infer("add", [tensor("left", ROW), tensor("right", ROW)])
        client.unregister_plugin()
    assert (result.as_numpy("sum") == 2 * ROW).all()


def test_grpc_keepalive(server):
    """Pings of a client that keeps its connection open are no abuse."""
    options = KeepAliveOptions(
        keepalive_time_ms=500, keepalive_permit_without_calls=True, http2_max_pings_without_data=0
    )
    with tritonclient.grpc.InferenceServerClient(server.grpc, keepalive_options=options) as client:
        assert client.is_server_live()
        time.sleep(2.5)
        assert client.is_server_live()


def test_log_settings(caller):
    settings = log_settings(caller.call("get_log_settings"))
    assert {"log_info", "log_warning", "log_error", "log_verbose_level", "log_format"} <= set(settings)
    before = settings["log_verbose_level"]
    try:
        changed = log_settings(caller.call("update_log_settings", {"log_verbose_level": 1, "log_info": True}))
        assert changed["log_verbose_level"] == 1
        assert log_settings(caller.call("get_log_settings"))["log_verbose_level"] == 1
    finally:
        caller.call("update_log_settings", {"log_verbose_level": before})


def test_the_log_file_is_not_for_clients_to_choose(caller, tmp_path):
    target = tmp_path / "stolen.log"
    refused_either(lambda: caller.call("update_log_settings", {"log_file": str(target)}), "log_file")
    assert not target.exists()


def test_trace_settings_are_told_and_not_for_clients_to_choose(caller):
    caller.call("get_trace_settings", "add")
    refused(lambda: caller.call("update_trace_settings", None, {"trace_level": ["OFF"]}), "denied", "trace settings")
    refused(lambda: caller.call("update_trace_settings", "add", {"trace_file": "/tmp/kinglet-trace"}), "unsupported", "trace_file")


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("get_system_shared_memory_status", ()),
        ("get_system_shared_memory_status", ("region",)),
        ("register_system_shared_memory", ("region", "/kinglet_test", 64)),
        ("unregister_system_shared_memory", ()),
        ("unregister_system_shared_memory", ("region",)),
        ("get_cuda_shared_memory_status", ()),
        ("register_cuda_shared_memory", ("region", b"aGFuZGxl", 0, 64)),
    ],
)
def test_shared_memory_is_not_served(caller, method, arguments):
    refused(lambda: caller.call(method, *arguments), "unsupported", "shared")


@pytest.mark.parametrize("arguments", [(), ("region",)])
def test_unregistering_cuda_memory_is_always_granted(caller, arguments):
    """perf_analyzer does it before every run and stops where it fails."""
    caller.call("unregister_cuda_shared_memory", *arguments)


def test_tensors_in_shared_memory_are_refused(caller):
    tensor = caller.tensor("left", ROW)
    tensor.set_shared_memory("region", ROW.nbytes)
    refused(lambda: caller.call("infer", "add", [tensor, caller.tensor("right", ROW)]), "unsupported", "shared")


def test_sequences_are_not_served(caller):
    options = {"sequence_id": 7, "sequence_start": True}
    refused(lambda: caller.infer("add", {"left": ROW, "right": ROW}, **options), "unsupported", "sequence")


@pytest.mark.parametrize("method", ["load_model", "unload_model"])
def test_control_mode_none_refuses(caller, method):
    refused(lambda: caller.call(method, "add"), "denied", "control")
    assert caller.call("is_model_ready", "add") is True


@pytest.mark.parametrize("method", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
@pytest.mark.parametrize(("model", "version", "word"), [("nope", "", "nope"), ("add", "9", "9"), ("latest", "1", "1")])
def test_what_is_not_served_is_not_found(caller, method, model, version, word):
    refused(lambda: caller.call(method, model, version), "not found", model, word)


def model_config(caller, model: str, version: str = "") -> dict:
    config = integers(caller.call("get_model_config", model, version))
    return config if caller.is_rest else config["config"]


def repository_index(caller) -> list[dict]:
    index = caller.call("get_model_repository_index")
    return index if caller.is_rest else index["models"]


def log_settings(answer: dict) -> dict:
    """gRPC wraps each value in an object that names its type."""
    settings = answer.get("settings", answer)
    return {k: next(iter(v.values()), None) if isinstance(v, dict) else v for k, v in settings.items()}


def refused_either(call, word: str) -> None:
    """A read-only setting is an invalid argument or an unserved part of the extension."""
    try:
        refused(call, "invalid", word)
    except AssertionError:
        refused(call, "unsupported", word)
