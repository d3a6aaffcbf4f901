"""Resident memory over time: sampled every second, in its parts; its slope, and the curve as CSV and SVG."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from server import Kinglet

Points = list[tuple[float, float]]  # seconds, MiB
PERIOD_S = 1.0


class Curve:
    """Samples from a thread of its own while the context is open, or the server lives."""

    def __init__(self, server: Kinglet) -> None:
        self.server = server
        self.samples: list[tuple[float, dict[str, float]]] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.keep_sampling, daemon=True)

    def __enter__(self) -> Curve:
        self.start = time.monotonic()
        self.samples.append(self.sample())
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()

    def sample(self) -> tuple[float, dict[str, float]]:
        return time.monotonic() - self.start, self.server.memory()

    def keep_sampling(self) -> None:
        while not self.ended.wait(PERIOD_S) and self.server.session.alive():
            self.samples.append(self.sample())

    @property
    def points(self) -> Points:
        return series(self.samples)

    def last(self, seconds: float, part: str = "rss") -> Points:
        return last(series(self.samples, part), seconds)

    def highest(self) -> float:
        return max(mib for _, mib in self.points)

    def save(self, folder: Path, name: str) -> None:
        lines = [f"{at:.1f},{sizes['rss']:.2f},{sizes['own']:.2f},{sizes['file']:.2f}\n" for at, sizes in self.samples]
        (folder / f"{name}.csv").write_text("seconds,rss_mib,own_mib,file_mib\n" + "".join(lines))
        (folder / f"{name}.svg").write_text(svg(self.points))


def series(samples: list[tuple[float, dict[str, float]]], part: str = "rss") -> Points:
    return [(at, sizes[part]) for at, sizes in samples]


def last(points: Points, seconds: float) -> Points:
    return [point for point in points if point[0] >= points[-1][0] - seconds]


def slope_mib_per_minute(points: Points) -> float:
    """Of the least-squares line."""
    middle_at = sum(at for at, _ in points) / len(points)
    middle_mib = sum(mib for _, mib in points) / len(points)
    spread = sum((at - middle_at) ** 2 for at, _ in points)
    return 60 * sum((at - middle_at) * (mib - middle_mib) for at, mib in points) / spread if spread else 0.0


def sparkline(points: Points, width: int = 60) -> str:
    marks = "▁▂▃▄▅▆▇█"
    lowest, highest = min(mib for _, mib in points), max(mib for _, mib in points)
    step = max(1, len(points) // width)
    level = lambda mib: round((mib - lowest) / max(highest - lowest, 1e-9) * (len(marks) - 1))  # noqa: E731
    return f"{lowest:.0f} MiB {''.join(marks[level(mib)] for _, mib in points[::step])} {highest:.0f} MiB"


def svg(points: Points, width: int = 800, height: int = 300, margin: int = 45) -> str:
    end = max(points[-1][0], 1)
    top = 1.1 * max(mib for _, mib in points)
    across = lambda at: margin + at / end * (width - 2 * margin)  # noqa: E731
    up = lambda mib: height - margin - mib / top * (height - 2 * margin)  # noqa: E731
    line = " ".join(f"{across(at):.1f},{up(mib):.1f}" for at, mib in points)
    rulers = "".join(
        f'<line x1="{margin}" x2="{width - margin}" y1="{up(mib):.1f}" y2="{up(mib):.1f}" stroke="#ddd"/>'
        f'<text x="{margin - 5}" y="{up(mib) + 4:.1f}" text-anchor="end">{mib:.0f}</text>'
        for mib in (top * part / 4 for part in range(5))
    )
    minutes = "".join(
        f'<text x="{across(at):.1f}" y="{height - margin + 18}" text-anchor="middle">{at / 60:.1f} min</text>' for at in (end * part / 4 for part in range(5))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/><text x="{margin}" y="20">resident memory, MiB</text>'
        f'{rulers}{minutes}<polyline points="{line}" fill="none" stroke="#06c" stroke-width="1.5"/></svg>\n'
    )
