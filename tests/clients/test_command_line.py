"""curl, grpcurl and promtool: the clients of people at a terminal."""

import base64
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

GRPCURL = Path(sys.executable).parent / "grpcurl"
BODY = json.dumps(
    {
        "id": "from curl",
        "inputs": [
            {"name": "left", "shape": [1, 16], "datatype": "FP32", "data": [1] * 16},
            {"name": "right", "shape": [1, 16], "datatype": "FP32", "data": [2] * 16},
        ],
    }
)
SERVICE = "inference.GRPCInferenceService"


def curl(server, path: str, *options: str, address: str = "") -> tuple[int, str, str]:
    """Status, content type and body."""
    url = f"http://{address or server.http}{path}"
    form = "\n%{http_code} %{content_type}"
    done = subprocess.run(
        ["curl", "-sS", "-w", form, *options, url], capture_output=True, text=True, timeout=30, check=True
    )
    body, _, tail = done.stdout.rpartition("\n")
    status, _, content_type = tail.partition(" ")
    return int(status), content_type, body


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/add/ready", {"name": "add", "ready": True}),
        ("/v2/models/latest/versions/2/ready", {"name": "latest", "ready": True}),
    ],
)
def test_curl_health(server, path, expected):
    status, content_type, body = curl(server, path)
    assert (status, content_type) == (200, "application/json")
    assert expected.items() <= json.loads(body).items()


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_curl_server_metadata(server, path):
    status, _, body = curl(server, path)
    assert status == 200 and json.loads(body)["name"] == "kinglet"


def test_curl_lists_models(server):
    status, _, body = curl(server, "/v2/models")
    assert status == 200
    names = {m if isinstance(m, str) else m["name"] for m in json.loads(body)["models"]}
    assert {"add", "slow", "versions"} <= names


@pytest.mark.parametrize("version", ["", "/versions/1"])
@pytest.mark.parametrize("http2", [[], ["--http2-prior-knowledge"]])
def test_curl_infer(server, version, http2):
    status, content_type, body = curl(
        server, f"/v2/models/add{version}/infer", "-H", "Content-Type: application/json", "-d", BODY, *http2
    )
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body) == {
        "model_name": "add",
        "model_version": "1",
        "id": "from curl",
        "outputs": [{"name": "sum", "datatype": "FP32", "shape": [1, 16], "data": [3.0] * 16}],
    }


def test_curl_infer_as_a_form_says(server):
    """curl -d without a content type calls the body a form; it is JSON all the same."""
    status, _, body = curl(server, "/v2/models/add/infer", "-d", BODY)
    assert status == 200 and json.loads(body)["id"] == "from curl"


def test_curl_compressed(server):
    status, _, body = curl(
        server, "/v2/models/add/infer", "--compressed", "-H", "Content-Type: application/json", "-d", BODY
    )
    assert status == 200 and json.loads(body)["outputs"][0]["data"] == [3.0] * 16


# id: (path, options, status)
WRONG = {
    "unknown path": ("/v2/nothing", [], 404),
    "root": ("/", [], 404),
    "unknown model": ("/v2/models/nope", [], 404),
    "unknown model, ready": ("/v2/models/nope/ready", [], 404),
    "unknown version, ready": ("/v2/models/add/versions/9/ready", [], 404),
    "GET infer": ("/v2/models/add/infer", [], 405),
    "PUT infer": ("/v2/models/add/infer", ["-X", "PUT", "-d", BODY], 405),
    "DELETE a model": ("/v2/models/add", ["-X", "DELETE"], 405),
    "POST health": ("/v2/health/live", ["-d", "{}"], 405),
    "GET index": ("/v2/repository/index", [], 405),
    "image": ("/v2/models/add/infer", ["-H", "Content-Type: image/png", "-d", BODY], 415),
    "XML": ("/v2/models/add/infer", ["-H", "Content-Type: application/xml", "-d", BODY], 415),
    "traversal": ("/v2/models/../../etc/passwd", ["--path-as-is"], 404),
    "dot model": ("/v2/models/../infer", ["--path-as-is", "-d", BODY], 400),
}


