"""Times Kinglet and DeepSparse by turns: python compare.py DEEPSPARSE_PYTHON MODELS [THREADS]."""

import json
import os
import subprocess
import sys
from pathlib import Path

BINARY = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release" / "kinglet"
ROUNDS = 3

# Runs where DeepSparse is installed. The least CPU time is not told by its engine: all runs, over their number.
PEER = """
import sys, time
from deepsparse import compile_model
from deepsparse.utils import generate_random_inputs
path, batch, cores = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
engine = compile_model(path, batch_size=batch, num_cores=cores)
inputs = generate_random_inputs(path, batch)
times, end = [], time.monotonic() + 3
while len(times) < 5 or time.monotonic() < end:
    before = time.perf_counter()
    engine.run(inputs)
    times.append((time.perf_counter() - before) * 1e3)
times.sort()
print(times[0], times[len(times) // 2])
"""


def peer(python: str, model: Path, batch: int, threads: int) -> float:
    command = [python, "-c", PEER, str(model), str(batch), str(threads)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    return float(told.splitlines()[-1].split()[1])


def kinglet(model: Path, batch: int, threads: int) -> float:
    command = [BINARY, "bench", str(model), "--json", "--batch", str(batch), "--threads", str(threads), "--time", "2000"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    return json.loads(told.splitlines()[-1])["median_ms"]


def main() -> None:
    python, folder = sys.argv[1], Path(sys.argv[2])
    threads = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    print("| model | batch | DeepSparse ms | Kinglet ms | times as fast |\n|---|---:|---:|---:|---:|")
    for model in sorted(folder.glob("*.onnx")):
        for batch in (1, 32) if model.name.startswith("mlp") else (1,):
            try:
                rounds = [(peer(python, model, batch, threads), kinglet(model, batch, threads)) for _ in range(ROUNDS)]
            except subprocess.CalledProcessError as failed:
                ours = kinglet(model, batch, threads)
                print(f"| {model.stem} | {batch} | {failed.cmd[0]} fails | {ours:.3f} | |", flush=True)
                continue
            theirs, ours = (min(times) for times in zip(*rounds))
            print(f"| {model.stem} | {batch} | {theirs:.3f} | {ours:.3f} | {theirs / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
