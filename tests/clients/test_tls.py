"""TLS of every listener, and certificates that are changed while the server runs."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import trustme
from tritonclient.utils import InferenceServerException

from server import Server, binary, health
from test_command_line import GRPCURL
from watching import wait_for
from wires import grpc_input, rest_input

ROW = np.ones((1, 16), np.float32)


class Issued:
    """An authority, and files with what it has issued."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = trustme.CA()
        self.trusted = str(folder / "authority.pem")
        self.authority.cert_pem.write_to_path(self.trusted)
        self.renew()
        self.client = self.pair("client", self.authority.issue_cert("robot@example.org"))
        self.stranger = self.pair("stranger", trustme.CA().issue_cert("robot@example.org"))

    def renew(self):
        self.pair("server", self.authority.issue_cert("127.0.0.1", "localhost"))

    def pair(self, name, issued) -> tuple[str, str]:
        """Files of a chain and its key, put into place at once."""
        chain, key = (str(self.folder / f"{name}.{ending}") for ending in ("pem", "key"))
        for path, parts in ((chain, issued.cert_chain_pems), (key, [issued.private_key_pem])):
            for part in parts:
                part.write_to_path(f"{path}.new", append=part is not parts[0])
            os.replace(f"{path}.new", path)
        return chain, key

    def settings(self, **more) -> dict[str, str]:
        own = {"CERTIFICATE": self.folder / "server.pem", "KEY": self.folder / "server.key", **more}
        return {f"KINGLET__TLS__{name}": str(value) for name, value in own.items()}


class Secure(Server):
    """Its health is asked as operators would."""

    def is_ready(self) -> bool:
        return self.healthcheck().returncode == 0

    def healthcheck(self, *more: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, **self._settings, "KINGLET__ADMIN__LISTEN": self.admin}
        return subprocess.run([binary(), "healthcheck", *more], env=environment, capture_output=True, text=True, timeout=20)


class AskedByAdmin(Server):
    """Where REST asks for certificates."""

    def is_ready(self) -> bool:
        return health(self.admin, "ready") == 200


@pytest.fixture
def issued(tmp_path):
    return Issued(tmp_path)


@pytest.fixture
def server(issued, zoo, tmp_path):
    with Secure([zoo], tmp_path / "log", issued.settings()) as running:
        yield running


def ask_rest(server, issued, pair=None):
    options = {"ca_certs": issued.trusted}
    if pair:
        options |= dict(zip(("certfile", "keyfile"), pair))
    client = tritonclient.http.InferenceServerClient(server.http, ssl=True, ssl_options=options)
    return client.infer("add", [rest_input(name, ROW, True) for name in ("left", "right")])


def ask_grpc(server, issued, pair=None):
    chain, key = pair or (None, None)
    client = tritonclient.grpc.InferenceServerClient(
        server.grpc, ssl=True, root_certificates=issued.trusted, certificate_chain=chain, private_key=key
    )
    with client:
        return client.infer("add", [grpc_input(name, ROW) for name in ("left", "right")])


