"""What clients send cannot forge a log line, in either format, however much is logged."""

import http.client
import json
import re
import socket
import time
from urllib.parse import quote

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server import Server
from zoo import add, save

MARK = "forged-by-a-client"
# A line of each format, behind a line break, a terminal's escape, and the quotes that would end a JSON string.
HOSTILE = (
    f"x\n1999-01-01T00:00:00.000000Z ERROR kinglet: {MARK}\r\x1b[2K\x1b[31m\x9b31m\u2028\u202e\u2066"
    f'{{"timestamp":"1999-01-01T00:00:00Z","level":"ERROR","message":"{MARK}"}}\n","level":"ERROR","message":"{MARK}'
)
HUMAN_LINE = re.compile(r"20\d\d-\d\d-\d\dT[0-9:.]+Z +(ERROR|WARN|INFO|DEBUG|TRACE) ")


@pytest.fixture(params=["json", "human"])
def told(request, tmp_path):
    """A server that has been told all of it, and what it logged meanwhile."""
    save(tmp_path / "models" / "add", add())
    settings = {
        "KINGLET__TELEMETRY__LOG_FORMAT": request.param,
        "KINGLET__TELEMETRY__LOG_LEVEL": "trace",
        "KINGLET__REPOSITORY__CONTROL": "explicit",
        "KINGLET__REPOSITORY__LOAD_AT_START": "add",
    }
    with Server([tmp_path / "models"], tmp_path / "log", settings) as server:
        # The HTTP libraries tell even more than we do.
        assert post(server, "/v2/logging", json.dumps({"log_verbose_level": 3}).encode()) == 200
        # What a person reads at the start is no log.
        while "metrics, admin" not in server.log.read_text():
            time.sleep(0.02)
        start = server.log.stat().st_size
        over_rest(server)
        over_grpc(server)
        with server.log.open("rb") as log:
            log.seek(start)
            yield request.param, log.read()


def test_no_line_is_forged(told):
    form, logged = told
    text = logged.decode()
    assert MARK in text, "expected that something of it was logged"
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066]", text)
    # The last line may be half written.
    for line in text.split("\n")[1:-1]:
        if form == "human":
            assert HUMAN_LINE.match(line), line
            continue
        event = json.loads(line, object_pairs_hook=without_twins)
        assert event["level"] in ("ERROR", "WARN", "INFO", "DEBUG", "TRACE")
        assert event["timestamp"].startswith("20"), line
        assert event.get("message") != MARK, line


def over_rest(server) -> None:
    path = quote(HOSTILE, safe="")
    tensor = {"name": HOSTILE, "shape": [1], "datatype": HOSTILE, "data": [HOSTILE]}
    request = {"id": HOSTILE, "parameters": {HOSTILE: HOSTILE}, "inputs": [tensor], "outputs": [{"name": HOSTILE}]}
    for model in ("add", path):
        assert post(server, f"/v2/models/{model}/infer", json.dumps(request).encode()) == 400
        assert post(server, f"/v2/models/{model}/infer", HOSTILE.encode()) == 400
    assert post(server, f"/v2/{path}", b"") == 404
    assert post(server, "/v2/logging", json.dumps({HOSTILE: HOSTILE}).encode()) == 400
    assert post(server, f"/v2/repository/models/{path}/load", b"") == 400
    assert post(server, f"/v2/repository/models/{path}/unload", b"") == 400
    for config in ({HOSTILE: 1}, {"backend": HOSTILE}, {"name": HOSTILE}, {"parameters": {HOSTILE: HOSTILE}}, HOSTILE):
        parameters = {"config": config if config == HOSTILE else json.dumps(config)}
        post(server, "/v2/repository/models/add/load", json.dumps({"parameters": parameters}).encode())
    for header in HOSTILE.split("\n"):
        raw_header(server, header)


def over_grpc(server) -> None:
    request = service_pb2.ModelInferRequest(model_name=HOSTILE, model_version=HOSTILE, id=HOSTILE)
    request.inputs.add(name=HOSTILE, datatype=HOSTILE, shape=[1])
    request.parameters[HOSTILE].string_param = HOSTILE
    metadata = (("hostile-bin", HOSTILE.encode()), ("traceparent", HOSTILE.split('"')[-1]))
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        load = service_pb2.RepositoryModelLoadRequest(model_name="add")
        load.parameters["config"].string_param = HOSTILE
        for call, sent in [
            (stub.ModelInfer, request),
            (stub.ModelReady, service_pb2.ModelReadyRequest(name=HOSTILE)),
            (stub.ModelMetadata, service_pb2.ModelMetadataRequest(name=HOSTILE)),
            (stub.RepositoryModelLoad, load),
            (stub.RepositoryModelLoad, service_pb2.RepositoryModelLoadRequest(model_name=HOSTILE)),
        ]:
            try:
                call(sent, metadata=metadata, timeout=20)
            except grpc.RpcError as error:
                assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


def post(server, path: str, body: bytes) -> int:
    connection = http.client.HTTPConnection(server.http, timeout=20)
    try:
        connection.request("POST", path, body=body)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def raw_header(server, value: str) -> None:
    """Python's client would not send such a header."""
    with socket.create_connection(server.http.split(":"), timeout=20) as connection:
        head = "POST /v2/models/add/infer HTTP/1.1\r\nHost: kinglet\r\nConnection: close\r\nContent-Length: 2\r\n"
        for name in ("traceparent", "tracestate", "kinglet-timeout-ms", "Content-Type", "User-Agent"):
            head += f"{name}: {value}\r\n"
        connection.sendall(head.encode() + b"\r\n{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 4")


def without_twins(pairs: list) -> dict:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"expected each field once, came {names}"
    return dict(pairs)
