"""Disks that are full, files that are no models, repositories that go away."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from bounds import SHORT
from hostile import post
from ordeal import of_model
from server import Server
from watching import metrics, wait_for
from zoo import add, f32, model, save, slow

POLLED = SHORT | {
    "KINGLET__REPOSITORY__CONTROL": "poll",
    "KINGLET__REPOSITORY__POLL_INTERVAL": "200ms",
    "KINGLET__REPOSITORY__SETTLE_TIME": "200ms",
    "KINGLET__ENGINE__MODEL_BYTES_MAX": "1MiB",
}


@pytest.fixture
def own_shelf(tmp_path) -> Path:
    save(tmp_path / "models" / "add", add())
    return tmp_path / "models"


def large_model():
    weights = np.ones((1024, 512), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [f32("x", ["batch", 1024])], [f32("y", ["batch", 512])], {"w": weights})


def test_broken_models_in_a_polled_repository(own_shelf, tmp_path, ordeal):
    """Noise, a cut file, one beyond engine.model_bytes_max, a loop of links: each named in index, log and metric; what serves
    goes on, also where the broken one is its own next version."""
    whole = add().SerializeToString()
    with Server([own_shelf], tmp_path / "log", POLLED) as server:
        with ordeal.through(server):
            for name, content in {"noise": os.urandom(100_000), "cut": whole[: len(whole) // 2], "empty": b""}.items():
                lay(own_shelf / name / "1", content)
            save(own_shelf / "large", large_model())
            (own_shelf / "loop" / "1").mkdir(parents=True)
            (own_shelf / "loop" / "1" / "model.onnx").symlink_to("model.onnx")
            lay(own_shelf / "add" / "2", os.urandom(5000))
            broken = {"noise", "cut", "empty", "large", "add"}
            wait_for(lambda: broken <= set(failed(server)))
            wait_for(lambda: 'the files of model \\"loop\\" cannot be looked at' in server.log.read_text())
            # In place, as no one should: what serves is in memory.
            lay(own_shelf / "add" / "1", whole[:100])
            time.sleep(1)
        for name in broken:
            assert of_model(server, "kinglet_model_loads_total", name, outcome="failed") >= 1
            assert name in server.log.read_text()
        lay(own_shelf / "add" / "1", whole)
        lay(own_shelf / "add" / "2", whole)
        wait_for(lambda: of_model(server, "kinglet_model_ready", "add", version="2") == 1)


def lay(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)


def failed(server) -> list[str]:
    _, _, text = post(server.http, "/v2/repository/index", b"{}")
    return [row["name"] for row in json.loads(text) if row["state"] == "UNAVAILABLE" and row.get("reason")]


@contextlib.contextmanager
def tiny_disk(folder: Path, size: int):
    """A file system of so many bytes."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_where_loads_are_written(own_shelf, tmp_path, ordeal):
    """A load that brings more than the disk holds is refused, leaves nothing behind, and the next one that fits succeeds."""
    with tiny_disk(tmp_path / "disk", 256 << 10) as disk:
        settings = SHORT | {
            "KINGLET__REPOSITORY__CONTROL": "explicit",
            "KINGLET__REPOSITORY__LOAD_AT_START": "add",
            "KINGLET__REPOSITORY__TEMPORARY_PATH": str(disk),
        }
        with Server([own_shelf], tmp_path / "log", settings) as server:
            with ordeal.through(server):
                for _ in range(5):
                    status, _, text = load(server, "large", large_model().SerializeToString())
                    assert status >= 400 and json.loads(text)["error"], (status, text)
                    assert not [*disk.iterdir()], "expected nothing to be left behind"
                status, _, text = load(server, "small", add().SerializeToString())
                assert status == 200, text
            assert "large" in server.log.read_text()


def load(server, name: str, content: bytes) -> tuple[int, dict, bytes]:
    parameters = {"config": json.dumps({"name": name}), "file:1/model.onnx": b64encode(content).decode()}
    return post(server.http, f"/v2/repository/models/{name}/load", json.dumps({"parameters": parameters}).encode())


