"""KServe's v1 by its own client, and CloudEvents by the library that KServe's server reads them with."""

import asyncio

import httpx
import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http
from kserve import InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import InferRequest

ROWS = [[1.0, 2.0], [3.0, 4.0]]
ATTRIBUTES = {"type": "org.example.rows", "source": "/tests"}
SOURCE, TYPE = "io.kserve.inference.identity_fp32", "io.kserve.inference.response"


def rest(server, call):
    async def run():
        async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
            return await call(client, f"http://{server.http}")

    return asyncio.run(run())


def predict(server, model: str, body: dict, headers: dict | None = None) -> dict:
    return rest(server, lambda client, url: client.infer(url, body, model_name=model, headers=headers))


def test_readiness(server):
    assert rest(server, lambda client, url: client.is_model_ready(url, "add")) is True
    with pytest.raises(httpx.HTTPStatusError, match="not found"):
        rest(server, lambda client, url: client.is_model_ready(url, "nope"))


def test_predictions(server):
    assert predict(server, "identity_fp32", {"instances": ROWS}) == {"predictions": ROWS}
    row = {"left": [1] * 16, "right": [2] * 16}
    assert predict(server, "add", {"instances": [row]}) == {"predictions": [[3.0] * 16]}


def test_refusals(server):
    for model, body, status in [("nope", {"instances": ROWS}, 404), ("add", {"instances": ROWS}, 400)]:
        with pytest.raises(httpx.HTTPStatusError) as failure:
            predict(server, model, body)
        assert failure.value.response.status_code == status and failure.value.response.json()["error"]
    with pytest.raises(httpx.HTTPStatusError, match="explanations are not served"):
        rest(server, lambda client, url: client.explain(url, model_name="add", data={"instances": ROWS}))


@pytest.mark.parametrize("form", [to_binary, to_structured])
@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_events(server, form, key):
    """Rows in both keys: events are KServe's, whatever `dialects.inputs_as` says."""
    headers, body = form(CloudEvent(ATTRIBUTES, {key: ROWS}))
    if form is to_binary:
        headers = headers | {"content-type": "application/json"}
    answer = post(server, "/v1/models/identity_fp32:predict", headers, body)
    assert answer.status_code == 200, answer.text
    kind = "application/cloudevents+json" if form is to_structured else "application/json"
    assert answer.headers["content-type"] == kind
    event = from_http(dict(answer.headers), answer.content)
    assert (event["source"], event["type"], event["specversion"]) == (SOURCE, TYPE, "1.0")
    assert event["id"] and event.data == {"predictions": ROWS}


def test_events_that_are_none(server):
    structured, body = to_structured(CloudEvent(ATTRIBUTES, {"instances": ROWS}))
    path = "/v1/models/identity_fp32:predict"
    for headers, text, status, words in [
        (structured, body.replace(b'"1.0"', b'"0.3"'), 400, 'specversion "1.0", got "0.3"'),
        (structured, b'{"specversion": "1.0"}', 400, "missing field"),
        (structured, b"{", 400, "invalid request"),
        ({"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t"}, body, 400, "lacks header ce-source"),
        ({"content-type": "application/cloudevents-batch+json"}, b"[]", 501, "one event a request"),
    ]:
        answer = post(server, path, headers, text)
        assert answer.status_code == status and words in answer.json()["error"], answer.text


def test_numbers_that_json_lacks_in_an_event(server):
    headers, body = to_structured(CloudEvent(ATTRIBUTES, {"instances": [[0.5]]}))
    answer = post(server, "/v1/models/identity_fp32:predict", headers, body.replace(b"0.5", b"NaN"))
    assert answer.status_code == 200 and '{"predictions":[[NaN]]}' in answer.text


def test_v2_takes_no_events(server):
    """It has parameters of its own: the headers of an event mean nothing to it."""
    body = InferRequest("identity_fp32", []).to_dict() | {
        "inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]
    }
    headers, _ = to_binary(CloudEvent(ATTRIBUTES, {}))
    answer = httpx.post(f"http://{server.http}/v2/models/identity_fp32/infer", headers=headers, json=body)
    assert answer.status_code == 200 and "ce-id" not in answer.headers


def post(server, path: str, headers: dict, body: bytes) -> httpx.Response:
    return httpx.post(f"http://{server.http}{path}", headers=headers, content=body)
