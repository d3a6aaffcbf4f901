"""The frame of every test here: a healthy client goes on through the fault, and server and client are looked at afterwards.

Knows no fault.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from process import MIB, Footprint, forget_peak, peak_bytes
from server import Server, health
from watching import metrics

HERE = Path(__file__).parent
BASELINE_SECONDS = 0.6
# Enough for the healthy client to meet it.
FAULT_SECONDS_MIN = 0.3
# Machines that run this also compile; what is asked is that nobody is starved, and the figures say how it was.
SLOWER_MAX = 10
P99_FLOOR_SECONDS = 1.0
# An answer that takes longer is lost.
ANSWER_SECONDS_MAX = 20
RETURN_SECONDS_MAX = 15
GROWTH_BYTES_MAX = 64 * MIB
# Files of the healthy client itself, which may have come and gone.
OPEN_FILES_MORE_MAX = 4


class Commander:
    """Tells the process of the healthy client what to do. One serves all tests, for what it takes to start."""

    def __init__(self):
        command = [sys.executable, HERE / "steady.py"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, **order) -> dict:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the healthy client has ended"
        return json.loads(answer)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(20)


class Ordeal:
    """One test's: `through` is the fault's time. What it measured goes into the report under the test's name."""

    def __init__(self, commander: Commander, name: str, report: list[dict]):
        self._commander, self._name, self._report = commander, name, report

    @contextlib.contextmanager
    def through(
        self,
        server: Server,
        *,
        model: str = "add",
        newcomer: bool = True,
        retries: bool = False,
        timed: bool = True,
        same_process: bool = True,
        growth_max: int = GROWTH_BYTES_MAX,
        peak_max: int | None = None,
        alive_seconds_max: float | None = None,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> Iterator[dict]:
        """Bounds of memory are beyond what was taken before; `alive_seconds_max` is the longest pause of all. Gives the row
        of the report, which is filled in afterwards."""
        row: dict = {"test": self._name}
        self._commander.tell(
            do="start",
            phase="warm",
            http=server.http,
            grpc=server.grpc,
            model=model,
            newcomer=newcomer,
            retries=retries,
            answer_seconds_max=answer_seconds_max,
        )
        stopped = False
        try:
            time.sleep(0.2)
            self._commander.tell(do="phase", phase="before")
            time.sleep(BASELINE_SECONDS)
            before = Footprint.of(server.process.pid) if same_process else None
            if same_process:
                forget_peak(server.process.pid)
            self._commander.tell(do="phase", phase="fault")
            began = time.monotonic()
            yield row
            time.sleep(max(0.0, began + FAULT_SECONDS_MIN - time.monotonic()))
            lasted = time.monotonic() - began
            self._commander.tell(do="phase", phase="after")
            time.sleep(0.1)
            told = self._commander.tell(do="stop")
            stopped = True
        finally:
            if not stopped:
                self._commander.tell(do="stop")
        row |= {"seconds": round(lasted, 1), "clients": told}
        self._report.append(row)
        check_clients(told, timed, alive_seconds_max)
        assert health(server.http, "ready") == 200 if not server.http.startswith("unix:") else server.is_ready()
        if same_process:
            peak = peak_bytes(server.process.pid) - before.resident_bytes
            row["peak"] = peak
            row.update(returned(server, before, growth_max))
            assert peak_max is None or peak <= peak_max, f"memory grew by {peak >> 20} MiB meanwhile"
        page = metrics(server) if not server.admin.startswith("unix:") else {}
        assert page.get("kinglet_panics_total", 0) == 0
        assert "panicked" not in log_text(server)


def check_clients(told: dict, timed: bool, alive_seconds_max: float | None) -> None:
    for phase, clients in told.items():
        for name, notes in clients.items():
            assert not notes["wrong"], f"{name}, {phase}: {notes['wrong'][0]}"
            assert not notes["lost"], f"{name}, {phase}: {notes['lost_count']} lost, such as {notes['lost'][0]}"
    for name, during in told["fault"].items():
        before = told["before"][name]
        assert before["answers"] and during["answers"], f"{name}: expected answers, came {before}, {during}"
        bound = max(P99_FLOOR_SECONDS, SLOWER_MAX * before["p99"])
        assert not timed or during["p99"] <= bound, f"{name}: p99 {during['p99']:.3f} s, before {before['p99']:.3f} s"
        assert alive_seconds_max is None or during["max"] <= alive_seconds_max, f"{name}: {during['max']:.3f} s"


def returned(server: Server, before: Footprint, growth_max: int) -> dict:
    """Waits until memory and files are back within their bounds."""
    until = time.monotonic() + RETURN_SECONDS_MAX
    while True:
        now = Footprint.of(server.process.pid)
        grown = now.resident_bytes - before.resident_bytes
        more = now.open_files - before.open_files
        if grown <= growth_max and more <= OPEN_FILES_MORE_MAX:
            return {"grown": grown, "files": more}
        assert time.monotonic() < until, f"{grown >> 20} MiB and {more} files more than before the fault"
        time.sleep(0.1)


def of_model(server: Server, name: str, model: str, **labels: str) -> float | None:
    """The sample of a model's own build, or none."""
    wanted = {f'{key}="{value}"' for key, value in ({"model": model} | labels).items()}
    for sample, value in metrics(server).items():
        named, _, rest = sample.rstrip("}").partition("{")
        if named == name and wanted <= set(rest.split(",")):
            return value
    return None


def log_text(server: Server) -> str:
    return server.log.read_text(errors="replace") if server.log.is_file() else ""


def write_report(report: list[dict]) -> None:
    """Milliseconds of the slowest of the healthy clients, MiB of memory."""
    home = Path(os.environ.get("RELIABILITY_HOME", "target/reliability"))
    home.mkdir(parents=True, exist_ok=True)
    (home / "measured.json").write_text(json.dumps(report, indent=1))
    lines = [
        "| test | s | answers | lost | p99 before, ms | p99 meanwhile, ms | slowest, ms | MiB at the peak | MiB afterwards |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report:
        before, fault = (row["clients"].get(phase, {}).values() for phase in ("before", "fault"))
        most = lambda clients, what: f"{max((c[what] for c in clients), default=0) * 1e3:.1f}"  # noqa: E731
        total = lambda what: sum(c[what] for clients in row["clients"].values() for c in clients.values())  # noqa: E731
        memory = [f"{row[what] / MIB:+.0f}" if what in row else "" for what in ("peak", "grown")]
        figures = [row["seconds"], total("answers"), total("lost_count"), most(before, "p99"), most(fault, "p99")]
        cells = [row["test"], *figures, most(fault, "max"), *memory]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    (home / "measured.md").write_text("\n".join(lines) + "\n")
