"""Bodies that are more, deeper, finer or other than they look."""

import gzip
import json
import math
import socket
import struct
import time
import zlib

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import frames
from bounds import BODY_MAX
from hostile import connect, crowd, infer_body, post, post_binary, post_head, until_closed
from ordeal import of_model
from process import MIB
from server import Server
from watching import cpu_seconds, metrics, wait_for

INFER = "/v2/models/identity/infer"
PACK = {"gzip": lambda plain: gzip.compress(plain, 9), "deflate": lambda plain: zlib.compress(plain, 9)}
# Of a body that inflates to far more than any limit.
INFLATED = 256 * MIB


@pytest.mark.parametrize("encoding", PACK)
def test_bombs(server, ordeal, until, encoding):
    """256 MiB in a quarter of one, again and again: refused with 413 and never unpacked beyond the limits."""
    packed = PACK[encoding](b'{"inputs": "' + bytes(INFLATED))

    def bomb(_) -> set[int]:
        said = set()
        while until():
            said.add(post(server.http, INFER, packed, {"Content-Encoding": encoding})[0])
        return said

    with ordeal.through(server, peak_max=96 * MIB):
        assert set().union(*crowd(bomb)) == {413}


@pytest.mark.parametrize("encoding", PACK)
def test_bombs_over_grpc(server, ordeal, until, encoding):
    """The same in messages of 60 kB, two at a time: each is refused, and a real client hears why."""
    sent = packed_call(PACK[encoding](bytes(60 * MIB)), encoding)

    def bomb(_) -> list[bool]:
        refused = []
        while until():
            refused.append(is_refused(server, sent))
        return refused

    with ordeal.through(server, peak_max=96 * MIB):
        assert all(all(refused) and refused for refused in crowd(bomb, 2))
    with grpc.insecure_channel(server.grpc) as channel:
        request = service_pb2.ModelInferRequest(model_name="identity")
        request.inputs.add(name="x", shape=[1, 15 * MIB], datatype="FP32")
        request.raw_input_contents.append(bytes(60 * MIB))
        how = grpc.Compression.Gzip if encoding == "gzip" else grpc.Compression.Deflate
        with pytest.raises(grpc.RpcError) as refused:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30, compression=how)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, refused.value


def packed_call(packed: bytes, encoding: str) -> bytes:
    """The frames of a call with one compressed message."""
    message = b"\1" + struct.pack(">I", len(packed)) + packed
    pieces = [message[at : at + 16_000] for at in range(0, len(message), 16_000)]
    sent = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.grpc_head("ModelInfer", grpc_encoding=encoding))
    for place, piece in enumerate(pieces):
        sent += frames.frame(frames.DATA, place == len(pieces) - 1, 1, piece)
    return sent


def is_refused(server, sent: bytes) -> bool:
    connection = frames.Connection(server.grpc)
    connection.send(sent)
    came = connection.wait_for((frames.HEADERS, frames.RST_STREAM, frames.GOAWAY), 10)
    connection.close()
    # An answer would have a message between its head and its end.
    return bool(came) and (came[0].kind != frames.HEADERS or bool(came[0].flags & frames.END_STREAM))


def test_a_bomb_costs_over_grpc_what_it_costs_over_rest(shelf, tmp_path):
    """By the default limits, in CPU time: who sends 60 kB must not be able to spend a thread's tenth of a second."""
    packed = gzip.compress(bytes(60 * MIB), 9)
    call = packed_call(packed, "gzip")
    with Server([shelf], tmp_path / "log") as server:

        def cost(ask) -> float:
            before = cpu_seconds(server)
            for _ in range(20):
                assert ask()
            return cpu_seconds(server) - before

        rest = cost(lambda: post(server.http, INFER, packed, {"Content-Encoding": "gzip"})[0] == 413)
        over_grpc = cost(lambda: is_refused(server, call))
    assert over_grpc <= 5 * rest + 0.1, f"{over_grpc:.2f} s of CPU over gRPC, {rest:.2f} s over REST"


