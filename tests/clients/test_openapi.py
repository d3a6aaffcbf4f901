"""The OpenAPI documents: read by their own validator, their examples sent, and schemathesis let loose on them."""

import http.client
import json
import subprocess
import sys
import urllib.parse
from pathlib import Path

import jsonschema
import openapi_spec_validator
import pytest

from server import Server

ALL_ON = {
    "KINGLET__DIALECTS__SAGEMAKER": "true",
    "KINGLET__DIALECTS__VERTEX": "true",
    "KINGLET__DIALECTS__VERTEX_HEALTH_ROUTE": "/health",
    "KINGLET__DIALECTS__VERTEX_PREDICT_ROUTE": "/predict",
    "KINGLET__DIALECTS__DEFAULT_MODEL": "digits",
    "KINGLET__SHARED_MEMORY__ENABLED": "true",
    "KINGLET__TRACING__SETTINGS_OVER_NETWORK": "true",
}
# Deadlines that a client sets itself may pass, and what is refused is refused with many statuses.
SCHEMATHESIS = """
[checks]
not_a_server_error = { expected-statuses = ["2xx", "3xx", "4xx", 501, 504] }
negative_data_rejection = { expected-statuses = ["4xx", "5xx"] }
"""
# Some output is no number of JSON, or the row that is made up is none that the model takes.
WITHOUT_EXAMPLE = {"identity_fp16", "identity_bf16"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The models that come with the server, every dialect switched on."""
    with Server([Path("models")], tmp_path_factory.mktemp("openapi") / "kinglet.log", ALL_ON) as running:
        yield running


def ask(address, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = response.getheader("content-type", "").endswith("json")
    return response.status, dict(response.getheaders()), json.loads(content) if is_json else content


def document(address, path="/openapi.json"):
    status, headers, told = ask(address, "GET", path)
    assert status == 200 and headers["content-type"] == "application/json", told
    return told


def check(doc, schema, value):
    """A value against a schema of a document."""
    jsonschema.Draft202012Validator({**schema, "components": doc["components"]}).validate(value)


def resolve(doc, value):
    if "$ref" not in value:
        return value
    for part in value["$ref"].removeprefix("#/").split("/"):
        doc = doc[part]
    return doc


def calls(doc):
    for path, verbs in doc["paths"].items():
        for verb, operation in verbs.items():
            yield path, verb.upper(), operation


def filled(doc, path, operation):
    """The path with the document's own examples, or nothing where it has none."""
    for parameter in (resolve(doc, one) for one in operation["parameters"]):
        if parameter["in"] == "path":
            if "example" not in parameter:
                return None
            path = path.replace("{%s}" % parameter["name"], urllib.parse.quote(str(parameter["example"])))
    return path


def example(doc, operation):
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    for one in content.get("examples", {}).values():
        return content["schema"], resolve(doc, one)["value"]
    return None, None


def send_examples(address, doc):
    """Every call with the document's examples; the paths that were asked."""
    asked = []
    for path, verb, operation in calls(doc):
        schema, body = example(doc, operation)
        target = filled(doc, path, operation)
        changes = verb == "DELETE" or path.endswith(("load", "/models", "/setting", "register")) and verb == "POST"
        if target is None or changes or (verb == "POST" and "requestBody" in operation and schema is None):
            continue
        if schema is not None:
            check(doc, schema, body)
        status, headers, told = ask(address, verb, target, schema and json.dumps(body))
        assert status == 200, (verb, target, told)
        content = operation["responses"]["200"]["content"]
        kind = headers["content-type"].split(";json")[0]
        assert kind in content, (target, kind)
        if kind == "application/json":
            check(doc, content[kind]["schema"], told)
        asked.append(path)
    return asked


@pytest.mark.parametrize("listener", ["http", "admin"])
def test_the_server_document_is_valid_and_its_examples_work(demo, listener):
    address = getattr(demo, listener)
    doc = document(address)
    openapi_spec_validator.validate(doc)
    assert document(address, "/v2/docs/dataplane.json") == doc
    assert len(send_examples(address, doc)) > 20
    assert ("/predict" in doc["paths"]) == ("/invocations" in doc["paths"]) == (listener == "http")
    assert ("/metrics" in doc["paths"]) == (listener == "admin")


def test_what_is_switched_off_is_not_described(tmp_path):
    off = {
        "KINGLET__DIALECTS__V1": "false",
        "KINGLET__ADMIN__UI": "false",
        "KINGLET__ADMIN__DOCS": "true",
    }
    with Server([Path("models")], tmp_path / "kinglet.log", off) as running:
        paths = document(running.http)["paths"]
        assert not [path for path in paths if not path.startswith(("/v2", "/openapi.json"))]
        assert not [path for path in document(running.admin)["paths"] if path.endswith("/infer")]
        model = document(running.http, "/v2/models/wine/openapi.json")
        openapi_spec_validator.validate(model)
        assert not [name for name in model["components"]["schemas"] if name.startswith(("V1", "OwnV1"))]


def test_documents_can_be_switched_off(tmp_path):
    off = {"KINGLET__HTTP__DOCS": "false", "KINGLET__ADMIN__DOCS": "false"}
    with Server([Path("models")], tmp_path / "kinglet.log", off) as running:
        for address in (running.http, running.admin):
            for path in ("/openapi.json", "/docs", "/docs/", "/v2/docs", "/v2/models/wine/openapi.json"):
                assert ask(address, "GET", path)[0] == 404, path


def test_every_model_has_a_document_whose_examples_work(server, zoo):
    """Each datatype and shape of the zoo: what a document says of a model the model does."""
    server_document = document(server.http)
    assert len(json.dumps(server_document)) < 80_000
    for model in sorted(folder.name for folder in zoo.iterdir()):
        doc = document(server.http, f"/v2/models/{model}/openapi.json")
        openapi_spec_validator.validate(doc)
        asked = send_examples(server.http, doc)
        assert f"/v1/models/{model}:predict" in asked
        assert (f"/v2/models/{model}/infer" in asked) == (model not in WITHOUT_EXAMPLE), model
        assert len(json.dumps(doc)) < 80_000


def test_a_version_has_a_document_of_its_own(server):
    doc = document(server.http, "/v2/models/versions/versions/1/openapi.json")
    asked = send_examples(server.http, doc)
    assert "/v2/models/versions/versions/1/infer" in asked and "/v1/models/versions/versions/1:predict" in asked
    assert ask(server.http, "GET", "/v2/models/versions/versions/2/openapi.json")[0] == 404
    assert ask(server.http, "GET", "/v2/models/none/openapi.json")[0] == 404
    assert ask(server.http, "GET", "/v2/models/.x/openapi.json")[0] == 400


def test_requests_that_do_not_fit_fit_no_schema(server):
    doc = document(server.http, "/v2/models/sum_difference/openapi.json")
    request = doc["components"]["schemas"]["OwnRequest"]
    _, body = example(doc, doc["paths"]["/v2/models/sum_difference/infer"]["post"])
    check(doc, request, {"inputs": body["inputs"][::-1]})
    one = body["inputs"][0]
    for wrong in (
        {"inputs": [one]},
        {"inputs": [one, one]},
        {"inputs": body["inputs"] + [one]},
        {"inputs": [one, {**one, "name": "other"}]},
        {"inputs": [one, {**body["inputs"][1], "shape": [1, 17]}]},
        {"inputs": [one, {**body["inputs"][1], "datatype": "FP64"}]},
        {"inputs": [one, {**body["inputs"][1], "data": ["x"] * 16}]},
        {},
    ):
        status, _, told = ask(server.http, "POST", "/v2/models/sum_difference/infer", json.dumps(wrong))
        assert status == 400, told
        with pytest.raises(jsonschema.ValidationError):
            check(doc, request, wrong)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "listener, path, examples",
    [
        ("http", "/openapi.json", 2),
        ("admin", "/openapi.json", 2),
        ("http", "/v2/models/vowels/openapi.json", 10),
        ("http", "/v2/models/wine/openapi.json", 10),
    ],
)
def test_schemathesis_finds_nothing(demo, tmp_path, listener, path, examples):
    """All of its checks but one: that what a schema allows is taken does not hold where an axis is free."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(SCHEMATHESIS)
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run"]
    command += ["--max-examples", str(examples), "--seed", "1", "--exclude-checks", "positive_data_acceptance"]
    command += ["--suppress-health-check", "all", "--warnings", "off", "--no-color"]
    command.append(f"http://{getattr(demo, listener)}{path}")
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    shown = [line[:300] for line in run.stdout.splitlines()]
    assert run.returncode == 0, "\n".join(shown[-80:])
