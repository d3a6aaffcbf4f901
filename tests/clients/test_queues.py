"""Deadlines, cancelling, priorities, full queues and batches, seen from the client.

The slow models take tens of milliseconds a row on one core, so that requests queue behind each other.
"""

import concurrent.futures
import http.client
import json
import queue
import time

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from caller import integers
from wires import REFUSALS, grpc_input, rest_input
from zoo import SLOW_WIDTH

ROW = np.ones((1, 1, SLOW_WIDTH), np.float32)
AHEAD = 12
SHORT_US = 10_000
WAIT_SECONDS = 40
# Long enough for a request on loopback to be queued, short beside the crowd ahead of it.
ARRIVAL_SECONDS = 0.03


class Crowd:
    """Requests that are under way, so that the next one has to queue behind them."""

    def __init__(self, server, model: str, count: int = AHEAD, **options):
        self.answers: queue.Queue = queue.Queue()
        self.client = tritonclient.grpc.InferenceServerClient(server.grpc)
        self.count = count
        self.calls = [self.send(model, str(number), **options) for number in range(count)]

    def send(self, model: str, request_id: str, row: np.ndarray = ROW, **options):
        return self.client.async_infer(
            model,
            [grpc_input("x", row)],
            callback=lambda result, error: self.answers.put((request_id, result, error)),
            request_id=request_id,
            **options,
        )

    def wait(self, count: int | None = None) -> list:
        """(id, result, error) in the order the answers came."""
        try:
            return [self.answers.get(timeout=WAIT_SECONDS) for _ in range(count or self.count)]
        finally:
            self.client.close()


def rest_timeout_parameter(server, model):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        client.infer(model, [rest_input("x", ROW)], timeout=SHORT_US)


