"""The trace extension: settings as tritonclient reads and changes them, and what then reaches the collector."""

import http.client

import numpy as np
import pytest
import tritonclient.grpc

from caller import CLIENTS, Caller
from receiver import Receiver, attributes
from server import Server, free_ports
from test_tracing import GRPC_SPAN, REST_SPAN, SAMPLED, STREAM_SPAN, TRACE, rest
from watching import wait_for
from wires import grpc_input, refused
from zoo import add, save

# So many that a rate shows.
MANY = 200
OURS = {"trace_mode": ["opentelemetry"], "trace_file": [""], "log_frequency": ["0"]}


@pytest.fixture
def models(tmp_path):
    for name in ("add", "other"):
        save(tmp_path / "models" / name, add())
    return tmp_path / "models"


@pytest.fixture
def receiver():
    with Receiver("http/protobuf", free_ports(1)[0]) as receiver:
        yield receiver


@pytest.fixture
def server(models, tmp_path, receiver):
    own = {"ENDPOINT": receiver.endpoint, "INTERVAL": "50ms", "SAMPLE_RATIO": "0", "SETTINGS_OVER_NETWORK": "true"}
    settings = {f"KINGLET__TRACING__{name}": value for name, value in own.items()}
    settings |= {"KINGLET__REPOSITORY__CONTROL": "poll", "KINGLET__REPOSITORY__POLL_INTERVAL": "100ms"}
    settings |= {"KINGLET__REPOSITORY__SETTLE_TIME": "0s"}
    with Server([models], tmp_path / "log", settings) as running:
        yield running


@pytest.fixture(params=CLIENTS)
def caller(request, server):
    return Caller(request.param, server)


@pytest.fixture(params=["rest", "grpc"])
def blocking(request, server):
    return Caller(request.param, server)


def told(answer: dict) -> dict[str, list[str]]:
    """REST writes texts where gRPC has lists of one; the level is a list on both."""
    if "settings" in answer:
        return {name: setting["value"] for name, setting in answer["settings"].items()}
    assert isinstance(answer["trace_level"], list)
    assert all(isinstance(value, str) for name, value in answer.items() if name != "trace_level")
    return {name: value if isinstance(value, list) else [value] for name, value in answer.items()}


def settings(level: str, rate: str, count: str) -> dict[str, list[str]]:
    return OURS | {"trace_level": [level], "trace_rate": [rate], "trace_count": [count]}


def read(caller, model: str | None = None) -> dict[str, list[str]]:
    return told(caller.call("get_trace_settings", model))


def change(caller, model: str | None = None, **changes) -> dict[str, list[str]]:
    return told(caller.call("update_trace_settings", model, changes))


def spans(receiver, server, name: str = REST_SPAN) -> list:
    """Of traces that began in the server, once everything is sent that came before."""
    is_mark = lambda span: span.trace_id.hex() == TRACE and span.name == REST_SPAN
    before = sum(map(is_mark, receiver.spans))
    rest(server, "add", SAMPLED)
    came = receiver.wait(lambda spans: sum(map(is_mark, spans)) > before)
    return [span for span in came if span.name == name and span.trace_id.hex() != TRACE]


def test_settings_are_read_and_changed(caller):
    assert "trace" in caller.call("get_server_metadata")["extensions"]
    assert read(caller) == read(caller, "add") == settings("TIMESTAMPS", "0", "-1")
    assert change(caller, trace_rate="4", trace_count="9") == settings("TIMESTAMPS", "4", "9")
    assert change(caller, "add", trace_level=["OFF"]) == settings("OFF", "4", "9")
    assert read(caller, "other") == read(caller) == settings("TIMESTAMPS", "4", "9")
    assert change(caller, "add", trace_level=None, trace_rate="7") == settings("TIMESTAMPS", "7", "9")
    assert change(caller, trace_rate=None, trace_count=None, trace_level=None) == settings("TIMESTAMPS", "0", "-1")
    assert read(caller, "add") == settings("TIMESTAMPS", "7", "-1")
    assert change(caller, "add", trace_rate=None) == settings("TIMESTAMPS", "0", "-1")


