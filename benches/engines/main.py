"""Kinglet's engine beside others, in alternating rounds; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import onnx

HERE = Path(__file__).resolve().parent
OTHERS = ["onnxruntime", "openvino"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    parser.add_argument("--models", default="mlp,mobilenetv2,resnet50", help="names of models.py, or paths")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--extents", default="", help="of free axes besides the first, in order; the model is measured with these fixed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round and engine")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="of engines that know it")
    parser.add_argument("--engines", default="native," + ",".join(OTHERS))
    parser.add_argument("--binary", default=os.environ["KINGLET_BIN"])
    args = parser.parse_args()
    costs: list[str] = []
    print("| model | threads | batch |" + "".join(f" {engine} ms (CPU) |" for engine in args.engines.split(",")) + " best other / native |")
    print("|---|---|---|" + "---|" * (len(args.engines.split(",")) + 1))
    for name in args.models.split(","):
        for threads in args.threads.split(","):
            for batch in args.batch.split(","):
                print(row(args, name, threads, batch, costs), flush=True)
    print("\n| model | threads | batch |" + "".join(f" {engine} load ms, MiB |" for engine in args.engines.split(",")))
    print("|---|---|---|" + "---|" * len(args.engines.split(",")))
    print("\n".join(costs))


def row(args: argparse.Namespace, name: str, threads: str, batch: str, costs: list[str]) -> str:
    """The median over rounds of each engine's median, and the ratio to the better of the others, round by round."""
    model = name if name.endswith(".onnx") else f"{os.environ['ENGINE_MODELS']}/{name}.onnx"
    if args.extents:
        model = fixed(model, [int(extent) for extent in args.extents.split(",")])
    engines = args.engines.split(",")
    rounds = [{engine: measured(args, engine, model, threads, batch) for engine in engines} for _ in range(args.rounds)]
    cells = []
    for engine in engines:
        wall, cpu = (statistics.median(r[engine][key] for r in rounds) for key in ("median_ms", "cpu_ms"))
        cells.append(f" {wall:.4g} ({cpu:.4g}) |")
    ours = engines[0]
    ratios = [min(r[other]["median_ms"] for other in engines[1:]) / r[ours]["median_ms"] for r in rounds] if len(engines) > 1 else []
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
    head = f"| {Path(name).stem if '/' not in name else Path(name).parts[-3]} | {threads} | {batch} |"
    least = lambda engine, key: min(r[engine][key] for r in rounds)
    costs.append(head + "".join(f" {least(engine, 'load_ms'):.0f}, {least(engine, 'memory_mib'):.0f} |" for engine in engines))
    return f"{head}{''.join(cells)} {ratio} |"


def fixed(model: str, extents: list[int]) -> str:
    """A copy of the model whose inputs have these extents on free axes besides the first."""
    proto = onnx.load(model)
    for value in proto.graph.input:
        free = [dim for dim in value.type.tensor_type.shape.dim[1:] if not dim.dim_value]
        for dim, extent in zip(free, extents):
            dim.dim_value = extent
    copy = Path(os.environ["ENGINE_MODELS"]) / "fixed.onnx"
    onnx.save(proto, copy)
    return str(copy)


def measured(args: argparse.Namespace, engine: str, model: str, threads: str, batch: str) -> dict:
    if engine in OTHERS:
        command = [sys.executable, str(HERE / "engine.py"), engine, model, batch, threads, str(args.seconds), args.precision]
    else:
        time = str(int(args.seconds * 1000))
        command = [args.binary, "bench", model, "--engine", engine, "--batch", batch, "--threads", threads, "--time", time, "--json"]
        command += ["--precision", "bf16" if args.precision == "bf16" else "exact"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
