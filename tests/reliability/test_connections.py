"""Clients that hold connections and bring nothing, too much, or never come back."""

import re
import select
import socket
import time

import numpy as np
import pytest

import frames
import tools
from bounds import BODY_SECONDS, HEADER_SECONDS, IDLE_SECONDS, SHORT, WRITE_SECONDS
from hostile import address_of, break_off, connect, crowd, post_binary, post_head, vanish
from process import MIB
from server import Server
from watching import metrics, wait_for

INFER = "/v2/models/identity/infer"
# Between a time's end and its notice, on a machine that is busy.
SLACK_SECONDS = 4


def test_heads_byte_by_byte(server, ordeal, seconds):
    """Slowloris: three hundred heads that never end, each opened again when the server has had enough."""
    with ordeal.through(server):
        lives = trickle(server.http, 300, seconds + HEADER_SECONDS)
    assert lives, "expected connections to be closed"
    assert max(lives) < HEADER_SECONDS + SLACK_SECONDS, f"one was kept for {max(lives):.1f} s"


def trickle(address: str, count: int, lasting: float) -> list[float]:
    """Keeps so many heads under way, a byte each tenth of a second. How long those lived that the server closed."""
    end = time.monotonic() + lasting
    opened: dict[socket.socket, float] = {}
    lives = []
    try:
        while (now := time.monotonic()) < end:
            while len(opened) < count:
                connection = connect(address)
                connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nx: ")
                opened[connection] = now
            gone, _, _ = select.select(list(opened), [], [], 0)
            for connection in list(opened):
                try:
                    if connection not in gone:
                        connection.sendall(b"a")
                        continue
                except OSError:
                    pass
                lives.append(now - opened.pop(connection))
                connection.close()
            time.sleep(0.1)
    finally:
        for connection in opened:
            connection.close()
    return lives


SLOW_MODES = {
    "heads": ["-H", "-u", "/v2/health/live"],
    "bodies": ["-B", "-s", "8192", "-u", INFER],
    "readers": ["-X", "-w", "1", "-y", "64", "-n", "1", "-z", "8", "-k", "3", "-u", "/openapi.json"],
}


@pytest.mark.parametrize("mode", SLOW_MODES)
def test_slowhttptest(server, ordeal, seconds, mode):
    """The tool's own three attacks; its probe, a client like any other, must find the service open all along."""
    *options, path = SLOW_MODES[mode]
    probe = ["-c", "300", "-r", "300", "-i", "1", "-x", "8", "-p", "5", "-l", str(int(seconds) + 2)]
    with ordeal.through(server):
        told = tools.run("usr/bin/slowhttptest", *options[:-1], *probe, "-u", f"http://{server.http}{path}")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", told.stdout)
    available = re.findall(r"service available:\s+(\w+)", plain)
    assert available and set(available) == {"YES"}, plain[-2000:]
    wait_for(lambda: open_connections(server, "http") <= 1)


HEADS = {
    "many": "".join(f"x-{n}: a\r\n" for n in range(90)),
    "more than are parsed": "".join(f"x-{n}: a\r\n" for n in range(2000)),
    "large": f"x: {'a' * 32_000}\r\n",
    "huge": f"x: {'a' * 4_000_000}\r\n",
}


def test_floods_of_heads(server, ordeal, until):
    """Too many headers, too large ones, paths without end: refused with 431 or 414 before anything is kept."""
    sent = {kind: f"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n{lines}\r\n".encode() for kind, lines in HEADS.items()}
    sent["path"] = f"GET /{'a' * 200_000} HTTP/1.1\r\nhost: x\r\n\r\n".encode()

    def flood(_) -> set[tuple[str, bytes]]:
        said = set()
        while until():
            for kind, head in sent.items():
                with connect(server.http) as connection:
                    try:
                        connection.sendall(head)
                    except OSError:
                        pass  # It had heard enough.
                    said.add((kind, first_line(connection)))
        return said

    with ordeal.through(server):
        said = set().union(*crowd(flood))
    # A connection that is reset takes its answer with it.
    statuses = {(kind, line.split()[1]) for kind, line in said if line}
    assert {kind for kind, _ in statuses} >= {"many", "large"}
    assert {status for _, status in statuses} <= {b"431", b"414"}, statuses


