"""What a request may cost and must be worth: by tritonclient over both wires, by headers, and by the server's own limits."""

import http.client
import json
import signal
import threading
import time

import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import grpc
from conftest import make_wire
from server import Server
from watching import WAIT_SECONDS, metrics, wait_for
from wires import refused
from zoo import SLOW_LAYERS, SLOW_WIDTH, save, slow

ROW = np.ones((1, 1, SLOW_WIDTH), np.float32)
# Of the version's own build and of variants of fewer layers.
ACCURACY = {None: 0.98, "middle": 0.97, "light": 0.9}
METERING = {"KINGLET__METERING__SOURCE": "model", "KINGLET__METERING__WINDOW": "100ms"}


def repository(root):
    """`pick` with variants of a quarter and a twenty-fourth of its layers, and one that nobody has judged."""
    save(root / "pick", slow())
    for name, layers in [("middle", SLOW_LAYERS // 4), ("light", SLOW_LAYERS // 24), ("unjudged", 1)]:
        folder = root / "pick" / "1" / "variants" / name
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(slow(layers).SerializeToString())
    judged = "".join(f"[variants.{name}]\naccuracy = {share}\n" for name, share in ACCURACY.items() if name)
    (root / "pick" / "manifest.toml").write_text(f"accuracy = {ACCURACY[None]}\n{judged}")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return repository(tmp_path_factory.mktemp("budgets"))


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    with Server([models], tmp_path_factory.mktemp("log") / "log", METERING) as running:
        # One run says little on a busy machine.
        for variant in ACCURACY:
            for _ in range(20):
                assert ask(running, {"variant": variant or ""})[0] == 200
        yield running


def ask(server, parameters: dict | None = None, headers: dict | None = None) -> tuple[int, dict, dict]:
    one = {"name": "x", "shape": [1, 1, SLOW_WIDTH], "datatype": "FP32", "data": ROW.ravel().tolist()}
    body = json.dumps({"inputs": [one], "parameters": parameters or {}})
    connection = http.client.HTTPConnection(server.http)
    connection.request("POST", "/v2/models/pick/infer", body, headers or {})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), json.load(answer)


def chosen(server, parameters=None, headers=None) -> tuple[str | None, str]:
    status, told, body = ask(server, parameters, headers)
    assert status == 200, body
    return told.get("kinglet-variant"), told["kinglet-variant-reason"]


def admin(server, path: str) -> dict:
    connection = http.client.HTTPConnection(server.admin)
    connection.request("GET", path)
    return json.load(connection.getresponse())


def costs(server) -> dict:
    """Of one row, by build, in milliseconds and millijoules."""
    builds = admin(server, "/v2/models/pick/variants")["builds"]
    return {build["variant"]: next(point for point in build["costs"] if point["rows"] == 1) for build in builds}


def between(server, cheaper, dearer, what: str) -> float:
    known = costs(server)
    return (known[cheaper][what] * known[dearer][what]) ** 0.5


def test_without_a_budget_the_own_build_answers(server):
    assert chosen(server) == (None, "default")
    assert chosen(server, {"variant": "light"}) == ("light", "named")


def test_what_builds_are_worth_and_cost_is_measured_at_load(server):
    builds = {build["variant"]: build for build in admin(server, "/v2/models/pick/variants")["builds"]}
    assert {name: build["accuracy"] for name, build in builds.items()} == ACCURACY | {"unjudged": None}
    known = costs(server)
    for what in ("milliseconds", "cpu_milliseconds", "millijoules"):
        assert known[None][what] > known["middle"][what] > known["light"][what] > 0


@pytest.mark.parametrize(("limit", "what"), [("max_latency_ms", "milliseconds"), ("max_energy_mj", "millijoules")])
def test_the_most_accurate_within_the_budget_answers(server, limit, what):
    assert chosen(server, {limit: 1e6}) == (None, "budget")
    assert chosen(server, {limit: between(server, "middle", None, what)}) == ("middle", "budget")
    assert chosen(server, {limit: between(server, "light", "middle", what)}) == ("light", "budget")


def test_headers_state_a_budget_and_parameters_go_before_them(server):
    tight = str(between(server, "light", "middle", "milliseconds"))
    assert chosen(server, headers={"kinglet-max-latency-ms": tight}) == ("light", "budget")
    assert chosen(server, {"max_latency_ms": 1e6}, {"kinglet-max-latency-ms": tight}) == (None, "budget")
    status, _, body = ask(server, headers={"kinglet-min-accuracy": "97"})
    assert status == 400 and "header kinglet-min-accuracy" in body["error"]


def test_raw_requests_have_headers_alone(server):
    connection = http.client.HTTPConnection(server.http)
    tight = str(between(server, "light", "middle", "milliseconds"))
    headers = {"Inference-Header-Content-Length": "0", "kinglet-max-latency-ms": tight}
    connection.request("POST", "/v2/models/pick/infer", ROW.tobytes(), headers)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("kinglet-variant")) == (200, "light")


