"""What was wanted, what came; a table for docs/reliability.md and a picture."""

from __future__ import annotations

import json
from pathlib import Path

from samples import Sample, lowest, slope_per_hour

STRETCHES = 120
WIDTH, LEFT, RIGHT, TOP, PANEL, GAP = 900, 60, 20, 34, 120, 40
STYLE = (
    "<style>.ground{fill:#fff}text{fill:#444}.grid{stroke:#e4e4e4}.a,.b{fill:none;stroke-width:1.8}.a{stroke:#2f5c9e}.b{stroke:#b3261e}"
    "text.a{fill:#2f5c9e;stroke:none}text.b{fill:#b3261e;stroke:none}"
    "@media (prefers-color-scheme:dark){.ground{fill:#161616}text{fill:#bbb}.grid{stroke:#333}.a{stroke:#7ea6e0}text.a{fill:#7ea6e0}}</style>"
)

Points = list[tuple[float, float]]


class Verdicts:
    def __init__(self):
        self.rows: list[tuple[str, str, str, bool]] = []
        self.notes: list[str] = []

    def judge(self, what: str, wanted: str, came: str, held: bool) -> None:
        print(f"{'ok    ' if held else 'MISSED'} {what}: wanted {wanted}, came {came}", flush=True)
        self.rows.append((what, wanted, came, bool(held)))

    def note(self, text: str) -> None:
        print(text, flush=True)
        self.notes.append(text)

    def held(self) -> bool:
        return bool(self.rows) and all(held for *_, held in self.rows)

    def write(self, folder: Path, title: str, found: dict) -> None:
        rows = [f"| {what} | {wanted} | {came}{'' if held else ' (**missed**)'} |" for what, wanted, came, held in self.rows]
        notes = [f"- {note}" for note in self.notes]
        table = ["| what | wanted | came |", "|---|---|---|", *rows]
        (folder / "soak.md").write_text("\n".join([title, "", *table, "", *notes]) + "\n")
        (folder / "soak.json").write_text(json.dumps({"title": title, "verdicts": self.rows, "notes": self.notes, **found}, indent=1))


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def over_time(latencies: Points, seconds: float, share: float) -> Points:
    """A quantile of each stretch."""
    stretch = max(1.0, seconds / STRETCHES)
    found: dict[int, list[float]] = {}
    for due, took in latencies:
        found.setdefault(int(due / stretch), []).append(took)
    return [((place + 0.5) * stretch, quantile(values, share)) for place, values in sorted(found.items())]


def drawn(samples: dict[str, list[Sample]], latencies: Points, seconds: float) -> str:
    """Three panels over one time: memory, open files and threads, latency."""
    stretch = max(1.0, seconds / STRETCHES)
    first, second = samples.values()
    panels = [
        ("resident memory, MiB", [("explicit", lowest(first, "mib", stretch)), ("polled", lowest(second, "mib", stretch))]),
        ("of the first server", [("open files", lowest(first, "files", stretch)), ("threads", lowest(first, "threads", stretch))]),
        ("latency, ms", [("p50", over_time(latencies, seconds, 0.5)), ("p99", over_time(latencies, seconds, 0.99))]),
    ]
    height = TOP + len(panels) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui,sans-serif" font-size="12">{STYLE}<rect class="ground" width="{WIDTH}" height="{height}"/>'
    ]
    for number, (title, lines) in enumerate(panels):
        parts += panel(title, lines, seconds, TOP + number * (PANEL + GAP))
    return "\n".join([*parts, "</svg>\n"])


def panel(title: str, lines: list[tuple[str, Points]], seconds: float, top: float) -> list[str]:
    most = 1.1 * max((value for _, points in lines for _, value in points), default=1.0)
    across = lambda at: LEFT + at / seconds * (WIDTH - LEFT - RIGHT)  # noqa: E731
    up = lambda value: top + PANEL - value / most * PANEL  # noqa: E731
    parts = [f'<text x="{LEFT}" y="{top - 8}">{title}</text>']
    for mark in (most * part / 4 for part in range(5)):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(mark):.1f}" y2="{up(mark):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(mark) + 4:.1f}" text-anchor="end">{mark:.3g}</text>')
    for mark in (seconds * part / 6 for part in range(7)):
        told = f"{mark / 60:.3g} min"
        parts.append(f'<text x="{across(mark):.1f}" y="{top + PANEL + 16}" text-anchor="middle">{told}</text>')
    for place, ((name, points), kind) in enumerate(zip(lines, "ab", strict=True)):
        line = " ".join(f"{across(at):.1f},{up(value):.1f}" for at, value in points if at <= seconds)
        parts.append(f'<polyline class="{kind}" points="{line}"/>')
        parts.append(f'<text class="{kind}" x="{WIDTH - RIGHT - 90 * (2 - place)}" y="{top - 8}">{name}</text>')
    return parts


def line_told(points: Points) -> str:
    return f"{slope_per_hour(points):+.1f} an hour, from {points[0][1]:.0f} to {points[-1][1]:.0f}"
