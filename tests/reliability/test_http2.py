"""Attacks on HTTP/2 that have numbers, and some that have none, on both listeners, in frames written by hand."""

import re
import struct
import time

import pytest
from tritonclient.grpc import service_pb2

import frames
import tools
from bounds import IDLE_SECONDS, WRITE_SECONDS
from frames import Connection, frame
from hostile import crowd, infer_body
from process import MIB
from watching import metrics, wait_for

INFER = "/v2/models/identity/infer"
LISTENERS = pytest.mark.parametrize("wire", ["http", "grpc"])
# A flood that is not ended by the server costs it bytes and time; so much memory it may take.
PEAK_MAX = 48 * MIB


def request_block(wire: str) -> bytes:
    if wire == "grpc":
        return frames.grpc_head("ModelInfer")
    return frames.head("/v2/models/slow/infer", content_type="application/json")


def flood(server, wire, until, piece: bytes | None = None, make=None, per_send: int = 200):
    """Sends pieces over connections of four threads, a new one where the server has closed. How often it did, and with
    what."""

    def one(_) -> tuple[int, list[int]]:
        ended, errors = 0, []
        while until():
            connection = Connection(getattr(server, wire))
            stream = 1
            while until() and not connection.closed.is_set():
                if make:
                    sent = b"".join(make(stream + 2 * n) for n in range(per_send))
                    stream += 2 * per_send
                else:
                    sent = piece * per_send
                if not connection.send(sent):
                    break
            if connection.wait_closed(0.05):
                ended += 1
            errors += [came.error for came in connection.of_kind(frames.GOAWAY)]
            connection.close()
        return ended, errors

    results = crowd(one, 4)
    return sum(ended for ended, _ in results), [error for _, errors in results for error in errors]


@LISTENERS
def test_rapid_reset(server, ordeal, until, wire):
    """CVE-2023-44487: requests reset as soon as they are sent. The connection ends with ENHANCE_YOUR_CALM."""
    block = request_block(wire)

    def make(stream):
        return frame(frames.HEADERS, frames.END_HEADERS, stream, block) + frames.reset(stream)

    with ordeal.through(server, peak_max=PEAK_MAX):
        ended, errors = flood(server, wire, until, make=make)
    assert ended and frames.ENHANCE_YOUR_CALM in errors, (ended, errors)
    assert_nothing_is_left(server)


# Frames that are wrong for their stream alone, behind a request that was right.
WRONG_FRAMES = {
    "no window": lambda stream: frame(frames.WINDOW_UPDATE, 0, stream, struct.pack(">I", 0)),
    "a window too wide": lambda stream: frame(frames.WINDOW_UPDATE, 0, stream, struct.pack(">I", (1 << 31) - 1)),
    "more than all": lambda stream: frame(frames.DATA, frames.END_STREAM, stream) + frame(frames.DATA, 0, stream, b"x"),
    "its own parent": lambda stream: frame(frames.PRIORITY, 0, stream, struct.pack(">IB", stream, 1)),
}


@pytest.mark.parametrize("wire, wrong", [*zip(["http", "grpc"] * 2, WRONG_FRAMES, strict=True)])
def test_made_you_reset(server, ordeal, until, wire, wrong):
    """CVE-2025-8671: requests that the server itself must reset. It ends the connection instead of going on."""
    block = request_block(wire)

    def make(stream):
        return frame(frames.HEADERS, frames.END_HEADERS, stream, block) + WRONG_FRAMES[wrong](stream)

    with ordeal.through(server, peak_max=PEAK_MAX):
        ended, errors = flood(server, wire, until, make=make)
    assert ended and errors, (ended, errors)
    assert_nothing_is_left(server)


@LISTENERS
def test_continuation_flood(server, ordeal, until, wire):
    """CVE-2024-27316: a header block without an end. The connection is closed, and nothing of it is kept."""
    begun = frame(frames.HEADERS, frames.END_STREAM, 1, frames.head("/", "GET"))
    piece = frame(frames.CONTINUATION, 0, 1, frames.header("x", "a" * 4000))
    opened, sent = [], []

    def one(_) -> None:
        while until():
            connection = Connection(getattr(server, wire))
            connection.send(begun)
            opened.append(connection)
            count = 0
            while until() and not connection.closed.is_set() and connection.send(piece):
                count += 1
            sent.append(count * len(piece))
            connection.close()

    with ordeal.through(server, peak_max=PEAK_MAX):
        crowd(one, 4)
    assert len(opened) > 8, "expected connections to be closed"
    assert max(sent[:-4] or sent) < 4 * MIB, f"one took {max(sent) >> 20} MiB of a head"


CHEAP_FRAMES = {
    "ping": frame(frames.PING, 0, 0, bytes(8)),
    "settings": frames.settings({frames.INITIAL_WINDOW_SIZE: 65535}),
    "priority": frame(frames.PRIORITY, 0, 1, bytes(3) + b"\x03\x10"),
    "unknown": frame(0xBB, 0, 0, bytes(16)),
}


@pytest.mark.parametrize("wire, kind", [*zip(["http", "grpc"] * 2, CHEAP_FRAMES, strict=True)])
def test_floods_of_frames(server, ordeal, until, wire, kind):
    """CVE-2019-9512, -9515 and their like: frames that want an answer, or nothing. Memory stays where it was."""
    with ordeal.through(server, peak_max=PEAK_MAX):
        flood(server, wire, until, piece=CHEAP_FRAMES[kind])
    assert_nothing_is_left(server)


