"""A process that is killed, stopped, or told a wrong time."""

import http.client
import signal
import threading
import time

import pytest

import tools
from bounds import SHORT
from hostile import infer_body, post
from server import Server, binary, health
from watching import wait_for
from zoo import add, save

SUM = infer_body({"left": ([1, 16], [1] * 16), "right": ([1, 16], [2] * 16)})
TORN = 3


@pytest.mark.parametrize("listen", ["ports", "files"])
def test_killed_and_started_again(shelf, tmp_path, ordeal, listen):
    """SIGKILL under load, again and again: on the same ports, or on the socket files that the dead one left, clients that
    ask again lose nothing."""
    server = Server([shelf], tmp_path / "log", SHORT)
    if listen == "files":
        server.http, server.grpc = (f"unix:{tmp_path}/{name}" for name in ("http", "grpc"))
        server.is_ready = lambda: health(server.admin, "ready") == 200
    with server:
        with ordeal.through(server, retries=True, timed=False, same_process=False) as row:
            for _ in range(TORN):
                server.send(signal.SIGKILL)
                server.process.wait(20)
                server.start()
                server.wait_ready()
                time.sleep(0.5)
        for name, notes in row["clients"]["fault"].items():
            assert notes["retries"], f"{name}: expected to ask again"


def test_stopped_and_continued(shelf, tmp_path, ordeal):
    """SIGSTOP for longer than every time that a client has: what was sent meanwhile is answered, no connection is lost."""
    brief = {
        "KINGLET__LIMITS__HEADER_TIMEOUT": "1s",
        "KINGLET__LIMITS__IDLE_TIMEOUT": "1s",
        "KINGLET__LIMITS__BODY_TIMEOUT": "1s",
        "KINGLET__LIMITS__WRITE_TIMEOUT": "1s",
    }
    with Server([shelf], tmp_path / "log", brief) as server:
        with ordeal.through(server, timed=False, alive_seconds_max=2.5 + 4):
            for _ in range(2):
                server.send(signal.SIGSTOP)
                time.sleep(2.5)
                server.send(signal.SIGCONT)
                time.sleep(0.5)


def test_a_stop_that_is_not_waited_for(shelf, tmp_path, ordeal):
    """SIGTERM while it is stopped takes hold once it goes on, and loses nothing that had been sent."""
    with Server([shelf], tmp_path / "log", SHORT) as server:
        answers = []

        def ask() -> None:
            connection = http.client.HTTPConnection(server.http, timeout=20)
            connection.request("POST", "/v2/models/add/infer", SUM)
            answers.append(connection.getresponse().status)

        server.send(signal.SIGSTOP)
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        server.terminate()
        server.send(signal.SIGCONT)
        for thread in threads:
            thread.join(20)
        assert answers == [200] * 16
        assert server.wait_exit() == 0


class Misled(Server):
    """A server whose wall clock a file shifts; its monotonic clock is the system's."""

    def __init__(self, *arguments, clock, **options):
        super().__init__(*arguments, **options)
        self._clock = clock
        (library,) = (tools.HOME / "usr/lib").glob("*/faketime/libfaketimeMT.so.1") or [None]
        self._settings |= {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump(self, to: str) -> None:
        new = self._clock.with_suffix(".new")
        new.write_text(to)
        new.rename(self._clock)


JUMPS = ["+1d", "-1d", "+3600d", "-3600d", "+0"]


def test_wall_clocks_that_jump(tmp_path, ordeal):
    """A day, ten years, there and back: deadlines, idle times and a polled repository go by the time that passes."""
    tools.program("usr/bin/faketime")
    with open(binary(), "rb") as program:
        if b"/ld-linux" not in program.read(4096):
            pytest.skip("a static binary reads the clock by itself: set KINGLET_BIN to what `cargo build --release` makes")
    models, clock = tmp_path / "models", tmp_path / "clock"
    save(models / "add", add())
    clock.write_text("+0")
    settings = SHORT | {
        "KINGLET__REPOSITORY__CONTROL": "poll",
        "KINGLET__REPOSITORY__POLL_INTERVAL": "200ms",
        "KINGLET__REPOSITORY__SETTLE_TIME": "200ms",
    }
    with Misled([models], tmp_path / "log", settings, clock=clock) as server:
        with ordeal.through(server):
            for number, jump in enumerate(JUMPS):
                server.jump(jump)
                save(models / f"new{number}", add())
                deadline = {"kinglet-timeout-ms": "2000"}
                for _ in range(20):
                    assert post(server.http, "/v2/models/add/infer", SUM, deadline)[0] == 200
                wait_for(lambda name=f"new{number}": post(server.http, f"/v2/models/{name}/infer", SUM)[0] == 200)
        lines = server.log.read_text()
    years = (time.gmtime().tm_year + 9, time.gmtime().tm_year + 10)
    assert any(f'"timestamp":"{year}' in lines for year in years), "expected the server to be misled"
