"""Minutes of mixed load over all models in changing shapes while models are loaded and unloaded: does memory level off?"""

from __future__ import annotations

import random
import time
from pathlib import Path

from curve import Curve, slope_mib_per_minute, sparkline
from mixture import Mixture, repositories
from server import Kinglet
from verdicts import Report

SLOPE_MIB_PER_MINUTE_MAX = 1.0
JUDGED_S = 600
CHURN_PERIOD_S = 3.0
AWAY_S = 0.5


def run(args, out: Path, target: Path) -> list[Report]:
    report = Report("soak")
    with Kinglet(args.binary, repositories(target), out / "soak", control="explicit") as server:
        mixture = Mixture(server, args.threads, args.rest)
        for model in mixture.questions:
            server.load(model)
        cpu, start = server.session.cpu_s(), time.monotonic()
        with Curve(server.session) as curve, mixture:
            churned = churn(server, mixture, 60 * args.minutes)
        cores = (server.session.cpu_s() - cpu) / (time.monotonic() - start)
        panics = server.metric("kinglet_panics_total")
        alive = server.session.alive()
    curve.save(out, "rss-soak")
    judged = min(JUDGED_S, curve.points[-1][0] / 2)
    slope = slope_mib_per_minute(curve.last(judged))
    where, wanted = f"memory slope of the last {judged / 60:.1f} min, MiB/min", f"< {SLOPE_MIB_PER_MINUTE_MAX:g}"
    report.judge(where, wanted, f"{slope:+.2f}", slope < SLOPE_MIB_PER_MINUTE_MAX)
    report.judge("unexpected errors", "0", str(mixture.counts["errors"]), mixture.counts["errors"] == 0)
    report.judge("panics; the server lives", "0; yes", f"{panics:g}; {'yes' if alive else 'no'}", panics == 0 and alive)
    missing = set(mixture.questions) - {model for model, _ in mixture.shapes}
    report.judge("models that answered", f"all {len(mixture.questions)}", f"all but {len(missing)}" if missing else "all", not missing)
    report.note(f"{mixture.answered()} answers, {dict(mixture.counts)}; {churned}; {len(mixture.shapes)} distinct questions; {cores:.2f} cores")
    report.note(f"memory {sparkline(curve.points)}")
    report.notes += [f"error: {text}" for text in mixture.errors]
    report.found = {"slope_mib_per_minute": round(slope, 3), "judged_s": judged, "counts": dict(mixture.counts), "churned": churned,
                    "questions": len(mixture.shapes), "cores": round(cores, 3), "errors": mixture.errors, "rss_max_mib": curve.highest()}  # fmt: skip
    return [report]


def churn(server: Kinglet, mixture: Mixture, seconds: float) -> dict[str, int]:
    """Reloads a model, or takes it away and brings it back, every few seconds. A reload must not be noticed."""
    draw, end = random.Random(1), time.monotonic() + seconds
    done = {"reloads": 0, "unloads": 0}
    while time.monotonic() < end:
        model = draw.choice(list(mixture.questions))
        try:
            if draw.random() < 0.5:
                server.load(model)
                done["reloads"] += 1
            else:
                away(server, mixture, model)
                done["unloads"] += 1
        except (OSError, RuntimeError) as error:
            mixture.fail(f"{model}: {error}")
        time.sleep(min(CHURN_PERIOD_S, max(0.0, end - time.monotonic())))
    return done


def away(server: Kinglet, mixture: Mixture, model: str) -> None:
    mixture.presence[model].change(present=False)
    server.unload(model)
    time.sleep(AWAY_S)
    server.load(model)
    mixture.presence[model].change(present=True)
