"""Minutes of mixed load over all models in changing shapes while models are loaded and unloaded: does memory level off?"""

from __future__ import annotations

import random
import time
from pathlib import Path

from curve import Curve, last, series, slope_mib_per_minute, sparkline
from mixture import Mixture, repositories
from server import Kinglet
from verdicts import Report

SLOPE_MIB_PER_MINUTE_MAX = 1.0
JUDGED_S = 600
CHURN_PERIOD_S = 2.0
AWAY_S = 0.5
CYCLES_JUDGED_MIN = 3
PARTS = {"rss": "all", "own": "the process's own", "file": "of files"}


def run(args, out: Path, target: Path) -> list[Report]:
    report = Report("soak")
    with Kinglet(args.binary, repositories(target), out / "soak", control="explicit") as server:
        mixture = Mixture(server, args.threads, args.rest)
        for model in mixture.questions:
            server.load(model)
        cpu, start = server.session.cpu_s(), time.monotonic()
        with Curve(server) as curve, mixture:
            churning = Churning(server, mixture, curve)
            churning.go_on(60 * args.minutes)
        cores = (server.session.cpu_s() - cpu) / (time.monotonic() - start)
        panics = server.metric("kinglet_panics_total")
        alive = server.session.alive()
    curve.save(out, "rss-soak")
    judged = min(JUDGED_S, curve.points[-1][0] / 2)
    compared = {part: last(series(churning.samples, part), judged) for part in PARTS}
    slopes = {part: slope_mib_per_minute(points) for part, points in compared.items() if points}
    each_second = {part: slope_mib_per_minute(curve.last(judged, part)) for part in PARTS}
    cycles = len(compared["rss"])
    where, wanted = f"memory at the end of each cycle, last {judged / 60:.1f} min, MiB/min", f"< {SLOPE_MIB_PER_MINUTE_MAX:g}"
    slope = slopes.get("rss", float("nan"))
    report.judge(where, wanted, f"{slope:+.2f} ({cycles} cycles)", slope < SLOPE_MIB_PER_MINUTE_MAX)
    report.judge("cycles that are judged", f">= {CYCLES_JUDGED_MIN}", str(cycles), cycles >= CYCLES_JUDGED_MIN)
    report.judge("unexpected errors", "0", str(mixture.counts["errors"]), mixture.counts["errors"] == 0)
    report.judge("panics; the server lives", "0; yes", f"{panics:g}; {'yes' if alive else 'no'}", panics == 0 and alive)
    missing = set(mixture.questions) - {model for model, _ in mixture.shapes}
    report.judge("models that answered", f"all {len(mixture.questions)}", f"all but {len(missing)}" if missing else "all", not missing)
    report.note(f"{mixture.answered()} answers, {dict(mixture.counts)}; {churning.done}; {len(mixture.shapes)} distinct questions; {cores:.2f} cores")
    report.note(f"memory {sparkline(curve.points)}")
    for part, what in PARTS.items():
        sizes = " ".join(f"{mib:.0f}" for _, mib in series(churning.samples, part))
        slope = f"{slopes.get(part, float('nan')):+.2f} MiB/min, {each_second[part]:+.2f} over samples of each second"
        report.note(f"memory, {what}: {sizes} MiB at the end of each cycle; {slope}")
    report.notes += [f"error: {text}" for text in mixture.errors]
    report.found = {"slopes_mib_per_minute": slopes, "slopes_of_each_second": each_second, "judged_s": judged, "cycles": churning.samples,
                    "counts": dict(mixture.counts), "churned": churning.done, "questions": len(mixture.shapes), "cores": round(cores, 3),
                    "errors": mixture.errors, "rss_max_mib": curve.highest()}  # fmt: skip
    return [report]


class Churning:
    """In cycles, all in the same order: each model once is reloaded, or taken away and brought back. A reload must not be
    noticed. A cycle ends with a sample of memory that is comparable with those of the others: every model is loaded, as long
    ago as each time, and has just been asked everything. The mixed load goes on meanwhile."""

    def __init__(self, server: Kinglet, mixture: Mixture, curve: Curve) -> None:
        self.server, self.mixture, self.curve = server, mixture, curve
        self.models = list(mixture.questions)
        random.Random(1).shuffle(self.models)
        self.done = {"reloads": 0, "unloads": 0}
        self.samples: list[tuple[float, dict[str, float]]] = []

    def go_on(self, seconds: float) -> None:
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            if self.cycle(number, end):
                self.mixture.ask_all()
                self.samples.append(self.curve.sample())
            number += 1

    def cycle(self, number: int, end: float) -> bool:
        """False where the time was over before its end. What is reloaded in one cycle is taken away in the next."""
        for place, model in enumerate(self.models):
            if time.monotonic() >= end:
                return False
            try:
                if (place + number) % 2:
                    self.server.load(model)
                    self.done["reloads"] += 1
                else:
                    away(self.server, self.mixture, model)
                    self.done["unloads"] += 1
            except (OSError, RuntimeError) as error:
                self.mixture.fail(f"{model}: {error}")
            time.sleep(min(CHURN_PERIOD_S, max(0.0, end - time.monotonic())))
        return True


def away(server: Kinglet, mixture: Mixture, model: str) -> None:
    mixture.presence[model].change(present=False)
    server.unload(model)
    time.sleep(AWAY_S)
    server.load(model)
    mixture.presence[model].change(present=True)
