"""SIGTERM under load: is everything answered that was accepted, and does the process end as it should?"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from arrivals import OUTCOMES, OpenLoop, counted
from bodies import Body, make_bodies
from check import check
from load import drive
from overload import MODEL, at, heavy_enough
from server import Kinglet
from verdicts import Report

# Of the peak: with room to spare, and with a queue that is full when the signal comes.
FACTORS = {"half load": 0.5, "overload": 5.0}
QUEUE = 64
BEFORE_S, AFTER_S = 2.0, 3.0
EXIT_LIMIT_S = 45  # the default grace is 30 s


def run(args, out: Path, target: Path) -> list[Report]:
    repository = heavy_enough(args, target, out)
    bodies = make_bodies(repository, target / "bodies", [MODEL], args.wires)
    report = Report("drain")
    for body in bodies:
        for kind, factor in FACTORS.items():
            folder = out / f"drain-{body.protocol}-{kind.replace(' ', '-')}"
            rounds = [once(args, repository, body, factor, folder / str(round_)) for round_ in range(args.drains)]
            judge(report, f"{body.protocol}, {kind}", rounds)
    return [report]


def once(args, repository: Path, body: Body, factor: float, folder: Path) -> dict:
    with Kinglet(args.binary, [repository], folder, f"[batching]\nqueue_requests_max = {QUEUE}\n") as server:
        address, path = at(server, body)
        answer_bytes = check(address, path, body, echoes=False)
        peak = drive(address, path, body, answer_bytes, 16, 2, None, [])["req_per_s"]
        load = OpenLoop(args.open_loop, body, address, path, factor * peak, BEFORE_S + AFTER_S, args.connections, answer_bytes)
        time.sleep(BEFORE_S)
        in_flight = wait_busy(server)
        signalled = time.monotonic()
        server.session.process.terminate()
        try:
            code = server.session.process.wait(EXIT_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None
        took = time.monotonic() - signalled
        rows = load.rows()
    return {**counted(rows), "why_lost": dict(load.why_lost), "in_flight": in_flight, "exit_code": code, "exit_s": round(took, 3)}


def wait_busy(server: Kinglet) -> float:
    """Requests that are being answered, as soon as there are any."""
    end = time.monotonic() + BEFORE_S
    while time.monotonic() < end:
        in_flight = server.metric("kinglet_in_flight_requests")
        if in_flight:
            return in_flight
    return 0


def judge(report: Report, where: str, rounds: list[dict]) -> None:
    total = {key: sum(found[key] for found in rounds) for key in (*OUTCOMES, "in_flight")}
    codes = [found["exit_code"] for found in rounds]
    report.judge(f"{where}: sent and not answered", "0", str(total["lost"]), total["lost"] == 0)
    unknown = total["unknown"]
    report.judge(f"{where}: resets of connections never answered on", f"<= {len(rounds)}, one a round", str(unknown), unknown <= len(rounds))
    report.judge(f"{where}: wrong answers", "0", str(total["wrong"]), total["wrong"] == 0)
    report.judge(f"{where}: exit codes", "all 0", str(codes), all(code == 0 for code in codes))
    waiting = total["in_flight"]
    report.judge(f"{where}: requests in flight before the signal, all rounds", "> 0, else nothing is shown", f"{waiting:g}", waiting > 0)
    report.note(f"{where}: {total}; ended after {[found['exit_s'] for found in rounds]} s")
    report.notes += [f"{where}: lost: {why}" for why in sorted({why for found in rounds for why in found["why_lost"]})]
    report.found[where] = rounds
