"""Spans as a collector gets them: whose they are, what is in them, and what happens while it is away."""

import http.client
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from tritonclient.grpc import service_pb2, service_pb2_grpc

from receiver import Receiver, attributes, children, seconds
from server import Server, free_ports
from watching import metrics, wait_for
from wires import grpc_input
from zoo import SLOW_WIDTH, add, manifest, save, slow

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
STAGES = ["decode", "queue", "gather", "compute", "encode"]
REST_SPAN = "POST /v2/models/{model}/infer"
GRPC_SPAN = "inference.GRPCInferenceService/ModelInfer"
STREAM_SPAN = "inference.GRPCInferenceService/ModelStreamInfer"
CROWD = 6


@pytest.fixture
def models(tmp_path):
    save(tmp_path / "models" / "add", add())
    save(tmp_path / "models" / "slow", slow())
    manifest(tmp_path / "models" / "slow", {"batching.batch_size_max": "8", "instances.max": "1"})
    return tmp_path / "models"


@pytest.fixture(params=["http/protobuf", "grpc"])
def receiver(request):
    with Receiver(request.param, free_ports(1)[0]) as receiver:
        yield receiver


@pytest.fixture
def over_http():
    with Receiver("http/protobuf", free_ports(1)[0]) as receiver:
        yield receiver


def tracing(receiver, **settings: str) -> dict[str, str]:
    own = {"ENDPOINT": receiver.endpoint, "PROTOCOL": receiver.protocol, "INTERVAL": "50ms", "SAMPLE_RATIO": "0"}
    named = {f"KINGLET__TRACING__{name}": value for name, value in (own | settings).items()}
    return named | {"KINGLET__METERING__SOURCE": "model", "KINGLET__METERING__WINDOW": "100ms"}


def test_a_request_has_a_span_in_its_clients_trace(models, tmp_path, receiver):
    settings = tracing(receiver, HEADERS="x-key=a%20b", RESOURCE_ATTRIBUTES="deployment.environment.name=test")
    with Server([models], tmp_path / "log", settings) as running:
        wait_for(lambda: "kinglet-energy-joules" in rest(running, "add")[1])
        status, answered, _ = rest(running, "add", SAMPLED)
        spans = receiver.wait(lambda spans: len(spans) >= 7)
    assert status == 200 and len(spans) == 7, [span.name for span in spans]
    [span] = [span for span in spans if span.name == REST_SPAN]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.kind == Span.SPAN_KIND_SERVER and span.flags == 0x301 and span.trace_state == "vendor=1"
    assert answered["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert span.status.code == Status.STATUS_CODE_UNSET
    told = attributes(span)
    host, port = running.http.split(":")
    assert told["kinglet.energy.joules"] == float(answered["kinglet-energy-joules"])
    assert told.pop("kinglet.cpu.seconds") > 0 and told.pop("kinglet.energy.joules") > 0
    assert told == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v2/models/{model}/infer",
        "network.protocol.version": "1.1",
        "url.path": "/v2/models/add/infer",
        "url.scheme": "http",
        "server.address": host,
        "server.port": int(port),
        "kinglet.model.name": "add",
        "kinglet.model.version": "1",
        "kinglet.rows": 2,
        "kinglet.batch.rows": 2,
        "kinglet.batch.reason": "idle",
        "kinglet.energy.source": "model",
        "kinglet.energy.quality": "modelled",
    }
    sender = attributes(receiver.messages[0].resource_spans[0].resource)
    assert sender["service.name"] == "kinglet" and sender["deployment.environment.name"] == "test"
    assert re.fullmatch(r"\d+\.\d+\.\d+", sender["service.version"])
    assert receiver.headers[0]["x-key"] == "a b"


def test_other_dialects_are_named_by_their_paths(models, tmp_path, over_http):
    row = json.dumps({"instances": [{"left": [1] * 16, "right": [2] * 16}]})
    with Server([models], tmp_path / "log", tracing(over_http)) as running:
        connection = http.client.HTTPConnection(running.http)
        connection.request("POST", "/v1/models/add/versions/1:predict", row, SAMPLED)
        assert connection.getresponse().status == 200
        spans = over_http.wait(lambda spans: len(spans) >= 7)
    [span] = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert span.name == "POST /v1/models/{model}/versions/{version}:predict"
    assert attributes(span)["http.route"] == "/v1/models/{model}/versions/{version}:predict"


