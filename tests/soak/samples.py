"""What servers take while a soak goes on: memory, open files and threads, each second; and the machine's time that others took."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from process import MIB, Footprint

PERIOD_SECONDS = 1.0


@dataclass(frozen=True)
class Sample:
    at: float
    mib: float
    files: int
    threads: int


def sample(pid: int, began: float) -> Sample:
    taken = Footprint.of(pid)
    threads = len(os.listdir(f"/proc/{pid}/task"))
    return Sample(time.monotonic() - began, taken.resident_bytes / MIB, taken.open_files, threads)


class Samples:
    """Taken by a thread while the context is open."""

    def __init__(self, pids: dict[str, int]):
        self.pids = pids
        self.taken: dict[str, list[Sample]] = {name: [] for name in pids}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "Samples":
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()

    def save(self, folder: Path) -> None:
        for name, taken in self.taken.items():
            lines = [f"{one.at:.1f},{one.mib:.2f},{one.files},{one.threads}\n" for one in taken]
            (folder / f"{name}.csv").write_text("seconds,mib,files,threads\n" + "".join(lines))

    def _keep(self) -> None:
        while True:
            for name, pid in self.pids.items():
                try:
                    self.taken[name].append(sample(pid, self.began))
                except OSError:
                    return  # it has ended, which others find
            if self._ended.wait(PERIOD_SECONDS):
                return


def lowest(samples: list[Sample], what: str, seconds: float) -> list[tuple[float, float]]:
    """The least of each stretch of so many seconds: loads come and go, and what stays is what counts."""
    found: dict[int, float] = {}
    for one in samples:
        place = int(one.at / seconds)
        found[place] = min(found.get(place, float("inf")), getattr(one, what))
    return [((place + 0.5) * seconds, value) for place, value in found.items()]


def second_half(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [point for point in points if point[0] >= points[-1][0] / 2]


def slope_per_hour(points: list[tuple[float, float]]) -> float:
    """Of the least-squares line."""
    at = sum(x for x, _ in points) / len(points)
    mean = sum(y for _, y in points) / len(points)
    spread = sum((x - at) ** 2 for x, _ in points)
    return 3600 * sum((x - at) * (y - mean) for x, y in points) / spread if spread else 0.0


def busy_seconds() -> float:
    """Of all processors, all processes."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    idle = int(fields[3]) + int(fields[4])
    return (sum(int(field) for field in fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")