def first_line(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096).split(b"\r\n")[0]
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("wire, kind", [("http", "many"), ("grpc", "large")])
def test_floods_of_heads_over_http2(server, ordeal, until, wire, kind):
    """Header lists beyond the limits are refused stream by stream, or end their connection; none is answered with 200."""
    more = {f"x-{n}": "a" for n in range(90)} if kind == "many" else {"x": "a" * 15_000, "y": "a" * 15_000}
    block = frames.head("/v2/health/live", "GET", **more)

    def flood(_) -> list[frames.Frame]:
        came = []
        while until():
            connection = frames.Connection(getattr(server, wire))
            for stream in range(1, 40, 2):
                pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
                kinds = [frames.HEADERS] + [frames.CONTINUATION] * (len(pieces) - 1)
                for place, (frame_kind, piece) in enumerate(zip(kinds, pieces, strict=True)):
                    ends = frames.END_HEADERS if place == len(pieces) - 1 else 0
                    flags = ends | (frames.END_STREAM if place == 0 else 0)
                    connection.send(frames.frame(frame_kind, flags, stream, piece))
            connection.wait_for((frames.HEADERS, frames.RST_STREAM, frames.GOAWAY), 1)
            came += connection.frames
            connection.close()
        return came

    with ordeal.through(server):
        came = [one for some in crowd(flood, 4) for one in some]
    answers = [one for one in came if one.kind in (frames.HEADERS, frames.RST_STREAM, frames.GOAWAY)]
    assert answers, "expected refusals"
    # 0x88 is the indexed form of ":status: 200".
    assert not [one for one in answers if one.kind == frames.HEADERS and one.payload[:1] == b"\x88"]


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_more_connections_than_allowed(shelf, tmp_path, ordeal, until, wire):
    """Those beyond the limit are closed at once and counted; who is connected is served; newcomers are, afterwards."""
    limit = 128
    settings = SHORT | {"KINGLET__LIMITS__CONNECTIONS_MAX": str(limit), "KINGLET__LIMITS__HEADER_TIMEOUT": "60s"}
    with Server([shelf], tmp_path / "log", settings) as server:
        crowd_of = []
        with ordeal.through(server, newcomer=False):
            while until():
                crowd_of = [one for one in crowd_of if not is_closed(one)]
                crowd_of += [connect(getattr(server, wire)) for _ in range(200)]
                assert metrics(server)[f'kinglet_connections{{listener="{wire}"}}'] <= limit
                time.sleep(0.05)
            for connection in crowd_of:
                connection.close()
        refused = metrics(server)[f'kinglet_connections_refused_total{{listener="{wire}",reason="limit"}}']
        assert refused > limit, refused
        with ordeal.through(server):
            time.sleep(0.2)


def is_closed(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    if readable:
        connection.close()
    return bool(readable)


def test_more_connections_than_descriptors(shelf, tmp_path, ordeal, seconds):
    """Out of descriptors: who is connected is served, the log and a metric say so, newcomers are served afterwards."""
    with Server([shelf], tmp_path / "log", SHORT, open_files_max=96) as server:
        with ordeal.through(server, newcomer=False):
            # Metrics come over a connection of their own, which has to be there before.
            crowd_of = [connect(server.http) for _ in range(300)]
            wait_for(lambda: "connections cannot be accepted" in server.log.read_text())
            time.sleep(seconds)
            for connection in crowd_of:
                connection.close()
        assert metrics(server)['kinglet_connections_refused_total{listener="http",reason="accept"}'] > 0
        with ordeal.through(server):
            time.sleep(0.3)


def test_clients_that_vanish(server, ordeal):
    """No FIN, no RST, no ACK: in each state of a connection the server gives it up by itself, within that state's time."""
    gone = []
    with ordeal.through(server):
        for _ in range(20):
            for state, sent in STATES.items():
                connection = connect(server.grpc if state.startswith("http2") else server.http)
                connection.sendall(sent)
                if state == "idle" or state.startswith("http2"):
                    assert connection.recv(4096)
                vanish(connection)
                gone.append(connection)
        # The last of their times, and what a keepalive takes.
        time.sleep(max(HEADER_SECONDS, BODY_SECONDS, IDLE_SECONDS))
        wait_for(lambda: open_connections(server, "http") <= 3)
        wait_for(lambda: open_connections(server, "grpc") <= 2)
        wait_for(lambda: metrics(server)["kinglet_receiving_bytes"] == 0)
        for connection in gone:
            connection.close()


# What was sent before the cable was pulled.
STATES = {
    "silent": b"",
    "head": b"POST /v2",
    "body": post_head(INFER, 1000) + b"{",
    "idle": b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "http2": frames.PREFACE + frames.settings(),
    "http2 head": frames.PREFACE + frames.settings() + frames.frame(frames.HEADERS, 0, 1, frames.head("/", "GET")),
    "http2 body": frames.PREFACE
    + frames.settings()
    + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.grpc_head("ModelInfer"))
    + frames.frame(frames.DATA, 0, 1, bytes(4) + b"\x7f" + b"half a message"),
}


