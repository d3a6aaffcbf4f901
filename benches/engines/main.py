"""Kinglet's engine beside others, in alternating rounds; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import onnx

import tables

HERE = Path(__file__).resolve().parent
IN_PYTHON = ["onnxruntime", "openvino"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    which = "names of models.py, or paths; PATH@48,320 fixes free axes besides the first, in order"
    parser.add_argument("--models", default="mlp,mobilenetv2,resnet50", help=which)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round and engine")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="of engines that know it")
    whose = "onnxruntime, openvino, rten, tract, or one that Kinglet has; the first is compared with the others"
    parser.add_argument("--engines", default="native," + ",".join(IN_PYTHON), help=whose)
    parser.add_argument("--binary", default=os.environ["KINGLET_BIN"])
    parser.add_argument("--write", metavar="TITLE", help="put the tables into the docs, as the subsection of this title")
    parser.add_argument("--docs", type=Path, default=HERE.parents[1] / "docs" / "benchmarks.md")
    args = parser.parse_args()
    engines = args.engines.split(",")
    if args.write:
        tables.subsection(args.docs, args.write)
    times, costs = tables.times_head(engines), tables.costs_head(engines)
    print("\n".join(times))
    # A comma before a number belongs to the model's extents.
    for asked in re.split(r",(?!\d+(?:,|$))", args.models):
        name, model = found(asked)
        for threads in args.threads.split(","):
            for batch in args.batch.split(","):
                runs = measured_in_rounds(args, name, model, threads, batch)
                times.append(tables.times_row(engines, name, threads, batch, runs))
                costs.append(tables.costs_row(engines, name, threads, batch, runs))
                print(times[-1], flush=True)
    print("\n" + "\n".join(costs))
    if args.write:
        cores = max(int(threads) for threads in args.threads.split(","))
        tables.write(args.docs, args.write, [tables.measured_on(engines, cores), *times, "", *costs])


def found(asked: str) -> tuple[str, str]:
    """The name of the model's rows, and its file."""
    path, _, extents = asked.partition("@")
    if not path.endswith(".onnx"):
        return path, f"{os.environ['ENGINE_MODELS']}/{path}.onnx"
    parts = Path(path).absolute().parts
    # As a repository of models has it: NAME/1/model.onnx.
    name = parts[-3] if parts[-1] == "model.onnx" else Path(path).stem
    return name, fixed(path, name, [int(extent) for extent in extents.split(",")]) if extents else path


def fixed(model: str, name: str, extents: list[int]) -> str:
    """A copy of the model whose inputs have these extents on free axes besides the first."""
    proto = onnx.load(model)
    for value in proto.graph.input:
        # Exporters say that an axis is free with a name, with nothing, or with -1.
        dims = value.type.tensor_type.shape.dim
        for dim in dims[:1]:
            if dim.dim_value <= 0:
                dim.dim_param = dim.dim_param or "N"
        for dim, extent in zip((dim for dim in dims[1:] if dim.dim_value <= 0), extents):
            dim.dim_value = extent
    copy = Path(os.environ["ENGINE_MODELS"]) / "fixed" / f"{name}_{'x'.join(map(str, extents))}.onnx"
    copy.parent.mkdir(exist_ok=True)
    onnx.save(proto, copy)
    return str(copy)


def measured_in_rounds(args: argparse.Namespace, name: str, model: str, threads: str, batch: str) -> tables.Runs:
    """The rounds of each engine that can run the model; the first one must."""
    engines = args.engines.split(",")
    runs: tables.Runs = {engine: [] for engine in engines}
    for _ in range(args.rounds):
        for engine in list(runs):
            try:
                runs[engine].append(measured(args, engine, model, threads, batch))
            except subprocess.CalledProcessError as failure:
                says = f"{name}, threads {threads}, batch {batch}: {engine} failed: {reason(failure)}"
                if engine == engines[0]:
                    sys.exit(says)
                print(says, file=sys.stderr)
                del runs[engine]
    return runs


def reason(failure: subprocess.CalledProcessError) -> str:
    """What Kinglet and tract say first, Python and rten last."""
    lines = failure.stderr.strip().splitlines() or [f"it ended with {failure.returncode}"]
    return next((line for line in lines if line.startswith("error")), lines[-1])


def measured(args: argparse.Namespace, engine: str, model: str, threads: str, batch: str) -> dict:
    if engine in IN_PYTHON:
        command = [sys.executable, str(HERE / "engine.py"), engine, model, batch, threads, str(args.seconds), args.precision]
    elif engine == "rten":
        command = [os.environ["RTEN_BIN"], model, batch, str(args.seconds)]
    elif engine == "tract":
        command = [os.environ["TRACT_BIN"], model, batch, str(args.seconds), threads]
    else:
        precision = "bf16" if args.precision == "bf16" else "exact"
        command = [args.binary, "bench", model, "--engine", engine, "--batch", batch, "--threads", threads, "--json"]
        command += ["--time", str(int(args.seconds * 1000)), "--precision", precision]
    environment = os.environ | {"RTEN_NUM_THREADS": threads}
    pin = on_one_core if threads == "1" else None
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, preexec_fn=pin).stdout
    return json.loads(out.strip().splitlines()[-1])


def on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


if __name__ == "__main__":
    main()