def test_stages_stand_one_after_the_other_within_the_request(models, tmp_path, receiver):
    with Server([models], tmp_path / "log", tracing(receiver)) as running:
        before = time.time_ns()
        unary(running, SAMPLED)
        after = time.time_ns()
        spans = receiver.wait(lambda spans: len(spans) >= 7)
    [span] = [span for span in spans if span.name == GRPC_SPAN]
    stages = sorted(children(spans, span), key=lambda span: span.start_time_unix_nano)
    assert [stage.name for stage in stages] == STAGES
    ends = [span.start_time_unix_nano, *(stage.end_time_unix_nano for stage in stages)]
    assert all(end <= stage.start_time_unix_nano for end, stage in zip(ends, stages)), spans
    assert stages[-1].end_time_unix_nano == span.end_time_unix_nano
    assert before <= span.start_time_unix_nano < span.end_time_unix_nano <= after
    # What is between them: the batch handed over and its outputs back.
    covered = sum(map(seconds, stages))
    assert 0.8 * seconds(span) < covered <= seconds(span)
    assert {stage.kind for stage in stages} == {Span.SPAN_KIND_INTERNAL}
    told = attributes(span)
    assert (told["rpc.system.name"], told["rpc.method"], told["rpc.response.status_code"]) == ("grpc", GRPC_SPAN, "OK")
    assert told["kinglet.model.name"] == "slow" and told["server.port"] == int(running.grpc.split(":")[1])


def test_a_batch_names_all_its_requests_and_they_name_it(models, tmp_path, over_http):
    with Server([models], tmp_path / "log", tracing(over_http, SAMPLE_RATIO="1")) as running:
        with ThreadPoolExecutor(CROWD) as clients:
            list(clients.map(lambda _: unary(running, {}), range(CROWD)))
        over_http.wait(lambda spans: sum(span.name == GRPC_SPAN for span in spans) == CROWD)
        spans = over_http.wait(lambda spans: sum(len(span.links) for span in spans if span.name == "batch") == CROWD)
    requests = {span.span_id: span for span in spans if span.name == GRPC_SPAN}
    batches = {span.span_id: span for span in spans if span.name == "batch"}
    assert len({span.trace_id for span in spans}) == len(requests) + len(batches), "each is a trace of its own"
    named = [link.span_id for batch in batches.values() for link in batch.links]
    assert sorted(named) == sorted(requests)
    assert max(len(batch.links) for batch in batches.values()) > 1, "some were merged"
    for batch in batches.values():
        told = attributes(batch)
        assert told["kinglet.batch.requests"] == told["kinglet.batch.rows"] == len(batch.links)
        assert not batch.parent_span_id
        cpu = 0
        for link in batch.links:
            request = requests[link.span_id]
            assert request.trace_id == link.trace_id
            assert attributes(request)["kinglet.batch.rows"] == len(batch.links)
            cpu += attributes(request)["kinglet.cpu.seconds"]
            [compute] = [span for span in children(spans, request) if span.name == "compute"]
            assert [(link.trace_id, link.span_id) for link in compute.links] == [(batch.trace_id, batch.span_id)]
            # Two looks at the clock of the calendar lie between them.
            slack = 1_000_000
            assert batch.start_time_unix_nano - slack <= compute.start_time_unix_nano
            assert compute.end_time_unix_nano <= batch.end_time_unix_nano + slack
        assert told["kinglet.cpu.seconds"] == pytest.approx(cpu, abs=1e-6)


