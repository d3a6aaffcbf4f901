"""A model loaded again and again under its clients: does anyone notice?"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import models
from bodies import make_bodies
from check import check
from load import drive
from overload import at
from server import Kinglet
from verdicts import Report

MODEL, WIDTHS = "mlp", [784, 512, 512, 10]
CLIENTS = 8
RELOADS_MIN = 3


def run(args, out: Path, target: Path) -> list[Report]:
    repository = target / "reload-models"
    models.save(models.mlp(WIDTHS), repository, MODEL)
    report = Report("reload")
    with Kinglet(args.binary, [repository], out / "reload", "load_at_start = [\"*\"]\n", control="explicit") as server:
        for body in make_bodies(repository, target / "bodies", [MODEL], args.wires):
            one_wire(args, server, body, report)
    return [report]


def one_wire(args, server: Kinglet, body, report: Report) -> None:
    address, path = at(server, body)
    answer_bytes = check(address, path, body, echoes=False)
    ask = lambda: drive(address, path, body, answer_bytes, CLIENTS, args.reload_seconds, None, [])  # noqa: E731
    without = ask()
    before = server.metric("kinglet_model_loads_total", model=MODEL, outcome="ok")
    with Reloading(server) as reloading:
        during = ask()
    loads = server.metric("kinglet_model_loads_total", model=MODEL, outcome="ok") - before
    check(address, path, body, echoes=False)
    where = body.protocol
    report.judge(f"{where}: answers other than 2xx, or too short", "0", str(during["failures"]), during["failures"] == 0)
    report.judge(f"{where}: reloads that failed", "0", str(len(reloading.errors)), not reloading.errors)
    all_counted = loads >= max(RELOADS_MIN, reloading.count)
    report.judge(f"{where}: loads counted by the server", f">= {RELOADS_MIN}, all asked for", f"{loads:g} of {reloading.count}", all_counted)
    report.note(f"{where}, {CLIENTS} clients: {told(during)} with {reloading.count} reloads, {told(without)} without")
    report.notes += [f"error: {text}" for text in reloading.errors[:5]]
    report.found[where] = {"during": during, "without": without, "reloads": reloading.count, "errors": reloading.errors[:5]}


def told(found: dict) -> str:
    return f"{found['req_per_s']:.0f}/s, p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms"


class Reloading:
    """Asks for the next load as soon as the last has ended, while the context is open."""

    def __init__(self, server: Kinglet) -> None:
        self.server, self.count, self.errors = server, 0, []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.keep_loading, daemon=True)

    def __enter__(self) -> Reloading:
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()

    def keep_loading(self) -> None:
        while not self.ended.is_set():
            try:
                self.server.load(MODEL)
                self.count += 1
            except (OSError, RuntimeError) as error:
                self.errors.append(str(error))
                time.sleep(0.1)