DEEP = {
    "arrays": b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 1_000_000,
    "closed-arrays": b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 500_000 + b"]" * 500_000 + b"}]}",
    "objects": b'{"parameters":' + b'{"a":' * 200_000,
    "top": b"[" * 1_000_000,
    "unknown": b'{"unheard_of":' + b'[{"a":' * 150_000,
}


def test_deep_json(server, ordeal, until):
    """A million levels: refused with 400 where the limit is passed, without a stack that grows."""

    def ask(_) -> None:
        while until():
            for kind, body in DEEP.items():
                status, _, text = post(server.http, INFER, body)
                assert status == 400, (kind, text)

    with ordeal.through(server, peak_max=96 * MIB):
        crowd(ask, 4)


@pytest.mark.parametrize("extension, status", [(b"", b"200"), (b";x=y", b"400")], ids=["plain", "extended"])
def test_tiny_chunks(server, ordeal, seconds, extension, status):
    """Bodies in chunks of one byte: answered right, and what they cost is theirs. Extensions without end are refused."""
    plain = infer_body({"x": ([1, 2], [1, 2])}).ljust(int(50_000 * seconds))
    body = b"".join(b"1%s\r\n%c\r\n" % (extension, byte) for byte in plain) + b"0\r\n\r\n"

    def ask(_) -> bytes:
        with connect(server.http, 60) as connection:
            try:
                connection.sendall(post_head(INFER, None, "Connection: close") + body)
            except OSError:
                pass  # It had heard enough.
            return until_closed(connection)

    with ordeal.through(server):
        answers = crowd(ask)
    for said in answers:
        assert not said or said.split()[1] == status, said[:200]
        assert status != b"200" or b'"data":[1.0,2.0]' in said.replace(b" ", b""), said[:200]


OVERFLOWS = [
    [1 << 32, 1 << 32],
    [(1 << 63) - 1, 4],
    [1 << 31, 1 << 31, 1 << 31],
    [1, 1 << 40],
    [1, (1 << 63) - 1],
    [0, (1 << 63) - 1],
    [-1, 4],
    [1 << 20, 1 << 20],
]


def test_shapes_that_promise_much(server, ordeal, until):
    """Products that overflow, and tensors of petabytes of which four bytes come: each refused by each wire, at no cost."""
    with grpc.insecure_channel(server.grpc) as channel, ordeal.through(server, peak_max=32 * MIB):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        rounds = 0
        while rounds == 0 or until():
            rounds += 1
            for shape in OVERFLOWS:
                status, _, text = post(server.http, INFER, infer_body({"x": (shape, [1])}))
                assert status == 400, (shape, text)
                assert binary_status(server, shape) == b"400", shape
                request = service_pb2.ModelInferRequest(model_name="identity", raw_input_contents=[bytes(4)])
                request.inputs.add(name="x", shape=shape, datatype="FP32")
                with pytest.raises(grpc.RpcError) as refused:
                    stub.ModelInfer(request, timeout=20)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, shape


def binary_status(server, shape: list[int]) -> bytes:
    sent = post_binary(INFER, "x", np.zeros((7, 7), np.float32)).replace(b"[7, 7]", json.dumps(shape).encode())
    text_length = len(sent.partition(b"\r\n\r\n")[2]) - 196
    with connect(server.http) as connection:
        head, _, body = sent.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if b"ength" not in line]
        lines += [b"Content-Length: %d" % len(body), b"Inference-Header-Content-Length: %d" % text_length]
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        return connection.recv(4096).split()[1]


def test_strangers_that_are_no_numbers(server, ordeal, until):
    """Rows of NaN and infinities share batches with those of the healthy client, whose sums stay right; theirs are IEEE's."""
    rows = np.array([[math.nan] * 16, [math.inf] * 16, [-math.inf] * 16], np.float32)

    def ask(_) -> int:
        rounds = 0
        with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while until():
                rounds += 1
                request = service_pb2.ModelInferRequest(model_name="together")
                for name in ("left", "right"):
                    request.inputs.add(name=name, shape=[3, 16], datatype="FP32")
                    request.raw_input_contents.append(rows.tobytes())
                answer = stub.ModelInfer(request, timeout=20)
                got = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(3, 16)
                np.testing.assert_array_equal(got, rows + rows)
        return rounds

    with ordeal.through(server, model="together"):
        assert all(crowd(ask))
    batches, counted = (of_model(server, f"kinglet_batch_rows_{part}", "together") for part in ("count", "sum"))
    assert counted / batches > 3, "expected batches of strangers"