@pytest.mark.parametrize("name", ["rest-json", "rest-binary", "grpc"])
def test_a_budget_that_none_keeps_is_refused_with_the_nearest(server, name):
    wire = make_wire(name, server)
    tight = between(server, "light", "middle", "milliseconds")

    def infer(**parameters):
        return wire.infer("pick", {"x": ROW}, ["y"], parameters=parameters)

    assert infer(max_latency_ms=1e6)["y"].shape == ROW.shape
    refused(lambda: infer(min_accuracy=0.99), "budget unmet", "min_accuracy 0.99", "nearest is its own", "accuracy 0.98")
    refused(lambda: infer(max_latency_ms=tight, min_accuracy=0.95), "budget unmet", 'nearest is variant "light"', "accuracy 0.9")
    refused(lambda: infer(max_energy_mj=1e-6), "budget unmet", "max_energy_mj 0.000001", "energy")
    refused(lambda: infer(max_latency_ms=-1), "invalid", "max_latency_ms", "a number above 0")


def test_grpc_tells_who_has_answered_behind_the_message(server):
    message = service_pb2.ModelInferRequest(model_name="pick", raw_input_contents=[ROW.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=ROW.shape)
    message.parameters["max_latency_ms"].double_param = between(server, "light", "middle", "milliseconds")
    message.parameters["kinglet_report"].bool_param = True
    with grpc.insecure_channel(server.grpc) as channel:
        response, call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.with_call(message)
    told = dict(call.trailing_metadata())
    assert (told["kinglet-variant"], told["kinglet-variant-reason"]) == ("light", "budget")
    assert response.parameters["kinglet_variant"].string_param == "light"
    assert response.parameters["kinglet_variant_reason"].string_param == "budget"


def test_a_queue_counts_against_the_latency(server):
    """While every core is busy with what others sent, a budget that an idle machine keeps asks for a cheaper build."""
    limit = {"max_latency_ms": 3 * costs(server)[None]["milliseconds"]}
    assert chosen(server, limit)[0] is None
    stop = threading.Event()

    def load():
        while not stop.is_set():
            ask(server)

    threads = [threading.Thread(target=load) for _ in range(24)]
    for thread in threads:
        thread.start()
    try:
        seen = set()
        until = time.monotonic() + WAIT_SECONDS
        while not seen & {"middle", "light", "refused"} and time.monotonic() < until:
            status, told, _ = ask(server, limit)
            assert status in (200, 412)
            seen.add(told.get("kinglet-variant") if status == 200 else "refused")
        assert seen & {"middle", "light", "refused"}
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(("mode", "variant"), [("accuracy", None), ("balanced", "middle"), ("eco", "light")])
def test_a_mode_gives_up_accuracy_for_energy(models, tmp_path, mode, variant):
    settings = {"KINGLET__BUDGETS__MODE": mode, "KINGLET__BUDGETS__ECO_LOSS_MAX": "0.1"}
    with Server([models], tmp_path / "log", METERING | settings) as running:
        assert chosen(running) == (variant, "default" if mode == "accuracy" else mode)
        assert chosen(running, {"min_accuracy": 0.975})[0] is None, "a budget holds in every mode"
        assert admin(running, "/admin/budgets")["stage"] == mode


def test_a_dirty_grid_asks_for_eco(models, tmp_path):
    grid = tmp_path / "grid.csv"
    grid.write_text("0, 100\n")
    settings = {"KINGLET__METERING__CARBON_INTENSITY_PATH": str(grid), "KINGLET__BUDGETS__CARBON_INTENSITY_MAX": "300"}
    with Server([models], tmp_path / "log", METERING | settings | {"KINGLET__BUDGETS__ECO_LOSS_MAX": "0.1"}) as running:
        assert chosen(running) == (None, "default")
        grid.write_text("0, 301\n")
        wait_for(lambda: chosen(running) == ("light", "carbon"))
        grid.write_text("0, 290\n")
        time.sleep(0.5)
        assert chosen(running) == ("light", "carbon"), "not yet clearly clean"
        grid.write_text("0, 200\n")
        wait_for(lambda: chosen(running) == (None, "default"))


def test_a_power_cap_steps_down_then_refuses_and_lets_go_by_reload(models, tmp_path):
    config = tmp_path / "kinglet.toml"
    config.write_text("budgets.power_watts_max = 0.001\n")
    with Server([models], tmp_path / "log", METERING, config=config) as running:
        def refusal():
            status, told, body = ask(running)
            return (told, body) if status == 429 else None

        told, body = wait_for(refusal)
        assert int(told["retry-after"]) >= 1 and "0.001 W" in body["error"]
        assert admin(running, "/admin/budgets")["stage"] == "cheapest"
        read = metrics(running)
        assert read["kinglet_power_limit_watts"] == 0.001 and read["kinglet_power_refused_total"] >= 1
        assert read['kinglet_budget_stage{stage="cheapest"}'] == 1 and read['kinglet_budget_stage{stage="accuracy"}'] == 0
        config.write_text("budgets.power_watts_max = 0\n")
        running.send(signal.SIGHUP)
        wait_for(lambda: refusal() is None and chosen(running) == (None, "default"))
        assert "kinglet_power_limit_watts" not in metrics(running)


def test_what_is_refused_counts_for_its_model(server):
    name = 'kinglet_requests_total{code="budget_unmet",model="pick",version="1"}'
    before = metrics(server).get(name, 0)
    assert ask(server, {"min_accuracy": 1})[0] == 412
    assert metrics(server)[name] == before + 1


def test_choices_are_counted(server):
    name = 'kinglet_variant_choices_total{model="pick",reason="named",variant="light",version="1"}'
    before = metrics(server).get(name, 0)
    chosen(server, {"variant": "light"})
    assert metrics(server)[name] == before + 1
    assert metrics(server)['kinglet_model_accuracy_ratio{model="pick",variant="middle",version="1"}'] == 0.97