def test_messages_of_a_stream_are_within_its_span(models, tmp_path, over_http):
    with Server([models], tmp_path / "log", tracing(over_http)) as running:
        with grpc.insecure_channel(running.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            requests = [message("add"), message("nothing"), message("add")]
            answers = stub.ModelStreamInfer(iter(requests), metadata=tuple(SAMPLED.items()))
            assert len(list(answers)) == 3
        [call] = over_http.wait_for(STREAM_SPAN)
        spans = over_http.wait(lambda spans: len(spans) >= 1 + 2 * 6 + 1 + 2)
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(call)["rpc.response.status_code"] == "OK"
    messages = children(spans, call)
    assert [span.name for span in messages] == ["infer"] * 3
    assert sorted(attributes(span).get("error.type", "") for span in messages) == ["", "", "not_found"]
    assert sorted(len(children(spans, span)) for span in messages) == [1, 5, 5]


@pytest.mark.parametrize(
    "model, headers, status, error, is_error",
    [
        ("nothing", {}, 404, "not_found", False),
        ("add", {"content-type": "image/png"}, 415, "invalid_argument", False),
        ("slow", {"kinglet-timeout-ms": "1"}, 504, "deadline_exceeded", True),
    ],
)
def test_failures_of_the_server_are_errors(models, tmp_path, over_http, model, headers, status, error, is_error):
    with Server([models], tmp_path / "log", tracing(over_http)) as running:
        assert rest(running, model, SAMPLED | headers)[0] == status
        [span] = over_http.wait_for(REST_SPAN)
    told = attributes(span)
    assert (told["http.response.status_code"], told["error.type"]) == (status, error)
    assert (span.status.code == Status.STATUS_CODE_ERROR) == is_error
    assert span.status.message == (error if is_error else "")
    assert "kinglet.energy.joules" not in told and "kinglet.rows" not in told


def test_failures_over_grpc_have_the_name_of_their_status(models, tmp_path, over_http):
    with Server([models], tmp_path / "log", tracing(over_http)) as running:
        with grpc.insecure_channel(running.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for model, timeout in (("nothing", 10), ("slow", 0.001)):
                with pytest.raises(grpc.RpcError):
                    stub.ModelInfer(message(model), metadata=tuple(SAMPLED.items()), timeout=timeout)
        spans = over_http.wait_for(GRPC_SPAN, 2)
    by_error = {attributes(span)["error.type"]: span for span in spans}
    unknown = by_error.pop("not_found")
    assert attributes(unknown)["rpc.response.status_code"] == "NOT_FOUND"
    assert unknown.status.code == Status.STATUS_CODE_UNSET
    # Whoever looks at the clock first: the client leaves, or the server says that time is over.
    [(error, _)] = by_error.items()
    assert error in ("deadline_exceeded", "cancelled")


def test_the_client_decides_what_is_sampled(models, tmp_path, over_http):
    with Server([models], tmp_path / "log", tracing(over_http, SAMPLE_RATIO="1")) as running:
        answered = rest(running, "add", UNSAMPLED)[1]
        assert answered["traceparent"].endswith("-00")
        answered = rest(running, "add")[1]
        [span] = over_http.wait_for(REST_SPAN)
        assert answered["traceparent"] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
        assert not span.parent_span_id


def test_the_ratio_decides_where_the_client_does_not_and_is_read_again(models, tmp_path, over_http):
    config = tmp_path / "kinglet.toml"
    config.write_text("[tracing]\nsample_ratio = 0.0\n")
    settings = tracing(over_http)
    del settings["KINGLET__TRACING__SAMPLE_RATIO"]
    with Server([models], tmp_path / "log", settings, config=config) as running:
        assert "traceparent" not in rest(running, "add")[1]
        config.write_text("[tracing]\nsample_ratio = 0.5\n")
        assert post(running.admin, "/admin/config/reload", b"", {})[0] == 200
        for _ in range(200):
            rest(running, "add")
        over_http.wait(any)
        running.terminate()
        assert running.wait_exit() == 0
    spans = [span for span in over_http.spans if span.name == REST_SPAN]
    # Less than one run in 10^14 lies outside.
    assert 43 < len(spans) < 157, len(spans)


def test_a_client_with_opentelemetrys_own_library(models, tmp_path, over_http):
    propagator = TraceContextTextMapPropagator()
    with Server([models], tmp_path / "log", tracing(over_http)) as running:
        for provider in (TracerProvider(sampler=ALWAYS_OFF), TracerProvider()):
            with provider.get_tracer("client").start_as_current_span("ask") as mine:
                headers = {}
                propagator.inject(headers)
                rest(running, "add", headers)
        [span] = over_http.wait_for(REST_SPAN)
    context = mine.get_span_context()
    assert int.from_bytes(span.trace_id, "big") == context.trace_id
    assert int.from_bytes(span.parent_span_id, "big") == context.span_id


def test_opentelemetrys_variables_are_read(models, tmp_path, over_http):
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": over_http.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20YQ==",
        "OTEL_SERVICE_NAME": "digits",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=nobody,service.namespace=lab",
        "KINGLET__TRACING__INTERVAL": "50ms",
    }
    with Server([models], tmp_path / "log", settings) as running:
        rest(running, "add")
        over_http.wait_for(REST_SPAN)
    sender = attributes(over_http.messages[0].resource_spans[0].resource)
    assert (sender["service.name"], sender["service.namespace"]) == ("digits", "lab")
    assert over_http.headers[0]["authorization"] == "Basic YQ=="


def test_a_collector_that_is_away_costs_spans_and_no_request(models, tmp_path, receiver):
    receiver.pause()
    settings = tracing(receiver, QUEUE_MAX="8", BATCH_MAX="4", SAMPLE_RATIO="1")
    with Server([models], tmp_path / "log", settings) as running:
        for _ in range(50):
            assert rest(running, "add")[0] == 200
        # A request has six spans and its batch one; at most eight of them wait, and four are on their way.
        wait_for(lambda: spans_by_result(running)["dropped"] >= 50 * 7 - 12 * 6)
        assert spans_by_result(running)["dropped"] < 50 * 7 and spans_by_result(running)["sent"] == 0
        receiver.resume()
        receiver.wait(any)
        wait_for(lambda: sum(spans_by_result(running).values()) == 50 * 7)
        rest(running, "add")
        wait_for(lambda: sum(spans_by_result(running).values()) == 51 * 7)
        assert spans_by_result(running)["sent"] == len(receiver.spans)
        log = running.log.read_text()
    assert log.count("traces are not taken") == 1 and log.count("taken by their collector again") == 1, log


def test_what_a_collector_refuses_for_good_is_not_sent_again(models, tmp_path, receiver):
    receiver.answer = grpc.StatusCode.INVALID_ARGUMENT if receiver.protocol == "grpc" else 400
    with Server([models], tmp_path / "log", tracing(receiver)) as running:
        rest(running, "add", SAMPLED)
        wait_for(lambda: spans_by_result(running)["refused"] == 7)
        receiver.answer = grpc.StatusCode.UNAVAILABLE if receiver.protocol == "grpc" else 503
        rest(running, "add", SAMPLED)
        time.sleep(0.3)
        assert spans_by_result(running) == {"sent": 0, "dropped": 0, "refused": 7}
        receiver.answer = None
        wait_for(lambda: spans_by_result(running)["sent"] == 7)


def test_the_end_sends_what_waits(models, tmp_path, receiver):
    with Server([models], tmp_path / "log", tracing(receiver, INTERVAL="1h")) as running:
        rest(running, "add", SAMPLED)
        running.terminate()
        assert running.wait_exit() == 0
    assert len(receiver.spans) == 7


def test_the_end_asks_a_collector_again_that_has_no_time(models, tmp_path, receiver):
    receiver.answer = grpc.StatusCode.UNAVAILABLE if receiver.protocol == "grpc" else 503
    with Server([models], tmp_path / "log", tracing(receiver, INTERVAL="1h")) as running:
        rest(running, "add", SAMPLED)
        running.terminate()
        log = tmp_path / "log"
        wait_for(lambda: "are not taken by their collector" in log.read_text())
        receiver.answer = None
        assert running.wait_exit() == 0
    assert len(receiver.spans) == 7


@pytest.mark.parametrize("interval", ["1h", "50ms"])
def test_the_end_waits_for_no_collector_longer_than_it_may(models, tmp_path, over_http, interval):
    """It takes connections and answers nothing, to a call that is under way as to the last one."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = tracing(over_http, INTERVAL=interval, FLUSH_TIME_MAX="300ms", ENDPOINT=endpoint)
        with Server([models], tmp_path / "log", settings) as running:
            rest(running, "add", SAMPLED)
            time.sleep(0.2)
            began = time.monotonic()
            running.terminate()
            assert running.wait_exit() == 0
            # The listeners' own end takes up to a second besides.
            assert 0.3 < time.monotonic() - began < 3
            assert "spans were not sent before the end" in running.log.read_text()


def test_nothing_is_told_without_a_collector(models, tmp_path):
    with Server([models], tmp_path / "log") as running:
        assert rest(running, "add", SAMPLED)[1]["traceparent"].startswith(f"00-{TRACE}-")
        assert spans_by_result(running) == {"sent": 0, "dropped": 0, "refused": 0}


# Requests and readings.


def rest(server, model: str, headers: dict[str, str] | None = None):
    row = {"shape": [2, 16], "datatype": "FP32", "data": [1.0] * 32}
    names = ("left", "right")
    if model == "slow":
        row = {"shape": [1, 1, SLOW_WIDTH], "datatype": "FP32", "data": [1.0] * SLOW_WIDTH}
        names = ("x",)
    body = json.dumps({"inputs": [{"name": name, **row} for name in names]}).encode()
    return post(server.http, f"/v2/models/{model}/infer", body, headers or {})


def post(address: str, path: str, body: bytes, headers: dict[str, str]):
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def unary(server, headers: dict[str, str]) -> None:
    row = grpc_input("x", np.ones((1, 1, SLOW_WIDTH), np.float32))
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.infer("slow", [row], headers=headers)


def message(model: str):
    names, shape = (("x",), [1, 1, SLOW_WIDTH]) if model == "slow" else (("left", "right"), [1, 16])
    request = service_pb2.ModelInferRequest(model_name=model)
    for name in names:
        tensor = request.inputs.add(name=name, datatype="FP32", shape=shape)
        tensor.contents.fp32_contents.extend([1.0] * shape[-1])
    return request


def spans_by_result(server) -> dict[str, int]:
    found = ((re.fullmatch(r'kinglet_trace_spans_total\{result="(\w+)"\}', name), count) for name, count in metrics(server).items())
    return {result[1]: int(count) for result, count in found if result}