@pytest.mark.parametrize("control", ["none", "explicit", "poll"])
def test_a_repository_that_goes_away(own_shelf, tmp_path, ordeal, control):
    """The folder is moved away whole, as when a mount is lost: what is loaded serves on, and the return is noticed."""
    settings = POLLED | {"KINGLET__REPOSITORY__CONTROL": control, "KINGLET__REPOSITORY__LOAD_AT_START": "*"}
    if control != "explicit":
        del settings["KINGLET__REPOSITORY__LOAD_AT_START"]
    away = tmp_path / "away"
    with Server([own_shelf], tmp_path / "log", settings) as server, ordeal.through(server):
        own_shelf.rename(away)
        if control == "poll":
            wait_for(lambda: "the repository cannot be read" in server.log.read_text())
        if control == "explicit":
            assert post(server.http, "/v2/repository/models/add/load", b"{}")[0] >= 400
        time.sleep(0.5)
        away.rename(own_shelf)
        if control == "explicit":
            assert post(server.http, "/v2/repository/models/add/load", b"{}")[0] == 200
        time.sleep(0.5)


@pytest.mark.parametrize("control", ["none", "explicit"])
def test_files_deleted_under_load(own_shelf, tmp_path, ordeal, control):
    """Every file of a loaded model is deleted: it is in memory. A native file, which is mapped, too."""
    settings = SHORT | {"KINGLET__REPOSITORY__CONTROL": control}
    if control == "explicit":
        settings["KINGLET__REPOSITORY__LOAD_AT_START"] = "*"
    with Server([own_shelf], tmp_path / "log", settings) as server, ordeal.through(server):
        shutil.rmtree(own_shelf / "add")
        time.sleep(0.5)
        if control == "explicit":
            assert post(server.http, "/v2/repository/models/add/load", b"{}")[0] >= 400
        time.sleep(0.3)


def test_a_deleted_model_goes_and_others_stay(own_shelf, tmp_path, ordeal):
    """Polled, a model whose folder is deleted is unloaded; requests that it had are answered, and the others serve on."""
    save(own_shelf / "slow", slow(24))
    with Server([own_shelf], tmp_path / "log", POLLED) as server, ordeal.through(server):
        shutil.rmtree(own_shelf / "slow")
        wait_for(lambda: of_model(server, "kinglet_model_ready", "slow") is None)


class Unheard(Server):
    """A server whose log is no file that could be read again."""

    def log_end(self) -> str:
        return "its log went elsewhere"


def test_a_log_on_a_full_disk(own_shelf, ordeal):
    """Every line fails, and those of a load are written all the same as far as anyone can tell: requests are answered."""
    with Unheard([own_shelf], Path("/dev/full"), SHORT) as server, ordeal.through(server):
        for _ in range(20):
            assert write_a_line(server) == 200


def test_a_log_whose_reader_has_gone(own_shelf, tmp_path, ordeal):
    """A pipe that is closed at its other end: neither SIGPIPE nor EPIPE costs a request."""
    with piped(own_shelf, tmp_path) as (server, reading), ordeal.through(server):
        os.close(reading)
        for _ in range(20):
            assert write_a_line(server) == 200


def test_a_log_whose_reader_has_stopped(own_shelf, tmp_path, ordeal):
    """A pipe that is full, as behind a collector of logs that hangs: lines may be lost, requests not."""
    with piped(own_shelf, tmp_path) as (server, reading):
        try:
            fill(server.log)
            with ordeal.through(server, newcomer=False, answer_seconds_max=5):
                for _ in range(4):
                    assert write_a_line(server, seconds_max=1) == 200
            assert metrics(server)["kinglet_log_lines_dropped_total"] >= 4
        finally:
            os.close(reading)


@contextlib.contextmanager
def piped(shelf: Path, folder: Path):
    """A server that logs into a pipe, and the end from which nobody reads."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with Unheard([shelf], pipe, SHORT | {"KINGLET__RUNTIME__IO_THREADS": "2"}) as server:
        yield server, reading


def fill(pipe: Path) -> None:
    writing = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(size))
    os.close(writing)


def write_a_line(server, seconds_max: float = 20) -> int:
    """A call that the log tells of."""
    connection = http.client.HTTPConnection(server.admin, timeout=seconds_max)
    try:
        connection.request("POST", "/admin/cache/clear")
        return connection.getresponse().status
    finally:
        connection.close()
