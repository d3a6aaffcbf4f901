"""More than can be answered, and answers that nobody waits for."""

import concurrent.futures
import random
import time

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

import frames
from hostile import break_off, connect, crowd, infer_body, post, post_binary, post_head
from ordeal import of_model
from process import MIB
from watching import metrics, wait_for
from zoo import SLOW_WIDTH

SLOW = "/v2/models/slow/infer"
# Whole numbers, so that the reflections of the model give them back nearly as they were.
ROW = np.arange(SLOW_WIDTH, dtype=np.float32).reshape(1, 1, SLOW_WIDTH) % 7


def slow_request() -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="slow", raw_input_contents=[ROW.tobytes()])
    request.inputs.add(name="x", shape=ROW.shape, datatype="FP32")
    return request


def test_a_queue_that_overflows(server, ordeal, until):
    """Forty clients for a queue of eight: 429 and RESOURCE_EXHAUSTED say when to come back, and who was let in is
    answered right."""
    body = infer_body({"x": (list(ROW.shape), ROW.ravel().tolist())})
    wanted = right_answer(server)

    def over_rest(_) -> tuple[int, int]:
        served = refused = 0
        while until():
            status, headers, text = post(server.http, SLOW, body)
            if status == 200:
                served += 1
                assert text == wanted["rest"], text[:300]
            else:
                refused += 1
                assert status == 429 and int(headers["retry-after"]) >= 1, (status, headers, text)
        return served, refused

    def over_grpc(_) -> tuple[int, int]:
        served = refused = 0
        with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while until():
                try:
                    answer = stub.ModelInfer(slow_request(), timeout=30)
                except grpc.RpcError as failure:
                    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, failure
                    refused += 1
                else:
                    served += 1
                    assert answer.raw_output_contents[0] == wanted["grpc"]
        return served, refused

    before = overloads(server)
    with ordeal.through(server), concurrent.futures.ThreadPoolExecutor(2) as both:
        halves = [both.submit(crowd, call, 20) for call in (over_rest, over_grpc)]
        for half in halves:
            served, refused = (sum(counts) for counts in zip(*half.result(), strict=True))
            assert served and refused, (served, refused)
    assert overloads(server) > before
    wait_for(lambda: of_model(server, "kinglet_queue_requests", "slow") == 0)


def right_answer(server) -> dict[str, bytes]:
    """What the model says when it has time, checked against what it must say."""
    status, _, text = post(server.http, SLOW, infer_body({"x": (list(ROW.shape), ROW.ravel().tolist())}))
    assert status == 200, text
    with grpc.insecure_channel(server.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(slow_request(), timeout=30)
    raw = answer.raw_output_contents[0]
    assert np.allclose(np.frombuffer(raw, np.float32), ROW.ravel(), atol=1e-2)
    return {"rest": text, "grpc": raw}


def overloads(server) -> float:
    page = metrics(server)
    return sum(value for name, value in page.items() if name.startswith("kinglet_requests_total") and "overloaded" in name)


def test_clients_that_leave(server, ordeal, until):
    """Hundreds leave by FIN or RST at any point: in the head, in the body, in the queue, in the answer. Nothing stays."""
    slow = infer_body({"x": (list(ROW.shape), ROW.ravel().tolist())})
    requests = [post_head(SLOW, len(slow)) + slow, post_binary("/v2/models/identity/infer", "x", np.ones((1, MIB), np.float32))]

    def leave(number: int) -> int:
        chance = random.Random(number)
        left = 0
        while until():
            sent = chance.choice(requests)
            connection = connect(server.http)
            try:
                connection.sendall(sent[: chance.choice([chance.randrange(len(sent)), len(sent)])])
                time.sleep(chance.choice([0, 0.001, 0.01]))
                if chance.random() < 0.3:
                    connection.settimeout(0.05)
                    connection.recv(100)
            except (OSError, TimeoutError):
                pass
            break_off(connection) if chance.random() < 0.5 else connection.close()
            left += 1
        return left

    with ordeal.through(server, growth_max=128 * MIB):
        assert sum(crowd(leave, 16)) > 50
    assert_rested(server)


def test_calls_that_are_cancelled(server, ordeal, until):
    """The same over gRPC: calls cancelled, streams and channels closed with requests in the queue."""
    body = b"\0" + len(slow_request().SerializeToString()).to_bytes(4) + slow_request().SerializeToString()
    block = frames.grpc_head("ModelInfer")

    def cancel(number: int) -> int:
        chance = random.Random(number)
        cancelled = 0
        while until():
            with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                calls = [stub.ModelInfer.future(slow_request(), timeout=30) for _ in range(10)]
                streamed = stub.ModelStreamInfer(iter([slow_request()] * 10), timeout=30)
                time.sleep(chance.choice([0, 0.002, 0.02]))
                for call in chance.sample(calls, 7):
                    call.cancel()
                streamed.cancel()
            # And connections that break with requests on them.
            connection = frames.Connection(server.grpc)
            for stream in range(1, 20, 2):
                connection.send(
                    frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
                    + frames.frame(frames.DATA, frames.END_STREAM, stream, body)
                )
            time.sleep(chance.choice([0, 0.002]))
            break_off(connection.socket)
            cancelled += 1
        return cancelled

    with ordeal.through(server):
        assert sum(crowd(cancel, 4)) > 4
    assert_rested(server)


def assert_rested(server) -> None:
    def rests() -> bool:
        page = metrics(server)
        held = ("kinglet_in_flight_requests", "kinglet_in_flight_bytes", "kinglet_receiving_bytes", "kinglet_cores_busy")
        queued = [value for name, value in page.items() if name.startswith(("kinglet_queue_requests{", "kinglet_queue_bytes{"))]
        return not any(page[name] for name in held) and not any(queued)

    wait_for(rests)
