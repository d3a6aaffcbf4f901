"""What metering costs a request: `metering.py REPOSITORY MODEL [PAIRS]` gives servers with a source (the model) and without one the
same load by turns, and prints the ratio of CPU time a request, all of the process counted, with the interval of its median.

Every request is one row of the model's first input, filled with made-up numbers."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from load import Load, made_up_row
from server import Server

SECONDS = 3
RATE = 600


def main() -> None:
    repository, model = Path(sys.argv[1]), sys.argv[2]
    pairs = int(sys.argv[3]) if len(sys.argv) > 3 else 30
    settings = [{"KINGLET__METERING__SOURCE": source} for source in ("model", "none")]
    with (
        TemporaryDirectory() as logs,
        Server([repository], Path(logs) / "on", settings[0]) as on,
        Server([repository], Path(logs) / "off", settings[1]) as off,
    ):
        body = made_up_row(on, model)
        with Load(on, model, [body], 8) as with_source, Load(off, model, [body], 8) as without:
            with_source.rate = without.rate = 1e-3
            time.sleep(2)
            measured = []
            for pair in range(pairs):
                order = [(on, with_source), (off, without)]
                found = {server: cpu_each(server, load) for server, load in (order if pair % 2 == 0 else order[::-1])}
                measured.append((found[on], found[off]))
    ratios = np.sort([with_it / without_it for with_it, without_it in measured])
    chance = np.random.default_rng(2)
    medians = np.sort([np.median(chance.choice(ratios, len(ratios))) for _ in range(10_000)])
    on_us, off_us = (np.median([pair[at] for pair in measured]) * 1e6 for at in (0, 1))
    print(f"{pairs} pairs of {SECONDS} s at {RATE} requests a second: {on_us:.2f} us of CPU a request with a source, {off_us:.2f} without")
    print(f"median ratio {np.median(ratios):.4f}, 95 % of bootstrapped medians {medians[250]:.4f} to {medians[9750]:.4f}, ratios {ratios[0]:.3f} to {ratios[-1]:.3f}")


def cpu_each(server: Server, load: Load) -> float:
    load.rate = RATE
    # The next arrival of the slow process may be far away.
    load.wake()
    time.sleep(0.5)
    load.answers, before = [], cpu_of(server.process.pid)
    time.sleep(SECONDS)
    count, used = len(load.answers), cpu_of(server.process.pid) - before
    load.rate = 1e-3
    return used / count


def cpu_of(pid: int) -> float:
    """By the scheduler's clock, of all threads."""
    total = 0
    for task in os.scandir(f"/proc/{pid}/task"):
        try:
            total += int(Path(task.path, "schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass
    return total / 1e9


if __name__ == "__main__":
    main()
