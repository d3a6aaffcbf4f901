"""The same stream of digits under every mode: `modes.py REPOSITORY ROWS.npz [REQUESTS PER SECOND] [SECONDS]` prints a table.

The repository holds `digits` with variants that have reports (README.md says how they are made). Modes take turns."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from load import Load, outputs, total
from server import Server

ROUNDS = 3
MODES = ["accuracy", "balanced", "eco"]


def main() -> None:
    repository, rows = Path(sys.argv[1]), np.load(sys.argv[2])
    rate, seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 400.0, float(sys.argv[4]) if len(sys.argv) > 4 else 20.0
    images, labels = (rows[name] for name in ("image", "labels"))
    bodies = [image.astype(np.float32).tobytes() for image in images]
    runs = {mode: [run(repository, mode, bodies, labels, rate, seconds) for _ in range(ROUNDS)] for mode in MODES}
    print(f"{rate:.0f} requests a second of one row each, {seconds:.0f} s, {ROUNDS} rounds\n")
    print("| mode | requests | CPU us each | mJ each | of accuracy's | accuracy | p50 ms | p99 ms | answered by |\n|---|---:|---:|---:|---:|---:|---:|---:|---|")
    whole = statistics.median(run["mj"] for run in runs["accuracy"])
    for mode, each in runs.items():
        middle = {name: statistics.median(run[name] for run in each) for name in ("requests", "us", "mj", "accuracy", "p50", "p99")}
        figures = f"{middle['us']:.1f} | {middle['mj']:.4f} | {middle['mj'] / whole:.2f} | {middle['accuracy']:.4f}"
        print(f"| {mode} | {middle['requests']:.0f} | {figures} | {middle['p50']:.3f} | {middle['p99']:.3f} | {each[-1]['by']} |")


def run(repository: Path, mode: str, bodies: list[bytes], labels: np.ndarray, rate: float, seconds: float) -> dict:
    settings = {"KINGLET__BUDGETS__MODE": mode, "KINGLET__METERING__SOURCE": "model"}
    with TemporaryDirectory() as log, Server([repository], Path(log) / "log", settings) as server, Load(server, "digits", bodies) as load:
        load.rate = rate
        time.sleep(3)
        load.answers.clear()
        before = [total(server, name) for name in COUNTERS]
        time.sleep(seconds)
        answers = list(load.answers)
        # Until the last batches' window has ended.
        after = [total(server, name) for name in COUNTERS]
    joules, cpu, requests = (end - start for start, end in zip(before, after, strict=True))
    right = [labels[at] == outputs(told, body).argmax() for _, _, _, at, told, body in answers]
    times = np.array([took for _, took, *_ in answers]) * 1e3
    return {
        "requests": requests,
        "us": cpu / requests * 1e6,
        "mj": joules / requests * 1e3,
        "accuracy": float(np.mean(right)),
        "p50": float(np.percentile(times, 50)),
        "p99": float(np.percentile(times, 99)),
        "by": ", ".join(sorted({told.get("kinglet-variant", "own build") for *_, told, _ in answers})),
    }


COUNTERS = ["kinglet_energy_attributed_joules_total", "kinglet_model_cpu_seconds_total", "kinglet_rows_total"]

if __name__ == "__main__":
    main()
