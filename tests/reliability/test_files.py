"""Disks that are full, files that are no models, repositories that go away."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest

from conftest import SHORT
from hostile import post
from ordeal import of_model
from server import Server
from watching import wait_for
from zoo import add, model, save, slow

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
    from onnx import helper

    from zoo import f32

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
            broken = {"noise", "cut", "empty", "large", "loop"}
            wait_for(lambda: broken <= set(failed(server)))
            wait_for(lambda: server.log.read_text().count("could not be loaded") >= 1 or "add" in failed(server))
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


class Elsewhere(Server):
    """A server whose log goes where a test says."""

    def __init__(self, *arguments, to, **options):
        super().__init__(*arguments, **options)
        self._to = to

    def start(self) -> None:
        from server import binary

        command = [binary(), "serve", "--http", self.http, "--grpc", self.grpc, "--admin", self.admin]
        for repository in self._repositories:
            command += ["--repository", str(repository)]
        self.process = subprocess.Popen(
            command, env=os.environ | self._settings, stdin=subprocess.DEVNULL, stdout=self._to, stderr=self._to
        )

    def log_end(self) -> str:
        return "its log went elsewhere"


NOISY = SHORT | {"KINGLET__TELEMETRY__LOG_LEVEL": "trace"}


@pytest.mark.parametrize("kind", ["full disk", "closed pipe", "pipe nobody reads"])
def test_logs_that_cannot_be_written(own_shelf, tmp_path, ordeal, kind):
    """Every line of a talkative log fails, or cannot leave: requests are answered all the same."""
    with contextlib.ExitStack() as stack:
        if kind == "full disk":
            to = stack.enter_context(open("/dev/full", "wb"))
        else:
            reading, writing = os.pipe()
            to = stack.enter_context(os.fdopen(writing, "wb"))
            kept = stack.enter_context(os.fdopen(reading, "rb"))
        server = stack.enter_context(Elsewhere([own_shelf], tmp_path / "none", NOISY, to=to)) if kind == "full disk" else None
        if server is None:
            # Until it serves, somebody reads.
            server = Elsewhere([own_shelf], tmp_path / "none", SHORT, to=to)
            stack.enter_context(server)
            if kind == "closed pipe":
                kept.close()
            raise_level(server)
        with ordeal.through(server, alive_seconds_max=5):
            time.sleep(1)


def raise_level(server) -> None:
    status, _, text = post(server.admin, "/v2/logging", json.dumps({"log_verbose_level": 2}).encode())
    assert status == 200, text
