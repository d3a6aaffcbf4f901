"""Everything loaded, asked and unloaded, again and again: does memory return to what it was before the first load?"""

from __future__ import annotations

import time
from pathlib import Path

from mixture import Mixture, repositories
from server import Kinglet
from verdicts import Report

RETURN_SHARE_MAX = 1.05
SETTLE_S = 10


def run(args, out: Path, target: Path) -> list[Report]:
    """The baseline is the server in explicit mode before any load: the strict one, for what a first load leaves for good
    (pages of code, caches of libraries) counts against the bar. Later cycles against the first show leaks apart from that,
    those of the process's own memory apart from code that was touched later."""
    report = Report("unload")
    with Kinglet(args.binary, repositories(target), out / "unload", control="explicit") as server:
        time.sleep(1)
        baseline = server.memory()
        cycles = [cycle(args, server, report) for _ in range(args.cycles)]
        counted = server.metric("kinglet_model_memory_bytes")
    first, last = cycles[0]["after"], cycles[-1]["after"]
    judge(report, "memory after the last cycle, of before any load", last["rss"], baseline["rss"])
    judge(report, "memory after the last cycle, of after the first", last["rss"], first["rss"])
    judge(report, "the process's own memory after the last cycle, of after the first", last["own"], first["own"])
    report.judge("bytes of models by the server's own count", "0", f"{counted:g}", counted == 0)
    errors = sum(found["errors"] for found in cycles)
    report.judge("unexpected errors", "0", str(errors), errors == 0)
    report.note(f"before any load: {told(baseline)}")
    for number, found in enumerate(cycles, 1):
        report.note(f"cycle {number}: {', '.join(f'{moment} {told(found[moment])}' for moment in MOMENTS)}; {found['answers']} answers")
    report.found = {"baseline_mib": baseline, "cycles": cycles}
    return [report]


def cycle(args, server: Kinglet, report: Report) -> dict:
    mixture, sizes = Mixture(server, args.threads, 0), {}
    for model in mixture.questions:
        server.load(model)
    sizes["loaded"] = server.memory()
    with mixture:
        time.sleep(args.cycle_seconds)
    sizes["asked"] = server.memory()
    for model in mixture.questions:
        server.unload(model)
    sizes["unloaded"] = server.memory()
    time.sleep(SETTLE_S)
    report.notes += [f"error: {text}" for text in mixture.errors]
    return {**sizes, "after": server.memory(), "answers": mixture.answered(), "errors": mixture.counts["errors"]}


def judge(report: Report, what: str, mib: float, base: float) -> None:
    report.judge(what, f"<= {RETURN_SHARE_MAX}", f"{mib / base:.2f} ({mib:.1f} of {base:.1f} MiB)", mib <= RETURN_SHARE_MAX * base)


def told(size: dict[str, float]) -> str:
    return f"{size['rss']:.1f} MiB ({size['own']:.1f} its own)"


# "after" is some seconds later than "unloaded".
MOMENTS = ("loaded", "asked", "unloaded", "after")
