"""Variants of a version: listed and addressed by tritonclient over both wires, and by requests without any client."""

import json
import urllib.error
import urllib.request

import numpy
import pytest

import zoo
from conftest import make_wire
from server import Server
from wires import refused

ZEROS = numpy.zeros((1, 4), numpy.float32)


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """`pick` adds 1; its variants add 2 and 3, and one is broken."""
    root = tmp_path_factory.mktemp("variants")
    zoo.save(root / "pick", zoo.plus(1))
    for name, number in [("two", 2), ("three", 3)]:
        folder = root / "pick" / "1" / "variants" / name
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(zoo.plus(number).SerializeToString())
    (root / "pick" / "1" / "variants" / "broken").mkdir()
    (root / "pick" / "1" / "variants" / "broken" / "model.safetensors").write_bytes(b"nothing")
    with Server([root], root / "kinglet.log") as server:
        yield server


@pytest.fixture(params=["rest-json", "rest-binary", "grpc"])
def wire(request, variants):
    return make_wire(request.param, variants)


def infer(wire, variant: str | None) -> float:
    options = {} if variant is None else {"parameters": {"variant": variant}}
    return float(wire.infer("pick", {"x": ZEROS}, ["y"], **options)["y"][0, 0])


@pytest.mark.parametrize(("variant", "added"), [(None, 1), ("", 1), ("two", 2), ("three", 3)])
def test_the_parameter_says_which_build_answers(wire, variant, added):
    assert infer(wire, variant) == added


@pytest.mark.parametrize(
    ("variant", "code", "words"),
    [
        ("four", "not found", ['has no variant "four"', '"broken" or "three" or "two"']),
        ("broken", "unavailable", ["is not ready", "not a safetensors file"]),
        ("../1", "invalid", ["is not allowed"]),
    ],
)
def test_what_cannot_answer_says_why(wire, variant, code, words):
    refused(lambda: infer(wire, variant), code, *words)


def test_metadata_and_index_list_them(variants):
    rest, grpc = (make_wire(name, variants).client for name in ("rest-binary", "grpc"))
    assert rest.get_model_metadata("pick")["variants"] == ["three", "two"]
    assert list(grpc.get_model_metadata("pick").versions) == ["1"], "an unknown field harms no client"
    [line] = rest.get_model_repository_index()
    assert (line["state"], line["reason"]) == ("READY", "")
    assert [(one["name"], one["state"]) for one in line["variants"]] == [
        ("broken", "UNAVAILABLE"),
        ("three", "READY"),
        ("two", "READY"),
    ]
    [line] = grpc.get_model_repository_index().models
    assert line.state == "READY" and "three READY, two READY" in line.reason


def post(server, parameters: dict) -> tuple[int, dict]:
    one = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}
    body = json.dumps({"inputs": [one], "parameters": parameters}).encode()
    try:
        with urllib.request.urlopen(f"http://{server.http}/v2/models/pick/infer", body) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_without_a_client(variants):
    status, answer = post(variants, {"variant": "two", "kinglet_report": True})
    assert status == 200 and answer["outputs"][0]["data"][0] == 2
    assert answer["parameters"]["kinglet_variant"] == "two"
    assert [post(variants, {"variant": name})[0] for name in ("three", "four", "broken")] == [200, 404, 503]
    assert post(variants, {"variant": 2})[0] == 400


def test_metrics_have_the_variant_and_the_version_s_own_build_has_none(variants):
    post(variants, {"variant": "three"})
    post(variants, {})
    with urllib.request.urlopen(f"http://{variants.admin}/metrics") as page:
        lines = page.read().decode().splitlines()
    counted = [line for line in lines if line.startswith("kinglet_requests_total") and 'code="ok"' in line]
    assert any('model="pick",variant="three",version="1"' in line for line in counted)
    assert any('model="pick",version="1"' in line for line in counted)
    assert not any('variant=""' in line for line in lines)
