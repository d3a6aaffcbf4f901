"""Servers that many tests share. Importing this file imports no client: the protocol modules of
tritonclient and kserve cannot live in one process (both register the package `inference`)."""

from pathlib import Path

import pytest

from server import Server
from zoo import write_zoo


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    repository = tmp_path_factory.mktemp("zoo")
    write_zoo(repository)
    return repository


@pytest.fixture(scope="session")
def server(zoo, tmp_path_factory):
    """The default server: control mode none."""
    with Server([zoo], tmp_path_factory.mktemp("log") / "kinglet.log") as running:
        yield running


@pytest.fixture(scope="session", params=["rest-json", "rest-binary", "grpc"])
def wire(request, server):
    return make_wire(request.param, server)


@pytest.fixture(scope="session", params=["rest-binary", "grpc"])
def client(request, server):
    """tritonclient's own client object: REST and gRPC name most calls alike."""
    return make_wire(request.param, server).client


@pytest.fixture(scope="session")
def rest(server):
    return make_wire("rest-binary", server)


@pytest.fixture(scope="session")
def grpc_wire(server):
    return make_wire("grpc", server)


@pytest.fixture(scope="session")
def stub(grpc_wire):
    """The generated stub of the protocol, for messages that no well-meaning client sends."""
    return grpc_wire.client._client_stub


def make_wire(name: str, server):
    from wires import WIRES

    return WIRES[name](server)


@pytest.fixture(params=["rest", "grpc", "rest-aio", "grpc-aio"])
def caller(request, server):
    return make_caller(request.param, server)


def make_caller(kind: str, server):
    from caller import Caller

    return Caller(kind, server)
