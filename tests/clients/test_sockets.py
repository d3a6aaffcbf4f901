"""Listeners that are files instead of ports, as grpcio, curl, httpx and our own healthcheck reach them."""

import json
import os
import signal
import stat
import subprocess

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc

from server import Server, binary
from test_command_line import GRPCURL
from wires import grpc_input

ROW = np.ones((1, 16), np.float32)
# By itself grpcio names the server by the file's path with its slashes escaped, which no HTTP/2 library of Rust's takes for
# a name (docs/grpc.md).
NAMED = [("grpc.default_authority", "localhost")]


class Files(Server):
    """A server on three files of one folder."""

    def __init__(self, folder, repository, settings=None):
        super().__init__([repository], folder / "log", settings)
        self.paths = {name: folder / f"{name}.socket" for name in ("http", "grpc", "admin")}
        self.http, self.grpc, self.admin = (f"unix:{path}" for path in self.paths.values())

    def is_ready(self) -> bool:
        return healthcheck(self.admin).returncode == 0


def healthcheck(address: str) -> subprocess.CompletedProcess:
    return subprocess.run([binary(), "healthcheck", "--address", address], capture_output=True, text=True, timeout=20)


@pytest.fixture
def files(zoo, tmp_path):
    with Files(tmp_path, zoo) as running:
        yield running


def curl(path, url: str, *arguments: str) -> subprocess.CompletedProcess:
    command = ["curl", "-sS", "--unix-socket", str(path), f"http://localhost{url}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def test_every_client_reaches_its_file(files):
    row = {"name": "left", "shape": [1, 16], "datatype": "FP32", "data": [1.0] * 16}
    body = json.dumps({"inputs": [row, {**row, "name": "right"}]})
    answer = json.loads(curl(files.paths["http"], "/v2/models/add/infer", "-d", body).stdout)
    assert answer["outputs"][0]["data"] == [2.0] * 16
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(files.paths["http"]))) as client:
        assert client.get("http://localhost/v2/health/ready").status_code == 200
    assert "kinglet_requests_total" in curl(files.paths["admin"], "/metrics").stdout
    client = tritonclient.grpc.InferenceServerClient(files.grpc, channel_args=NAMED)
    result = client.infer("add", [grpc_input("left", ROW), grpc_input("right", ROW)])
    assert result.as_numpy("sum").tolist() == [[2.0] * 16]
    client.close()
    listed = subprocess.run(
        [GRPCURL, "-plaintext", "-unix", "-authority", "localhost", files.paths["grpc"], "list"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert "inference.GRPCInferenceService" in listed.stdout.split(), listed
    assert f"--unix-socket '{files.paths['http']}'" in files.log.read_text()


def test_files_have_their_permissions_and_go_with_the_server(files):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files.paths.values()}
    assert modes == {0o660}
    files.terminate()
    assert files.wait_exit() == 0
    assert not any(path.exists() for path in files.paths.values())
    assert healthcheck(files.admin).returncode == 1


def test_permissions_can_be_chosen(zoo, tmp_path):
    modes = {"KINGLET__HTTP__SOCKET_MODE": "0600", "KINGLET__GRPC__SOCKET_MODE": "0666"}
    with Files(tmp_path, zoo, modes) as running:
        assert stat.S_IMODE(running.paths["http"].stat().st_mode) == 0o600
        assert stat.S_IMODE(running.paths["grpc"].stat().st_mode) == 0o666


def test_what_a_killed_server_left_is_replaced(zoo, tmp_path):
    with Files(tmp_path, zoo) as killed:
        killed.send(signal.SIGKILL)
        killed.process.wait(20)
        assert killed.paths["http"].exists()
    with Files(tmp_path, zoo) as running:
        assert healthcheck(running.http).returncode == 0
        second = start(running)
        assert second.returncode == 1 and "cannot listen on unix:" in second.stderr
        assert healthcheck(running.http).returncode == 0, "the first one goes on"


def test_a_file_that_is_no_socket_stays(zoo, tmp_path):
    server = Files(tmp_path, zoo)
    server.paths["http"].write_text("a person's")
    refused = start(server)
    assert refused.returncode == 1 and "cannot listen on unix:" in refused.stderr
    assert server.paths["http"].read_text() == "a person's"
    assert not server.paths["grpc"].exists()


def start(server: Files) -> subprocess.CompletedProcess:
    command = [binary(), "serve", "--http", server.http, "--grpc", server.grpc, "--admin", server.admin]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KINGLET__")}
    command += ["--repository", str(server._repositories[0])]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def test_one_file_serves_both_protocols(zoo, tmp_path):
    both = Files(tmp_path, zoo)
    both.grpc = both.http
    with both as running:
        with grpc.insecure_channel(running.grpc) as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
            client = tritonclient.grpc.InferenceServerClient(running.grpc, channel_args=NAMED)
            assert client.is_server_ready()
            client.close()
        assert json.loads(curl(running.paths["http"], "/v2/health/live").stdout) == {"live": True}


def test_connections_are_bounded_there_too(zoo, tmp_path):
    with Files(tmp_path, zoo, {"KINGLET__LIMITS__CONNECTIONS_MAX": "1"}) as running:
        transport = httpx.HTTPTransport(uds=str(running.paths["http"]))
        with httpx.Client(transport=transport) as held:
            assert held.get("http://localhost/v2/health/live").status_code == 200
            assert curl(running.paths["http"], "/v2/health/live").returncode != 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"KINGLET__HTTP__LISTEN": "unix:"}, ["expected an address with a port", "unix:/path"]),
        ({"KINGLET__HTTP__SOCKET_MODE": "rw"}, ["octal digits", '"rw"']),
        ({"KINGLET__ADMIN__LISTEN": "unix:/tmp/x", "KINGLET__HTTP__LISTEN": "unix:/tmp/x"}, ["another address"]),
        ({"KINGLET__CORS__ORIGINS": "a.example"}, ["an origin such as", '"a.example"']),
    ],
)
def test_wrong_settings_say_what_was_expected(zoo, settings, words):
    environment = {**os.environ, **settings}
    command = [binary(), "serve", "--check", "--repository", str(zoo)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2, done
    assert all(word in done.stderr for word in words), done.stderr