def rest_timeout_header(server, model):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        client.infer(model, [rest_input("x", ROW)], headers={"kinglet-timeout-ms": str(SHORT_US // 1000)})


def grpc_timeout_parameter(server, model):
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.infer(model, [grpc_input("x", ROW)], timeout=SHORT_US)


def grpc_client_timeout(server, model):
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.infer(model, [grpc_input("x", ROW)], client_timeout=SHORT_US / 1e6)


@pytest.mark.parametrize(
    "ask", [rest_timeout_parameter, rest_timeout_header, grpc_timeout_parameter, grpc_client_timeout]
)
def test_an_expired_request_is_refused_at_once_and_never_run(server, ask):
    before = runs(server, "slow_single")
    crowd = Crowd(server, "slow_single")
    wait_until_running(server, "slow_single", before)
    started = time.monotonic()
    with pytest.raises(InferenceServerException) as failure:
        ask(server, "slow_single")
    elapsed = time.monotonic() - started
    assert failure.value.status() in REFUSALS["deadline"], failure.value
    answers = crowd.wait()
    assert not [error for _, _, error in answers if error]
    assert elapsed < 0.15, f"refused after {elapsed:.3f} s, the deadline was 0.010 s"
    assert runs(server, "slow_single") - before == AHEAD


def test_a_timeout_that_delays_lets_others_pass(server):
    """timeout_action delay: the expired request runs after those that are in time."""
    before = runs(server, "slow_delaying")
    crowd = Crowd(server, "slow_delaying", count=6)
    wait_until_running(server, "slow_delaying", before)
    crowd.send("slow_delaying", "late", timeout=SHORT_US)
    crowd.send("slow_delaying", "in time")
    answers = crowd.wait(8)
    assert not [error for _, _, error in answers if error]
    order = [request_id for request_id, _, _ in answers]
    assert order.index("in time") < order.index("late")


def test_a_generous_deadline_does_no_harm(server):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        result = client.infer(
            "slow_single", [rest_input("x", ROW)], timeout=30_000_000, headers={"kinglet-timeout-ms": "30000"}
        )
    assert np.allclose(result.as_numpy("y"), ROW, atol=1e-3)


def test_a_timeout_header_that_is_no_number(server):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        with pytest.raises(InferenceServerException, match="kinglet-timeout-ms") as failure:
            client.infer("slow_single", [rest_input("x", ROW)], headers={"kinglet-timeout-ms": "soon"})
    assert failure.value.status() == "400"


def test_cancelled_grpc_requests_are_never_run(server):
    before = runs(server, "slow_single")
    crowd = Crowd(server, "slow_single")
    wait_until_running(server, "slow_single", before)
    cancelled = [crowd.send("slow_single", f"cancelled {n}") for n in range(4)]
    time.sleep(ARRIVAL_SECONDS)
    for call in cancelled:
        call.cancel()
    answers = crowd.wait(AHEAD + 4)
    failed = {request_id: error.status() for request_id, _, error in answers if error}
    assert failed == {f"cancelled {n}": "StatusCode.CANCELLED" for n in range(4)}
    settle(server, "slow_single")
    assert runs(server, "slow_single") - before == AHEAD


def test_a_rest_client_that_went_away_is_never_run(server):
    before = runs(server, "slow_single")
    crowd = Crowd(server, "slow_single")
    wait_until_running(server, "slow_single", before)
    body, length = tritonclient.http.InferenceServerClient.generate_request_body([rest_input("x", ROW)])
    gone = []
    for _ in range(4):
        connection = http.client.HTTPConnection(server.http)
        headers = {"Inference-Header-Content-Length": str(length)}
        connection.request("POST", "/v2/models/slow_single/infer", body=body, headers=headers)
        gone.append(connection)
    time.sleep(ARRIVAL_SECONDS)
    for connection in gone:
        connection.sock.close()
    assert not [error for _, _, error in crowd.wait() if error]
    settle(server, "slow_single")
    assert runs(server, "slow_single") - before == AHEAD


def test_requests_of_a_closed_stream_are_never_run(server):
    before = runs(server, "slow_single")
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    client.start_stream(lambda result, error: None)
    for _ in range(AHEAD):
        client.async_stream_infer("slow_single", [grpc_input("x", ROW)])
    wait_until_running(server, "slow_single", before)
    client.stop_stream(cancel_requests=True)
    client.close()
    settle(server, "slow_single")
    assert runs(server, "slow_single") - before < AHEAD


def test_the_urgent_overtake(server):
    crowd = Crowd(server, "slow_single", priority=2)
    crowd.send("slow_single", "urgent", priority=1)
    answers = crowd.wait(AHEAD + 1)
    order = [request_id for request_id, _, error in answers if not error]
    assert len(order) == AHEAD + 1
    assert order.index("urgent") < AHEAD // 2, order


def test_a_full_queue_refuses_at_once(server):
    """More than the queue holds: some are served, the rest hear so at once, others are not disturbed."""
    crowd = Crowd(server, "slow_short_queue")
    with tritonclient.http.InferenceServerClient(server.http) as client:
        row = np.ones((1, 16), np.float32)
        client.infer("add", [rest_input("left", row), rest_input("right", row)])
    answers = crowd.wait()
    served = [result for _, result, error in answers if not error]
    errors = [error for _, _, error in answers if error]
    assert len(served) >= 2 and errors
    assert all(error.status() == "StatusCode.RESOURCE_EXHAUSTED" for error in errors), errors[0]
    assert all("queue" in error.message() for error in errors), errors[0]


def test_a_full_queue_says_when_to_come_back(server):
    """Of more than the queue holds, sent at once, each that is refused hears when to come back."""
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": [1, 1, SLOW_WIDTH], "datatype": "FP32", "data": [1] * SLOW_WIDTH}]}
    )

    def ask(_):
        connection = http.client.HTTPConnection(server.http, timeout=WAIT_SECONDS)
        try:
            connection.request("POST", "/v2/models/slow_short_queue/infer", body=body)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Retry-After"), json.loads(answer.read())
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(AHEAD) as clients:
        answers = list(clients.map(ask, range(AHEAD)))
    refused = [answer for answer in answers if answer[0] != 200]
    assert 1 <= len(refused) < AHEAD
    for status, retry_after, reply in refused:
        assert status == 429
        assert int(retry_after) >= 1
        assert reply["error"]


def test_waiting_requests_become_one_batch(server):
    """Rows that arrive while the model runs go together, and each gets its own answer."""
    generator = np.random.default_rng(11)
    rows = [generator.standard_normal(ROW.shape, np.float32) for _ in range(AHEAD)]
    crowd = Crowd(server, "slow_batching", count=0)
    alone = {
        str(n): crowd.client.infer("slow_batching", [grpc_input("x", row)]).as_numpy("y") for n, row in enumerate(rows)
    }
    for number, row in enumerate(rows):
        crowd.send("slow_batching", str(number), row, parameters={"kinglet_report": True})
    sizes = []
    for request_id, result, error in crowd.wait(AHEAD):
        assert error is None
        assert result.as_numpy("y").tobytes() == alone[request_id].tobytes()
        sizes.append(report(result)["kinglet_batch_size"])
    assert 2 <= max(sizes) <= 8, sizes


def report(result) -> dict:
    parameters = result.get_response().parameters
    return {k: getattr(v, v.WhichOneof("parameter_choice")) for k, v in parameters.items()}


def runs(server, model: str) -> int:
    return integers(statistics(server, model)).get("inference_count", 0)


def statistics(server, model: str) -> dict:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        return client.get_inference_statistics(model)["model_stats"][0]


def wait_until_running(server, model: str, before: int) -> None:
    """At least one request is done, so the others are queued behind the next."""
    until = time.monotonic() + WAIT_SECONDS
    while runs(server, model) == before:
        assert time.monotonic() < until, "nothing runs"
        time.sleep(0.002)


def settle(server, model: str) -> None:
    """Waits until the count has stood still for longer than several rows take."""
    count, since = runs(server, model), time.monotonic()
    while time.monotonic() - since < 0.6:
        time.sleep(0.05)
        if (now := runs(server, model)) != count:
            count, since = now, time.monotonic()