def test_what_was_read_may_be_sent_back(caller):
    answer = read(caller)
    sent = {name: value if name == "trace_level" else value[0] for name, value in answer.items()}
    assert change(caller, **sent) == answer


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"trace_file": "/tmp/stolen"}, "unsupported", "trace_file"),
        ({"log_frequency": "5"}, "unsupported", "log_frequency"),
        ({"trace_mode": "triton"}, "unsupported", "trace_mode"),
        ({"trace_level": ["TENSORS"]}, "unsupported", "TENSORS"),
        ({"trace_level": ["TIMESTAMPS", "TENSORS"]}, "unsupported", "TENSORS"),
        ({"trace_level": ["LOUD"]}, "invalid", "LOUD"),
        ({"trace_rate": "-1"}, "invalid", "trace_rate"),
        ({"trace_rate": "many"}, "invalid", "many"),
        ({"trace_count": "-2"}, "invalid", "trace_count"),
        ({"colour": "blue"}, "invalid", "colour"),
    ],
)
def test_what_is_refused_changes_nothing(blocking, changes, code, words):
    before = read(blocking)
    for model in (None, "add"):
        refused(lambda: change(blocking, model, **({"trace_rate": "3"} | changes)), code, words)
        assert read(blocking) == read(blocking, "add") == before
    refused(lambda: change(blocking, "nope", trace_rate="3"), "not found", "nope")
    refused(lambda: read(blocking, "nope"), "not found", "nope")


@pytest.mark.parametrize("body", ['{"trace_level": "OFF"}', '{"trace_rate": 4}', '{"trace_rate": ["4"]}'])
def test_other_spellings_over_rest(server, body):
    assert post(server, "/v2/trace/setting", body)[0] == 200


@pytest.mark.parametrize("body", ['{"trace_level": {}}', '{"trace_rate": [4]}', '{"trace_rate": 1.5}', "[]", "{", '{"trace_level": []}'])
def test_what_is_no_setting_over_rest(server, body):
    assert post(server, "/v2/trace/setting", body)[0] == 400


def test_pages_of_other_sites_change_nothing(server):
    status, _ = post(server, "/v2/trace/setting", '{"trace_rate": "1"}', {"Origin": "http://evil.example"})
    assert status == 403 and read(Caller("rest", server))["trace_rate"] == ["0"]


