"""A limit of power under steps of load: `power.py REPOSITORY MODEL WATTS OUT.svg` loads the model by steps for five minutes, prints
how the source's own figure kept to the limit, and draws it.

Every request is one row of the model's first input, filled with made-up numbers."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from load import Load, ask, made_up_row
from server import Server

# In parts of what the default build could do on this machine.
STEPS = [0.2, 0.6, 1.2, 0.4, 2.5, 5.0, 0.8, 2.0, 0.1, 1.5]
STEP_SECONDS = 30
SETTLED_AFTER = 15
MEAN_SECONDS = 10


def main() -> None:
    repository, model, watts, picture = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), Path(sys.argv[4])
    settings = {"KINGLET__BUDGETS__POWER_WATTS_MAX": str(watts), "KINGLET__METERING__SOURCE": "model"}
    with TemporaryDirectory() as log, Server([repository], Path(log) / "log", settings) as server:
        body = made_up_row(server, model)
        costs = ask(server, f"/v2/models/{model}/variants")["builds"][0]["costs"]
        whole = 2e3 / costs[0]["milliseconds"]
        with Load(server, model, [body], connections=64) as load:
            readings = [reading for step in STEPS for reading in hold(server, load, step, whole)]
    report(readings, watts)
    picture.write_text(drawn(readings, watts))


def hold(server: Server, load: Load, step: float, whole: float) -> list[dict]:
    load.rate = step * whole
    load.wake()
    began, readings = time.monotonic(), []
    for second in range(STEP_SECONDS):
        time.sleep(max(began + second + 1 - time.monotonic(), 0))
        answers, load.answers = load.answers, []
        statuses = [status for _, _, status, *_ in answers]
        energy, standing = ask(server, "/admin/energy"), ask(server, "/admin/budgets")
        readings.append({
            "second": second,
            "load": step,
            "watts": energy["window"]["watts"],
            "own": energy["window"]["models_watts"] + energy["window"]["overhead_watts"],
            "stage": standing["stage"],
            "answered": statuses.count(200),
            "refused": statuses.count(429),
            "other": len(statuses) - statuses.count(200) - statuses.count(429),
        })
    return readings


def means(readings: list[dict]) -> list[float | None]:
    """Of ten seconds, from 15 s after each step on."""
    def mean(at: int) -> float | None:
        if readings[at]["second"] + 1 < SETTLED_AFTER + MEAN_SECONDS:
            return None
        return float(np.mean([reading["watts"] for reading in readings[at + 1 - MEAN_SECONDS : at + 1]]))

    return [mean(at) for at in range(len(readings))]


def report(readings: list[dict], watts: float) -> None:
    print(f"limit {watts} W\n\n| load | most of a mean, W | of the limit | stages | answered | refused | other |\n|---:|---:|---:|---|---:|---:|---:|")
    all_means = means(readings)
    for step in range(len(STEPS)):
        part = slice(step * STEP_SECONDS, (step + 1) * STEP_SECONDS)
        most = max(mean for mean in all_means[part] if mean is not None)
        stages = list(dict.fromkeys(reading["stage"] for reading in readings[part]))
        counts = " | ".join(str(sum(reading[name] for reading in readings[part])) for name in ("answered", "refused", "other"))
        print(f"| {STEPS[step]} | {most:.3f} | {most / watts:.3f} | {', '.join(stages)} | {counts} |")
    changes = sum(a["stage"] != b["stage"] for a, b in zip(readings, readings[1:], strict=False))
    print(f"\nchanges of stage: {changes}; greatest mean: {max(mean for mean in all_means if mean) / watts:.3f} of the limit")


def drawn(readings: list[dict], watts: float) -> str:
    width, height, left, top, foot = 900, 360, 50, 40, 90
    top_watts = 1.1 * max(watts, *(reading["watts"] for reading in readings))
    across = lambda at: left + at * (width - left - 20) / (len(readings) - 1)
    up = lambda value: height - foot - value / top_watts * (height - foot - top)
    line = lambda values: " ".join(f"{across(at):.1f},{up(value):.1f}" for at, value in enumerate(values) if value is not None)
    shades = {"accuracy": "0", "balanced": ".15", "eco": ".3", "cheapest": ".45"}
    bars = [
        f'<rect class="stage" style="fill-opacity:{shades[reading["stage"]]}" x="{across(at):.1f}" y="{height - foot + 8}" width="{across(1) - across(0) + .5:.1f}" height="14"/>'
        for at, reading in enumerate(readings)
    ]
    most = max(STEPS)
    loads = [
        f'<rect class="load" x="{across(at):.1f}" y="{height - 24 - 36 * reading["load"] / most:.1f}" width="{across(1) - across(0) + .5:.1f}" height="{36 * reading["load"] / most:.1f}"/>'
        for at, reading in enumerate(readings)
    ]
    marks = [
        f'<line class="grid" x1="{left}" x2="{width - 20}" y1="{up(mark):.1f}" y2="{up(mark):.1f}"/><text x="16" y="{up(mark) + 4:.1f}">{mark:g} W</text>'
        for mark in np.arange(0, top_watts, 0.5 if top_watts < 6 else 5)
    ]
    style = (
        "<style>.ground{fill:#fff}text{fill:#444}.grid{stroke:#e4e4e4}.watts{fill:none;stroke:#9db8dc}.own{fill:none;stroke:#7aa874}.mean{fill:none;stroke:#2f5c9e;stroke-width:2.5}"
        ".limit{stroke:#b3261e;stroke-dasharray:6 4}.stage{fill:#b3261e}.load{fill:#c9c2b4}"
        "@media (prefers-color-scheme:dark){.ground{fill:#161616}text{fill:#bbb}.grid{stroke:#333}}</style>"
    )
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="system-ui,sans-serif" font-size="12">{style}',
        f'<rect class="ground" width="{width}" height="{height}"/>',
        f'<text x="{left}" y="24">watts by the source: each second, mean of 10 s from 15 s after a step (thick), of this server (green), limit {watts:g} W (dashed)</text>',
        *marks,
        f'<line class="limit" x1="{left}" x2="{width - 20}" y1="{up(watts):.1f}" y2="{up(watts):.1f}"/>',
        f'<polyline class="watts" points="{line([reading["watts"] for reading in readings])}"/>',
        f'<polyline class="own" points="{line([reading["own"] for reading in readings])}"/>',
        *[f'<polyline class="mean" points="{part}"/>' for part in segments(readings, across, up)],
        *bars,
        *loads,
        f'<text x="{left}" y="{height - 6}">stage (darker is cheaper), and load: {STEPS[0]} to {most} of what the default build can do; {len(readings)} s</text>',
        "</svg>\n",
    ])


def segments(readings: list[dict], across, up) -> list[str]:
    parts: list[list[str]] = [[]]
    for at, mean in enumerate(means(readings)):
        if mean is None:
            parts.append([])
        else:
            parts[-1].append(f"{across(at):.1f},{up(mean):.1f}")
    return [" ".join(part) for part in parts if part]


if __name__ == "__main__":
    main()
