"""Requests that overlap: async_infer of both clients, asyncio, and the bidirectional stream."""

import asyncio
import queue
import threading

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from wires import grpc_input, refused, rest_input

MANY = 200
WAIT_SECONDS = 30


def row(value: float) -> np.ndarray:
    return np.full((1, 16), value, np.float32)


def test_rest_async_infer_keeps_answers_apart(server):
    with tritonclient.http.InferenceServerClient(server.http, concurrency=16) as client:
        pending = [
            client.async_infer("add", [rest_input("left", row(n)), rest_input("right", row(1))], request_id=str(n))
            for n in range(MANY)
        ]
        for number, request in enumerate(pending):
            result = request.get_result(timeout=WAIT_SECONDS)
            assert result.get_response()["id"] == str(number)
            assert (result.as_numpy("sum") == number + 1).all()


def test_rest_async_infer_tells_errors(server):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        request = client.async_infer("nope", [rest_input("left", row(0))])
        refused(lambda: request.get_result(timeout=WAIT_SECONDS), "not found", "nope")


def test_grpc_async_infer_keeps_answers_apart(server):
    answers: queue.Queue = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        for number in range(MANY):
            client.async_infer(
                "add",
                [grpc_input("left", row(number)), grpc_input("right", row(1))],
                callback=lambda result, error: answers.put((result, error)),
                request_id=str(number),
            )
        seen = set()
        for _ in range(MANY):
            result, error = answers.get(timeout=WAIT_SECONDS)
            assert error is None
            number = int(result.get_response().id)
            assert (result.as_numpy("sum") == number + 1).all()
            seen.add(number)
    assert seen == set(range(MANY))


def test_grpc_async_infer_tells_errors(server):
    answers: queue.Queue = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.async_infer(
            "nope", [grpc_input("left", row(0))], callback=lambda result, error: answers.put((result, error))
        )
        result, error = answers.get(timeout=WAIT_SECONDS)
    assert result is None and error.status() == "StatusCode.NOT_FOUND" and "nope" in error.message()


@pytest.mark.parametrize(
    ("module", "tensor", "address"),
    [
        (tritonclient.http.aio, rest_input, "http"),
        (tritonclient.grpc.aio, grpc_input, "grpc"),
    ],
)
def test_asyncio_gather(server, module, tensor, address):
    async def gather():
        async with module.InferenceServerClient(getattr(server, address)) as client:
            return await asyncio.gather(
                *(client.infer("add", [tensor("left", row(n)), tensor("right", row(1))]) for n in range(MANY))
            )

    for number, result in enumerate(asyncio.run(gather())):
        assert (result.as_numpy("sum") == number + 1).all()


def test_answers_are_the_same_in_company(server):
    """Rows that meet in a batch must not change each other, whichever model is asked."""
    generator = np.random.default_rng(3)
    asked = [generator.standard_normal((1 + n % 3, 4), np.float32) for n in range(64)]

    async def ask(client, array):
        return (await client.infer("mixes_rows", [grpc_input("x", array)])).as_numpy("y")

    async def together():
        async with tritonclient.grpc.aio.InferenceServerClient(server.grpc) as client:
            return await asyncio.gather(*(ask(client, array) for array in asked))

    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        alone = [client.infer("mixes_rows", [grpc_input("x", array)]).as_numpy("y") for array in asked]
    for one, other in zip(alone, asyncio.run(together()), strict=True):
        assert one.tobytes() == other.tobytes()