def test_quotients_that_are_no_numbers(server, ordeal, until):
    """What a model makes of zeros comes over gRPC bit by bit; JSON, which has no such numbers, says what to ask for."""
    over, under = [1.0, -1.0, 0.0, 6.0], [0.0, 0.0, 0.0, 3.0]
    body = infer_body({"over": ([1, 4], over), "under": ([1, 4], under)})
    with ordeal.through(server), grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while until():
            status, _, text = post(server.http, "/v2/models/quotient/infer", body)
            assert status == 400 and b"not finite" in text and b"binary_data" in text, text
            request = service_pb2.ModelInferRequest(model_name="quotient")
            for name, values in (("over", over), ("under", under)):
                request.inputs.add(name=name, shape=[1, 4], datatype="FP32")
                request.raw_input_contents.append(np.array(values, np.float32).tobytes())
            answer = stub.ModelInfer(request, timeout=20)
            got = np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()
            assert got[0] == math.inf and got[1] == -math.inf and math.isnan(got[2]) and got[3] == 2, got


def test_announced_bodies_that_are_too_large(server, ordeal, until):
    """413 by the length alone, while the client would go on sending for ever."""

    def flood(_) -> list[float]:
        times = []
        while until():
            with connect(server.http) as connection:
                began = time.monotonic()
                connection.sendall(post_head(INFER, BODY_MAX + 1) + b" " * 4096)
                assert connection.recv(12) == b"HTTP/1.1 413"
                times.append(time.monotonic() - began)
        return times

    with ordeal.through(server, peak_max=32 * MIB):
        times = sorted(one for some in crowd(flood) for one in some)
    assert times[len(times) // 2] < 0.5, f"413 took {times[len(times) // 2]:.3f} s"
    wait_for(lambda: metrics(server)["kinglet_receiving_bytes"] == 0)


@pytest.mark.parametrize("framing", ["announced", "chunked"])
def test_bodies_that_go_on_for_ever(server, ordeal, until, framing):
    """Who does not stop after 413 is not read for ever: little more than the limit, and the connection is closed."""

    def flood(_) -> list[int]:
        took = []
        while until():
            with connect(server.http, 5) as connection:
                length = 1 << 40 if framing == "announced" else None
                connection.sendall(post_head(INFER, length))
                took.append(send_until_refused(connection, chunked=length is None))
        return took

    with ordeal.through(server, peak_max=160 * MIB):
        took = [one for some in crowd(flood, 4) for one in some]
    bound = 12 * MIB if framing == "announced" else BODY_MAX + 12 * MIB
    assert took and max(took) <= bound, f"one brought {max(took) >> 20} MiB"
    wait_for(lambda: metrics(server)["kinglet_receiving_bytes"] == 0)


def send_until_refused(connection: socket.socket, chunked: bool) -> int:
    """The bytes that the server and the sockets took until the connection was closed."""
    piece = bytes(64 << 10)
    sent = 0
    while sent < 1 << 30:
        try:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        except OSError:
            break
        sent += len(piece)
    return sent


def test_oversized_messages_over_grpc(server, ordeal, until):
    """A message of a gigabyte by its prefix: refused when its first bytes are there."""
    sent = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.grpc_head("ModelInfer"))
    sent += frames.frame(frames.DATA, 0, 1, b"\0" + struct.pack(">I", 1 << 30) + bytes(100))

    def flood(_) -> list[bool]:
        refused = []
        while until():
            connection = frames.Connection(server.grpc)
            connection.send(sent)
            refused.append(bool(connection.wait_for((frames.HEADERS, frames.RST_STREAM), 10)))
            connection.close()
        return refused

    with ordeal.through(server, peak_max=32 * MIB):
        assert all(all(refused) for refused in crowd(flood))
