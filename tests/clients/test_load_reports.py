"""Load reports of Open Request Cost Aggregation, in the three forms that balancers read."""

import base64
import json
import subprocess

import httpx
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from test_command_line import GRPCURL

def load_report():
    """xds.data.orca.v3.OrcaLoadReport, as far as it is told. The package that has it would bring another OpenTelemetry."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="xds.data.orca.v3", syntax="proto3")
    report = file.message_type.add(name="OrcaLoadReport")
    report.field.add(name="cpu_utilization", number=1, type="TYPE_DOUBLE", label="LABEL_OPTIONAL")
    entry = report.nested_type.add(name="NamedMetricsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    entry.field.add(name="value", number=2, type="TYPE_DOUBLE", label="LABEL_OPTIONAL")
    of_entry = ".xds.data.orca.v3.OrcaLoadReport.NamedMetricsEntry"
    report.field.add(name="named_metrics", number=8, type="TYPE_MESSAGE", type_name=of_entry, label="LABEL_REPEATED")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("xds.data.orca.v3.OrcaLoadReport"))


OrcaLoadReport = load_report()
BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
NAMES = {"in_flight_requests", "queue_wait_seconds"}


def asked(server, wanted: str | None, body=BODY) -> httpx.Response:
    headers = {"endpoint-load-metrics-format": wanted} if wanted else {}
    return httpx.post(f"http://{server.http}/v2/models/identity_fp32/infer", json=body, headers=headers)


def check(report) -> None:
    assert 0 <= report.cpu_utilization < 100
    assert set(report.named_metrics) == NAMES


@pytest.mark.parametrize("body, status", [(BODY, 200), ({}, 400)])
def test_who_asks_over_rest_is_told_whatever_the_answer(server, body, status):
    answer = asked(server, "json", body)
    kind, written = answer.headers["endpoint-load-metrics"].split(" ", 1)
    assert (answer.status_code, kind) == (status, "JSON")
    check(json_format.Parse(written, OrcaLoadReport()))
    kind, written = asked(server, "TEXT", body).headers["endpoint-load-metrics"].split(" ", 1)
    values = dict(pair.split("=") for pair in written.split(", "))
    assert kind == "TEXT" and set(values) == {"cpu_utilization", *(f"named_metrics.{name}" for name in NAMES)}
    assert all(float(value) >= 0 for value in values.values())


@pytest.mark.parametrize("wanted", [None, "bin", ""])
def test_who_does_not_ask_is_not(server, wanted):
    assert "endpoint-load-metrics" not in asked(server, wanted).headers


def trailers(server, model: str, *more: str) -> dict[str, str]:
    """grpcio's core takes the report out of what it shows."""
    contents = base64.b64encode(np.ones(4, np.float32).tobytes()).decode()
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
    request = json.dumps({"model_name": model, "inputs": [tensor], "raw_input_contents": [contents]})
    command = [str(GRPCURL), "-plaintext", "-v", *more, "-d", request, server.grpc, "inference.GRPCInferenceService/ModelInfer"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = told.stdout.partition("Response trailers received:")[2].splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


@pytest.mark.parametrize("model", ["identity_fp32", "absent"])
def test_who_asks_over_grpc_is_told_whatever_the_answer(server, model):
    told = trailers(server, model, "-H", "endpoint-load-metrics-format: text")["endpoint-load-metrics-bin"]
    check(OrcaLoadReport.FromString(base64.b64decode(told + "=" * (-len(told) % 4))))
    assert "endpoint-load-metrics-bin" not in trailers(server, model)


def test_a_server_that_works_says_so(server):
    wide = {"inputs": [{"name": "x", "shape": [64, 4096], "datatype": "FP32", "data": [0.5] * (64 * 4096)}]}
    for _ in range(8):
        answer = asked(server, "json", wide)
    assert json.loads(answer.headers["endpoint-load-metrics"].removeprefix("JSON "))["cpu_utilization"] > 0.02