def curl(issued, url, *more):
    command = ["curl", "-sS", "--cacert", issued.trusted, "-w", "\n%{http_version}", *more, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def test_every_listener_speaks_it(server, issued):
    for ask in (ask_rest, ask_grpc):
        assert (ask(server, issued).as_numpy("sum") == 2).all(), ask
    body, version = curl(issued, f"https://{server.http}/v2").stdout.rsplit("\n", 1)
    assert (json.loads(body)["name"], version) == ("kinglet", "2")
    _, version = curl(issued, f"https://{server.http}/v2", "--http1.1").stdout.rsplit("\n", 1)
    assert version == "1.1"
    metrics = curl(issued, f"https://{server.admin}/metrics").stdout
    assert 'kinglet_connections{listener="grpc"}' in metrics
    listed = subprocess.run([GRPCURL, "-cacert", issued.trusted, server.grpc, "list"], capture_output=True, text=True, timeout=20)
    assert "inference.GRPCInferenceService" in listed.stdout, listed.stderr
    assert server.healthcheck().returncode == 0
    assert server.healthcheck("--address", server.http, "--tls").returncode == 0
    assert "400" in server.healthcheck("--address", server.http).stderr


def test_one_port_for_both_protocols(issued, zoo, tmp_path):
    shared = Secure([zoo], tmp_path / "log", issued.settings())
    shared.grpc = shared.http
    with shared:
        for ask in (ask_rest, ask_grpc):
            assert (ask(shared, issued).as_numpy("sum") == 2).all(), ask


def test_listeners_may_be_chosen(issued, zoo, tmp_path):
    settings = issued.settings(LISTENERS="grpc")
    with Server([zoo], tmp_path / "log", settings) as running:
        assert (ask_grpc(running, issued).as_numpy("sum") == 2).all()
        assert httpx.get(f"http://{running.http}/v2").status_code == 200
        assert httpx.get(f"http://{running.admin}/metrics").status_code == 200


def test_who_speaks_plain_http_is_told(server):
    for address in (server.http, server.grpc, server.admin):
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("POST", "/v2/models/add/infer", "{}")
        answer = connection.getresponse()
        assert answer.status == 400 and "expects TLS" in json.loads(answer.read())["error"]
        connection.close()
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client, pytest.raises(InferenceServerException):
        client.is_server_live()


def test_a_server_that_is_not_trusted_is_not_asked(server, issued, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    other = Issued(folder)
    with pytest.raises(Exception):
        ask_rest(server, other)
    with pytest.raises(InferenceServerException):
        ask_grpc(server, other)


@pytest.mark.parametrize("demand", ["required", "optional"])
def test_clients_show_certificates(issued, zoo, tmp_path, demand):
    settings = issued.settings(CLIENT_AUTHORITIES=issued.trusted, CLIENT_CERTIFICATES=demand, LISTENERS="http,grpc")
    with AskedByAdmin([zoo], tmp_path / "log", settings) as running:
        for ask in (ask_rest, ask_grpc):
            assert (ask(running, issued, issued.client).as_numpy("sum") == 2).all(), ask
            with pytest.raises(Exception):
                ask(running, issued, issued.stranger)
            if demand == "optional":
                assert (ask(running, issued).as_numpy("sum") == 2).all(), ask
            else:
                with pytest.raises(Exception):
                    ask(running, issued)
        page = httpx.get(f"http://{running.admin}/metrics").text
        refused = [line for line in page.splitlines() if line.startswith("kinglet_connections_refused_total") and "handshake" in line]
        assert any(float(line.split()[-1]) > 0 for line in refused), refused


def serial(server, issued) -> int:
    context = ssl.create_default_context(cafile=issued.trusted)
    host, port = server.http.split(":")
    with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname="localhost") as secure:
        return int(secure.getpeercert()["serialNumber"], 16)


def test_a_certificate_changes_while_it_serves(server, issued):
    client = httpx.Client(verify=ssl.create_default_context(cafile=issued.trusted))
    url = f"https://{server.http}/v2/health/ready"
    assert client.get(url).status_code == 200
    before = serial(server, issued)
    issued.renew()
    server.send(signal.SIGHUP)
    wait_for(lambda: serial(server, issued) != before)
    # Its connection goes on.
    assert client.get(url).status_code == 200
    after = serial(server, issued)
    (issued.folder / "server.key").write_text("no key")
    server.send(signal.SIGHUP)
    page = f"https://{server.admin}/metrics"
    wait_for(lambda: "kinglet_tls_reloads_failed_total 1" in client.get(page).text)
    assert serial(server, issued) == after
    assert "kinglet_tls_certificate_not_after_timestamp_seconds" in client.get(page).text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"CERTIFICATE": "nowhere.pem"}, "nowhere.pem"),
        ({"KEY": ""}, "both of tls.certificate and tls.key"),
        ({"LISTENERS": "rest"}, "rest"),
        ({"VERSION_MIN": "1.1"}, "1.1"),
    ],
)
def test_what_cannot_be_served_does_not_start(issued, zoo, tmp_path, change, words):
    settings = {**os.environ, **issued.settings(**change)}
    command = [binary(), "serve", "--repository", str(zoo), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    ran = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=30)
    assert ran.returncode != 0 and words in ran.stderr, ran.stderr


def test_who_says_nothing_does_not_hold_up_the_end(server):
    """A connection without a handshake ends with `drain.linger`, long before `limits.header_timeout`."""
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port))):
        began = time.monotonic()
        server.terminate()
        assert server.wait_exit() == 0 and time.monotonic() - began < 6
    assert '"finished":true' in server.log.read_text()
