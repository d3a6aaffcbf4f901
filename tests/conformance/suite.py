"""Loads every model of the onnx package's suites into a server and compares its answers; see README.md."""

from __future__ import annotations

import argparse
import collections
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import tritonclient.http as rest
from onnx import numpy_helper
from server import Server
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

SUITES = ["node", "simple", "pytorch-operator", "pytorch-converted", "light"]
RELATIVE, ABSOLUTE = 1e-3, 1e-5
# Expected sums that wrap around, where the standard says that they saturate. Held against what ONNX Runtime answers instead.
DISPUTED = {
    "test_qlinearmatmul_2D_int8_float16": [41, -12, -9, 1, -75, -128],
    "test_qlinearmatmul_2D_int8_float32": [41, -12, -9, 1, -75, -128],
    "test_qlinearmatmul_3D_int8_float16": [-86, -128, -128, 115, 39, -121] * 2,
    "test_qlinearmatmul_3D_int8_float32": [-86, -128, -128, 115, 39, -121] * 2,
}
# What is expected is one of many draws: type and shape count.
RANDOM = {f"test_bernoulli{kind}{form}" for kind in ("", "_double", "_seed") for form in ("", "_expanded")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    parser.add_argument("--engine", default="auto", help="what every model's manifest asks for")
    parser.add_argument("--only", default="", help="models whose names contain this")
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--report", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help=argparse.SUPPRESS)
    args = parser.parse_args()
    cases = [case for suite in args.suites.split(",") for case in found(suite) if args.only in case.name]
    repository = laid_out(cases, args.folder / "models", args.engine)
    outcomes = collections.Counter()
    lines = []
    with Server([repository], args.folder / "server.log", {"KINGLET__REPOSITORY__CONTROL": "explicit"}) as server:
        client = rest.InferenceServerClient(server.http, network_timeout=60)
        for case in cases:
            suite = case.parent.name
            outcome, why = ran(client, case)
            outcomes[suite, outcome] += 1
            lines.append(f"{outcome}\t{suite}/{case.name}\t{why}")
            if outcome in ("wrong", "failed"):
                print(lines[-1], flush=True)
    if args.report:
        args.report.write_text("\n".join(lines) + "\n")
    for suite in args.suites.split(","):
        counts = {outcome: count for (of, outcome), count in sorted(outcomes.items()) if of == suite}
        print(f"{suite}: {sum(counts.values())}, {counts}")
    sys.exit(any(outcome == "wrong" for _, outcome in outcomes))


def found(suite: str) -> list[Path]:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / suite
    return sorted(path for path in folder.iterdir() if (path / "model.onnx").exists())


def laid_out(cases: list[Path], repository: Path, engine: str) -> Path:
    shutil.rmtree(repository, ignore_errors=True)
    for case in cases:
        version = repository / name_of(case) / "1"
        version.mkdir(parents=True)
        shutil.copy(case / "model.onnx", version / "model.onnx")
        (version.parent / "manifest.toml").write_text(f'engine = "{engine}"\n')
    return repository


def name_of(case: Path) -> str:
    return re.sub("[^a-zA-Z0-9_.-]", "_", f"{case.parent.name}.{case.name}")


def ran(client: rest.InferenceServerClient, case: Path) -> tuple[str, str]:
    """What became of a case, and why."""
    try:
        sets = [tensors(data) for data in sorted(case.glob("test_data_set_*"))]
    except ValueError as error:
        return "skipped", str(error)
    name = name_of(case)
    graph = onnx.load(case / "model.onnx").graph
    constants = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in constants]
    try:
        client.load_model(name)
    except InferenceServerException as error:
        return "refused", str(error)
    try:
        for inputs, outputs in sets:
            answer = client.infer(name, [asked(*pair) for pair in zip(names, inputs)])
            for value, expected in zip(graph.output, outputs):
                got = answer.as_numpy(value.name)
                if case.name in DISPUTED:
                    saturated = np.array(DISPUTED[case.name], expected.dtype).reshape(expected.shape)
                    wrong = difference(got, saturated)
                    return ("wrong", f"{value.name}: {wrong}") if wrong else ("disputed", "its expected sums wrap around")
                wrong = difference(got * 0, expected * 0) if case.name in RANDOM else difference(got, expected)
                if wrong:
                    return "wrong", f"{value.name}: {wrong}"
        return "right", ""
    except InferenceServerException as error:
        return "failed", str(error)
    finally:
        client.unload_model(name)


def tensors(data: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    def numbered(kind: str) -> list[np.ndarray]:
        files = sorted(data.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
        return [read(path) for path in files]

    return numbered("input"), numbered("output")


def read(path: Path) -> np.ndarray:
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        array = numpy_helper.to_array(tensor)
    except Exception as error:
        raise ValueError(f"{path.name} is no tensor: {error}") from error
    if array.dtype != object and (array.dtype.names or np_to_triton_dtype(array.dtype) is None):
        raise ValueError(f"{path.name} has type {array.dtype}, which clients cannot send")
    return array


def asked(name: str, array: np.ndarray) -> rest.InferInput:
    tensor = rest.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def difference(got: np.ndarray | None, expected: np.ndarray) -> str:
    if got is None:
        return "no output"
    if got.shape != expected.shape:
        return f"shape {got.shape}, expected {expected.shape}"
    if expected.dtype == object:
        same = all(bytes(a) == (b.encode() if isinstance(b, str) else bytes(b)) for a, b in zip(got.ravel(), expected.ravel()))
        return "" if same else "other strings"
    if expected.dtype.kind in "fc":
        close = np.isclose(got.astype(np.float64), expected.astype(np.float64), rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
        return "" if close.all() else f"{(~close).sum()} of {close.size} elements, such as {got[~close][0]} for {expected[~close][0]}"
    return "" if (got == expected).all() else f"{(got != expected).sum()} of {expected.size} elements"


if __name__ == "__main__":
    main()