def test_signs_of_life_are_no_requests(server, ordeal):
    """Connections that send and answer PING and nothing else are ended by idle_timeout like silent ones."""
    with ordeal.through(server):
        began = time.monotonic()
        talking = [frames.Connection(address, alive=True) for address in [server.http, server.grpc] * 8]
        while (open_ := [one for one in talking if not one.closed.is_set()]) and time.monotonic() - began < 20:
            for connection in open_:
                connection.send(frames.frame(frames.PING, 0, 0, bytes(8)))
            time.sleep(0.25)
        took = time.monotonic() - began
    assert IDLE_SECONDS - 1 < took < IDLE_SECONDS + SLACK_SECONDS, f"{len(open_)} are open after {took:.1f} s"


@pytest.mark.parametrize("gone", [False, True], ids=["stopped", "vanished"])
def test_readers_that_take_nothing(server, ordeal, gone):
    """Twenty-four answers of more than a socket holds: their connections are closed, and what they kept is given back."""
    elements = 7 << 18
    sent = post_binary(INFER, "x", np.ones((1, elements), np.float32))
    with ordeal.through(server, growth_max=128 << 20):
        stuck = []
        began = time.monotonic()
        for _ in range(24):
            stuck.append(take_nothing(server, sent))
            if gone:
                vanish(stuck[-1])
        wait_for(lambda: metrics(server)["kinglet_in_flight_requests"] <= 2)
        wait_for(lambda: open_connections(server, "http") <= 3)
        assert time.monotonic() - began > WRITE_SECONDS, "expected answers that do not fit into the sockets"
        for connection in stuck:
            break_off(connection)


def test_answers_that_nobody_takes_are_bounded_together(shelf, tmp_path, ordeal):
    """Forty-eight answers of 7 MiB that leave, with room for 32 MiB: the process keeps not much more, and who comes too late
    is told to wait. Small answers go on, and when the large ones are given up the next is served."""
    settings = SHORT | {"KINGLET__ADMISSION__LEAVING_BYTES_MAX": "32MiB", "KINGLET__LIMITS__WRITE_TIMEOUT": "20s"}
    sent = post_binary(INFER, "x", np.ones((1, 7 << 18), np.float32))
    with Server([shelf], tmp_path / "log", settings) as server:
        with ordeal.through(server, peak_max=128 << 20):
            stuck = [ask_and_take_nothing(server, sent) for _ in range(48)]
            heads = [said for _, said in stuck]
            taken = sum(said.startswith(b"HTTP/1.1 200") for said in heads)
            assert 4 <= taken <= 8, f"{taken} began to leave"
            assert all(said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 429")) for said in heads), heads
            assert 27 * MIB < metrics(server)["kinglet_leaving_bytes"] < 40 * MIB
            assert metrics(server)['kinglet_admission_refused_total{reason="leaving"}'] >= 48 - taken
            for connection, _ in stuck:
                break_off(connection)
            wait_for(lambda: metrics(server)["kinglet_leaving_bytes"] < MIB)
        break_off(take_nothing(server, sent))


def ask_and_take_nothing(server, sent: bytes) -> tuple[socket.socket, bytes]:
    """A client that has read its answer's first bytes, which come with it, and will read no more."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect(address_of(server.http))
    connection.sendall(sent)
    return connection, connection.recv(12)


def take_nothing(server, sent: bytes) -> socket.socket:
    connection, said = ask_and_take_nothing(server, sent)
    assert said == b"HTTP/1.1 200"
    return connection


def open_connections(server, listener: str) -> float:
    return metrics(server)[f'kinglet_connections{{listener="{listener}"}}']