@pytest.mark.parametrize("row", WRONG)
def test_curl_wrong(server, row):
    path, options, status = WRONG[row]
    got, content_type, body = curl(server, path, *options)
    assert (got, content_type) == (status, "application/json"), body
    assert json.loads(body)["error"]


def test_curl_head_long(server):
    """A head over the bound is refused without an answer from the model."""
    status, _, _ = curl(server, "/v2/health/live", "-H", f"x-long: {'a' * 100_000}")
    assert status in (400, 431)


def grpcurl(server, *arguments: str, sent: dict | None = None, check: bool = True) -> subprocess.CompletedProcess:
    command = [str(GRPCURL), "-plaintext"]
    if sent is not None:
        command += ["-d", json.dumps(sent)]
    before, after = (arguments[:1], arguments[1:]) if arguments[0] in ("list", "describe") else ((), arguments)
    command += [server.grpc, *before, *after]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=check)


def test_grpcurl_lists_services(server):
    services = grpcurl(server, "list").stdout.split()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)


def test_grpcurl_lists_every_call(server):
    calls = {line.rsplit(".", 1)[1] for line in grpcurl(server, "list", SERVICE).stdout.split()}
    assert calls == {
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "ModelStreamInfer",
        "ModelConfig",
        "ModelStatistics",
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    }


def test_grpcurl_describes_messages(server):
    text = grpcurl(server, "describe", "inference.ModelInferRequest").stdout
    assert "raw_input_contents = 7" in text
    assert "max_batch_size = 4" in grpcurl(server, "describe", "inference.ModelConfig").stdout


def test_grpcurl_infers_through_reflection(server):
    inputs = [
        {"name": name, "datatype": "FP32", "shape": [1, 16], "contents": {"fp32_contents": [value] * 16}}
        for name, value in (("left", 1), ("right", 2))
    ]
    answer = json.loads(grpcurl(server, f"{SERVICE}/ModelInfer", sent={"model_name": "add", "inputs": inputs}).stdout)
    assert answer["modelName"] == "add"
    assert struct.unpack("<16f", base64.b64decode(answer["rawOutputContents"][0])) == (3.0,) * 16


@pytest.mark.parametrize("service", ["", SERVICE])
def test_grpcurl_health(server, service):
    answer = grpcurl(server, "grpc.health.v1.Health/Check", sent={"service": service})
    assert json.loads(answer.stdout) == {"status": "SERVING"}


def test_grpcurl_health_of_an_unknown_service(server):
    answer = grpcurl(server, "grpc.health.v1.Health/Check", sent={"service": "nope"}, check=False)
    assert "NotFound" in answer.stderr


def test_grpcurl_watches_health(server):
    """Watch tells the state at once and stays open: the deadline ends it."""
    command = [str(GRPCURL), "-plaintext", "-max-time", "1", "-d", "{}", server.grpc, "grpc.health.v1.Health/Watch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert json.loads(done.stdout) == {"status": "SERVING"}
    assert "DeadlineExceeded" in done.stderr


def test_grpcurl_tells_errors(server):
    answer = grpcurl(server, f"{SERVICE}/ModelMetadata", sent={"name": "nope"}, check=False)
    assert answer.returncode != 0 and "NotFound" in answer.stderr and "nope" in answer.stderr


def test_promtool_finds_nothing_to_complain(server):
    curl(server, "/v2/models/add/infer", "-d", BODY)
    curl(server, "/v2/models/nope/infer", "-d", BODY)
    status, content_type, text = curl(server, "/metrics", address=server.admin)
    assert status == 200 and content_type.startswith("text/plain")
    assert "kinglet_" in text
    try:
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("promtool is not installed and apt-get could not fetch it")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_metrics_know_models_by_name_only(server):
    """An unknown model is one label value, whatever a client types."""
    for name in ("nope", "nope2", "x" * 100):
        curl(server, f"/v2/models/{name}/infer", "-d", BODY)
    _, _, text = curl(server, "/metrics", address=server.admin)
    assert 'model="add"' in text
    assert "nope" not in text and "xxxx" not in text


def test_metrics_are_on_the_admin_listener_only(server):
    assert curl(server, "/metrics")[0] == 404