class Stream:
    """An open stream of tritonclient's blocking client, answers in a queue."""

    def __init__(self, server, **options):
        self.answers: queue.Queue = queue.Queue()
        self.client = tritonclient.grpc.InferenceServerClient(server.grpc)
        self._options = options

    def __enter__(self):
        self.client.start_stream(lambda result, error: self.answers.put((result, error)), **self._options)
        return self

    def __exit__(self, *_):
        self.client.stop_stream(cancel_requests=False)
        self.client.close()

    def send(self, number: int, model: str = "add", **options) -> None:
        tensors = [grpc_input("left", row(number)), grpc_input("right", row(1))]
        self.client.async_stream_infer(model, tensors, request_id=str(number), **options)

    def next(self):
        return self.answers.get(timeout=WAIT_SECONDS)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_stream(server, compression):
    with Stream(server, compression_algorithm=compression) as stream:
        for number in range(MANY):
            stream.send(number)
        seen = set()
        for _ in range(MANY):
            result, error = stream.next()
            assert error is None
            number = int(result.get_response().id)
            assert (result.as_numpy("sum") == number + 1).all()
            seen.add(number)
    assert seen == set(range(MANY))


def test_stream_carries_many_models(server):
    with Stream(server) as stream:
        stream.send(1)
        stream.client.async_stream_infer("latest", [grpc_input("x", np.zeros((1, 4), np.float32))], request_id="other")
        names = {stream.next()[0].get_response().model_name for _ in range(2)}
    assert names == {"add", "latest"}


def test_stream_error_is_in_band_and_the_stream_goes_on(server):
    with Stream(server) as stream:
        stream.client.async_stream_infer("add", [grpc_input("left", row(0))], request_id="the bad one")
        result, error = stream.next()
        assert result is None and isinstance(error, InferenceServerException)
        # In-band errors have no field for the request's id: it stands in the text.
        assert "the bad one" in error.message()
        stream.send(2)
        result, error = stream.next()
        assert error is None and (result.as_numpy("sum") == 3).all()


def test_stream_error_as_status_where_asked(server):
    """The metadata `triton_grpc_error: true` turns the first error into the stream's status."""
    with Stream(server, headers={"triton_grpc_error": "true"}) as stream:
        stream.client.async_stream_infer("add", [grpc_input("left", row(0))], request_id="bad")
        result, error = stream.next()
        assert result is None and error.status() == "StatusCode.INVALID_ARGUMENT"


def test_every_answer_on_a_stream_is_final(server):
    with Stream(server) as stream:
        stream.send(1, enable_empty_final_response=True)
        result, error = stream.next()
        assert error is None
        assert result.get_response().parameters["triton_final_response"].bool_param is True
        assert stream.answers.empty()


def test_asyncio_stream(server):
    async def requests():
        for number in range(MANY):
            yield {
                "model_name": "nope" if number == 7 else "add",
                "inputs": [grpc_input("left", row(number)), grpc_input("right", row(1))],
                "request_id": str(number),
            }

    async def collect():
        async with tritonclient.grpc.aio.InferenceServerClient(server.grpc) as client:
            return [answer async for answer in client.stream_infer(requests())]

    answers = asyncio.run(collect())
    errors = [error for _, error in answers if error is not None]
    assert len(answers) == MANY and len(errors) == 1
    for result, error in answers:
        if error is None:
            assert (result.as_numpy("sum") == int(result.get_response().id) + 1).all()


def test_a_stream_broken_off_disturbs_nobody(server):
    """The client goes away with answers outstanding; the next one is served."""
    for _ in range(3):
        client = tritonclient.grpc.InferenceServerClient(server.grpc)
        client.start_stream(lambda result, error: None)
        for number in range(20):
            client.async_stream_infer("add", [grpc_input("left", row(number)), grpc_input("right", row(1))])
        client.stop_stream(cancel_requests=True)
        client.close()
    with Stream(server) as stream:
        stream.send(1)
        assert stream.next()[1] is None


def test_many_threads_share_one_grpc_client(server):
    failures = []
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:

        def ask(number: int) -> None:
            for _ in range(20):
                answer = client.infer("add", [grpc_input("left", row(number)), grpc_input("right", row(1))])
                if not (answer.as_numpy("sum") == number + 1).all():
                    failures.append(number)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
    assert not failures
