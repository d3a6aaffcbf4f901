"""The model_repository extension in explicit mode: load, unload, index, failed and inline loads."""

import json
import threading

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from caller import Caller
from server import Server
from wires import grpc_input, refused, rest_input
from zoo import plus, save

ROW = np.zeros((1, 4), np.float32)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A repository that the tests change while its server runs."""
    folder = tmp_path_factory.mktemp("shelf")
    for model in ("steady", "changing", "breaking", "leaving"):
        save(folder / model, plus(1))
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "model.onnx").write_bytes(b"this is no ONNX model")
    return folder


@pytest.fixture(scope="module")
def explicit_server(shelf, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "explicit.log"
    with Server([shelf], log, {"KINGLET__REPOSITORY__CONTROL": "explicit"}) as running:
        yield running


@pytest.fixture(params=["rest", "grpc", "rest-aio", "grpc-aio"])
def explicit_caller(request, explicit_server):
    return Caller(request.param, explicit_server)


def test_load_serve_unload(explicit_caller):
    explicit_caller.call("load_model", "steady")
    assert explicit_caller.call("is_model_ready", "steady") is True
    assert state(explicit_caller, "steady")[0] == "READY"
    assert answer(explicit_caller, "steady") == 1

    explicit_caller.call("unload_model", "steady")
    assert explicit_caller.call("is_model_ready", "steady") is False
    assert state(explicit_caller, "steady")[0] == "UNAVAILABLE"
    refused(lambda: answer(explicit_caller, "steady"), "unavailable", "steady")


def test_unload_dependents_is_taken(explicit_caller):
    explicit_caller.call("load_model", "steady")
    explicit_caller.call("unload_model", "steady", unload_dependents=True)
    assert explicit_caller.call("is_model_ready", "steady") is False


def test_load_again_is_a_reload(explicit_caller, shelf):
    for number in (2, 3):
        save(shelf / "changing", plus(number))
        explicit_caller.call("load_model", "changing")
        assert answer(explicit_caller, "changing") == number


def test_a_failed_reload_leaves_the_old_version(explicit_caller, shelf):
    save(shelf / "breaking", plus(1))
    explicit_caller.call("load_model", "breaking")
    (shelf / "breaking" / "1" / "model.onnx").write_bytes(b"half a file")
    with pytest.raises(InferenceServerException) as failure:
        explicit_caller.call("load_model", "breaking")
    assert failure.value.message()
    assert answer(explicit_caller, "breaking") == 1
    now, reason = state(explicit_caller, "breaking")
    assert now == "READY" and reason, "the index tells why the reload failed"


def test_a_broken_model_does_not_load(explicit_caller):
    with pytest.raises(InferenceServerException) as failure:
        explicit_caller.call("load_model", "broken")
    assert "broken" in failure.value.message()
    assert explicit_caller.call("is_model_ready", "broken") is False
    now, reason = state(explicit_caller, "broken")
    assert now == "UNAVAILABLE" and reason


def test_a_model_that_is_not_there(explicit_caller):
    refused(lambda: explicit_caller.call("load_model", "nope"), "not found", "nope")


@pytest.mark.parametrize("name", ["../steady", "steady/1", "..", ".", "steady\0", "/etc"])
def test_names_are_no_paths(explicit_caller, name):
    with pytest.raises(InferenceServerException) as failure:
        explicit_caller.call("load_model", name)
    assert failure.value.status() in ("400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")


def test_a_model_sent_inline(explicit_caller):
    explicit_caller.call(
        "load_model", "inline", config='{"name": "inline"}', files={"file:1/model.onnx": plus(7).SerializeToString()}
    )
    assert answer(explicit_caller, "inline") == 7
    explicit_caller.call("unload_model", "inline")


def test_config_sent_inline(explicit_caller):
    config = """{"name": "steady", "platform": "onnxruntime_onnx", "max_batch_size": 3,
      "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
      "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}]}"""
    explicit_caller.call("load_model", "steady", config=config)
    with pytest.raises(InferenceServerException, match="3"):
        explicit_caller.infer("steady", {"x": np.zeros((4, 4), np.float32)})
    explicit_caller.call("load_model", "steady")
    assert explicit_caller.infer("steady", {"x": np.zeros((4, 4), np.float32)}).as_numpy("y").shape == (4, 4)


def test_inline_files_need_a_config(explicit_caller):
    files = {"file:1/model.onnx": plus(7).SerializeToString()}
    with pytest.raises(InferenceServerException):
        explicit_caller.call("load_model", "inline", files=files)
    assert explicit_caller.call("is_model_ready", "inline") is False


@pytest.mark.parametrize(
    "place", ["../1/model.onnx", "1/../../model.onnx", "/tmp/model.onnx", "1/", "one/model.onnx", "1/a/b", "1/..", ""]
)
def test_inline_files_stay_inside(explicit_caller, place):
    files = {f"file:{place}": plus(7).SerializeToString()}
    with pytest.raises(InferenceServerException) as failure:
        explicit_caller.call("load_model", "inline", config='{"name": "inline"}', files=files)
    assert failure.value.status() in ("400", "StatusCode.INVALID_ARGUMENT"), failure.value
    assert explicit_caller.call("is_model_ready", "inline") is False


def test_index_of_ready_models_only(explicit_server):
    """tritonclient has no option for it: the body is written here."""
    with tritonclient.http.InferenceServerClient(explicit_server.http) as client:
        client.load_model("steady")
        client.unload_model("changing")
        reply = client._post("v2/repository/index", '{"ready": true}', None, None)
        names = {m["name"] for m in json.loads(reply.read())}
    assert "steady" in names and "changing" not in names


def test_a_model_deleted_on_disk_can_be_unloaded(explicit_caller, shelf):
    save(shelf / "leaving", plus(1))
    explicit_caller.call("load_model", "leaving")
    (shelf / "leaving" / "1" / "model.onnx").unlink()
    assert answer(explicit_caller, "leaving") == 1
    explicit_caller.call("unload_model", "leaving")
    assert explicit_caller.call("is_model_ready", "leaving") is False


def test_reload_under_load_fails_nobody(explicit_server, shelf):
    save(shelf / "changing", plus(1))
    with tritonclient.http.InferenceServerClient(explicit_server.http) as control:
        control.load_model("changing")
        stop, failures, answers = threading.Event(), [], []

        def ask(module, tensor, address):
            with module.InferenceServerClient(address) as client:
                while not stop.is_set():
                    try:
                        answers.append(client.infer("changing", [tensor("x", ROW)]).as_numpy("y")[0, 0])
                    except InferenceServerException as failure:
                        failures.append(failure)

        threads = [
            threading.Thread(target=ask, args=args)
            for args in (
                (tritonclient.http, rest_input, explicit_server.http),
                (tritonclient.grpc, grpc_input, explicit_server.grpc),
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for number in range(2, 8):
            save(shelf / "changing", plus(number))
            control.load_model("changing")
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert set(answers) <= set(range(1, 8)) and len(answers) > 20


def state(caller, model: str) -> tuple[str, str]:
    index = caller.call("get_model_repository_index")
    models = index if caller.is_rest else index.get("models", [])
    (entry,) = [m for m in models if m["name"] == model]
    return entry.get("state", ""), entry.get("reason", "")


def answer(caller, model: str) -> float:
    return caller.infer(model, {"x": ROW}).as_numpy("y")[0, 0]
