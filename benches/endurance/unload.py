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
    """The baseline is the server in explicit mode before any load. It is the strict one: what a first load leaves behind
    for good (code pages, caches of the libraries) counts against the bar; the notes show each later cycle beside it."""
    report = Report("unload")
    with Kinglet(args.binary, repositories(target), out / "unload", control="explicit") as server:
        time.sleep(1)
        baseline = server.session.rss_mib()
        cycles = [cycle(args, server, report) for _ in range(args.cycles)]
    for name, after in (("first", cycles[0]["after"]), ("last", cycles[-1]["after"])):
        share = after / baseline
        got = f"{share:.2f} ({after:.1f} of {baseline:.1f} MiB)"
        report.judge(f"memory after the {name} cycle, of before any load", f"<= {RETURN_SHARE_MAX}", got, share <= RETURN_SHARE_MAX)
    errors = sum(found["errors"] for found in cycles)
    report.judge("unexpected errors", "0", str(errors), errors == 0)
    for number, found in enumerate(cycles, 1):
        sizes = "loaded {loaded:.1f}, asked {asked:.1f}, just unloaded {at_once:.1f}, later {after:.1f} MiB".format_map(found)
        report.note(f"cycle {number}: {sizes}; {found['answers']} answers")
    report.found = {"baseline_mib": baseline, "cycles": cycles}
    return [report]


def cycle(args, server: Kinglet, report: Report) -> dict:
    mixture = Mixture(server, args.threads, 0)
    for model in mixture.questions:
        server.load(model)
    loaded = server.session.rss_mib()
    with mixture:
        time.sleep(args.cycle_seconds)
    asked = server.session.rss_mib()
    for model in mixture.questions:
        server.unload(model)
    at_once = server.session.rss_mib()
    time.sleep(SETTLE_S)
    report.notes += [f"error: {text}" for text in mixture.errors]
    sizes = {"loaded": loaded, "asked": asked, "at_once": at_once, "after": server.session.rss_mib()}
    return {**sizes, "answers": mixture.answered(), "errors": mixture.counts["errors"]}