def test_pings_whose_answers_nobody_reads(server, ordeal, seconds):
    """CVE-2019-9512 as it was meant: answers pile up at a client that reads none. The server stops reading, too."""
    piece = CHEAP_FRAMES["ping"] * 1000
    with ordeal.through(server, peak_max=PEAK_MAX):
        stuck = [Connection(address, reads=False) for address in [server.http, server.grpc] * 4]
        end = time.monotonic() + seconds
        for connection in stuck:
            connection.socket.settimeout(0.2)
            while time.monotonic() < end and connection.send(piece):
                pass
        for connection in stuck:
            connection.close()
    assert_nothing_is_left(server)


@LISTENERS
def test_empty_frames(server, ordeal, until, wire):
    """CVE-2019-9518: a body of frames without a byte."""
    block = request_block(wire)

    def one(_) -> None:
        while until():
            connection = Connection(getattr(server, wire))
            connection.send(frame(frames.HEADERS, frames.END_HEADERS, 1, block))
            while until() and not connection.closed.is_set():
                if not connection.send(frame(frames.DATA, 0, 1) * 200):
                    break
            connection.close()

    with ordeal.through(server, peak_max=PEAK_MAX):
        crowd(one, 4)
    assert_nothing_is_left(server)


def test_windows_that_stay_shut(server, ordeal):
    """CVE-2019-9517: large answers are asked for, and no window is opened for them. They end with write_timeout."""
    with ordeal.through(server, growth_max=128 * MIB):
        began = time.monotonic()
        stuck = []
        for wire in ["http", "grpc"] * 4:
            stuck.append(Connection(getattr(server, wire), {frames.INITIAL_WINDOW_SIZE: 0}, alive=True))
            for stream in range(1, 41, 2):
                stuck[-1].send(whole_request(wire, stream))
        closed = [connection.wait_closed(WRITE_SECONDS + IDLE_SECONDS + 6) for connection in stuck]
        took = time.monotonic() - began
    assert all(closed), f"{closed.count(False)} of {len(closed)} connections are still open after {took:.1f} s"
    assert not [came for connection in stuck for came in connection.of_kind(frames.DATA) if came.payload]
    assert_nothing_is_left(server)


def whole_request(wire: str, stream: int) -> bytes:
    """Of an answer of some kilobytes."""
    if wire == "http":
        body = infer_body({"x": ([1, 2000], [1.5] * 2000)})
        block = frames.head(INFER, content_length=str(len(body)))
    else:
        request = service_pb2.ModelInferRequest(model_name="identity")
        request.inputs.add(name="x", shape=[1, 2000], datatype="FP32")
        request.raw_input_contents.append(bytes(8000))
        message = request.SerializeToString()
        body = b"\0" + struct.pack(">I", len(message)) + message
        block = frames.grpc_head("ModelInfer")
    pieces = [body[at : at + 16_000] for at in range(0, len(body), 16_000)]
    sent = frame(frames.HEADERS, frames.END_HEADERS, stream, block)
    for place, piece in enumerate(pieces):
        sent += frame(frames.DATA, frames.END_STREAM if place == len(pieces) - 1 else 0, stream, piece)
    return sent


def test_h2load_beside_rapid_reset(server, ordeal, until, tmp_path):
    """An honest crowd of another's making gets every answer while others reset theirs."""
    body = tmp_path / "body"
    body.write_bytes(infer_body({"left": ([1, 16], [1] * 16), "right": ([1, 16], [2] * 16)}))
    block = request_block("http")

    def make(stream):
        return frame(frames.HEADERS, frames.END_HEADERS, stream, block) + frames.reset(stream)

    program = "usr/bin/h2load"
    tools.program(program)
    honest = ["-n", "3000", "-c", "8", "-m", "4", "-d", str(body), f"http://{server.http}/v2/models/add/infer"]
    with ordeal.through(server):
        done = []

        def hostile_or_honest(number):
            if number == 0:
                done.append(tools.run(program, *honest).stdout)
            else:
                flood(server, "http", until, make=make)

        crowd(hostile_or_honest, 2)
    counted = re.search(r"requests: 3000 total, .* 3000 succeeded, 0 failed, 0 errored, 0 timeout", done[0])
    assert counted and "3000 2xx" in done[0], done[0]


def test_messages_that_are_broken_off_are_no_errors_of_the_server(server, ordeal):
    """Calls over gRPC that are reset, or end, in the middle of their message."""
    message = bytes([0, 0, 0, 1, 0]) + b"half of it"
    with ordeal.through(server):
        before = internal_errors(server)
        for flags, behind in ((0, frames.reset(1)), (frames.END_STREAM, b"")):
            connection = Connection(server.grpc)
            begun = frame(frames.HEADERS, frames.END_HEADERS, 1, request_block("grpc"))
            connection.send(begun + frame(frames.DATA, flags, 1, message))
            # So that the call has begun.
            time.sleep(0.1)
            connection.send(behind)
            time.sleep(0.1)
            connection.close()
    assert internal_errors(server) == before


def internal_errors(server) -> float:
    page = metrics(server).items()
    return sum(value for name, value in page if name.startswith("kinglet_requests_total{") and 'code="internal"' in name)


def assert_nothing_is_left(server) -> None:
    def is_at_rest() -> bool:
        page = metrics(server)
        here = [page[f'kinglet_connections{{listener="{name}"}}'] for name in ("http", "grpc")]
        held = [page[f"kinglet_{name}"] for name in ("in_flight_requests", "in_flight_bytes", "receiving_bytes")]
        return sum(here) <= 1 and not any(held)

    wait_for(is_at_rest)