def post(server, path: str, body: str, headers: dict | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.http)
    connection.request("POST", path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("wire", ["rest", "grpc"])
def test_a_changed_rate_changes_what_arrives(server, receiver, blocking, wire):
    ask, name = {"rest": (rest_once, REST_SPAN), "grpc": (grpc_once, GRPC_SPAN)}[wire]
    for _ in range(20):
        ask(server)
    assert spans(receiver, server, name) == []
    change(blocking, trace_rate="1")
    for _ in range(20):
        ask(server)
    assert len(spans(receiver, server, name)) == 20
    change(blocking, trace_rate="4")
    for _ in range(MANY):
        ask(server)
    assert MANY / 8 < len(spans(receiver, server, name)) - 20 < MANY / 2
    before = len(spans(receiver, server, name))
    change(blocking, trace_level=["OFF"])
    for headers in ({}, SAMPLED):
        rest(server, "add", headers)
        unary_add(server, headers)
    change(blocking, trace_level=None, trace_rate="0")
    assert len(spans(receiver, server, name)) == before


def rest_once(server, model: str = "add") -> dict:
    return rest(server, model)[1]


def grpc_once(server, model: str = "add") -> None:
    unary_add(server, {}, model)


def add_inputs() -> list:
    return [grpc_input(name, np.ones((1, 16), np.float32)) for name in ("left", "right")]


def unary_add(server, headers: dict, model: str = "add") -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.infer(model, add_inputs(), headers=headers)


@pytest.mark.parametrize("wire", ["rest", "grpc"])
def test_a_model_decides_for_itself(server, receiver, blocking, wire):
    ask, name = {"rest": (rest_once, REST_SPAN), "grpc": (grpc_once, GRPC_SPAN)}[wire]
    change(blocking, "other", trace_rate="1")
    for _ in range(10):
        ask(server, "add")
        ask(server, "other")
    came = [attributes(span)["kinglet.model.name"] for span in spans(receiver, server, name)]
    assert came == ["other"] * 10
    change(blocking, trace_rate="1")
    change(blocking, "other", trace_level=["OFF"])
    for _ in range(10):
        ask(server, "add")
        ask(server, "other")
    came = [attributes(span)["kinglet.model.name"] for span in spans(receiver, server, name)]
    assert sorted(came) == ["add"] * 10 + ["other"] * 10, "ten of each setting"
    # Batches of what was not recorded are not either.
    assert all(span.links for span in receiver.spans if span.name == "batch")


def test_who_is_not_recorded_is_told_no_trace(server, blocking):
    change(blocking, "other", trace_rate="1")
    assert "traceparent" in rest_once(server, "other")
    assert "traceparent" not in rest_once(server, "add")
    assert rest(server, "add", SAMPLED)[1]["traceparent"].endswith("-01"), "the client's own is passed on"


def test_a_count_counts_down(server, receiver, blocking):
    assert change(blocking, trace_rate="1", trace_count="3")["trace_count"] == ["3"]
    for _ in range(2):
        rest_once(server)
    assert read(blocking)["trace_count"] == ["1"]
    for _ in range(10):
        rest_once(server)
    assert read(blocking)["trace_count"] == ["0"]
    assert change(blocking, trace_count=None)["trace_count"] == ["-1"]
    change(blocking, trace_rate=None)
    assert len(spans(receiver, server)) == 3


def test_a_streams_requests_follow_their_models(server, receiver, blocking):
    change(blocking, trace_rate="1")
    change(blocking, "other", trace_level=["OFF"])
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        answers = []
        client.start_stream(lambda result, error: answers.append((result, error)))
        for model in ("add", "other", "add"):
            client.async_stream_infer(model, add_inputs())
        client.stop_stream()
    assert len(answers) == 3 and not any(error for _, error in answers)
    [stream] = receiver.wait_for(STREAM_SPAN)
    spans(receiver, server)
    parts = [span for span in receiver.spans if span.name == "infer"]
    assert [attributes(span)["kinglet.model.name"] for span in parts] == ["add", "add"]
    assert {span.parent_span_id for span in parts} == {stream.span_id}


def test_a_models_settings_go_with_it(server, models, blocking):
    change(blocking, "other", trace_rate="1")
    kept = models.parent / "kept"
    (models / "other").rename(kept)
    wait_until(server, "other", is_known=False)
    refused(lambda: read(blocking, "other"), "not found", "other")
    kept.rename(models / "other")
    wait_until(server, "other", is_known=True)
    assert read(blocking, "other")["trace_rate"] == ["0"]
    assert "traceparent" not in rest_once(server, "other")


def wait_until(server, model: str, is_known: bool) -> None:
    def known() -> bool:
        connection = http.client.HTTPConnection(server.http)
        connection.request("GET", f"/v2/models/{model}")
        return connection.getresponse().status == 200

    wait_for(lambda: known() == is_known)


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9"])
def test_changes_are_off_by_default_and_need_a_collector(models, tmp_path, endpoint):
    def serving(**own: str):
        named = {f"KINGLET__TRACING__{name}": value for name, value in ({"ENDPOINT": endpoint} | own).items()}
        return Server([models], tmp_path / "log", named)

    level = "TIMESTAMPS" if endpoint else "OFF"
    with serving() as running:
        for kind in ("rest", "grpc"):
            caller = Caller(kind, running)
            assert read(caller) == settings(level, "1", "-1")
            assert ("trace" in caller.call("get_server_metadata")["extensions"]) == bool(endpoint)
            refused(lambda: change(caller, trace_level=["OFF"]), "denied", "tracing.settings_over_network")
            assert read(caller, "add") == settings(level, "1", "-1")
    if endpoint:
        return
    with serving(SETTINGS_OVER_NETWORK="true") as running:
        for kind in ("rest", "grpc"):
            caller = Caller(kind, running)
            refused(lambda: change(caller, trace_level=["TIMESTAMPS"]), "invalid", "tracing.endpoint")
            assert change(caller, trace_level=["OFF"]) == settings("OFF", "1", "-1")
