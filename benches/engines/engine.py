"""One engine on one model: `engine.py NAME MODEL BATCH THREADS SECONDS PRECISION` prints one line of JSON, times in
milliseconds. The precision is f32 or bf16, of engines that know it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx


def main() -> None:
    name, model, batch, threads, seconds, precision = sys.argv[1:]
    batch, threads = int(batch), int(threads)
    inputs = made_up(model, batch)
    before = resident_mib()
    run, load = ENGINES[name](model, inputs, threads, precision)
    for _ in range(3):
        run()
    walls, cpus = [], []
    end = time.perf_counter() + float(seconds)
    while time.perf_counter() < end or len(walls) < 5:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    milliseconds = lambda value: round(value * 1e3, 6)
    print(
        json.dumps(
            {
                "engine": name,
                "median_ms": milliseconds(float(np.median(walls))),
                "min_ms": milliseconds(min(walls)),
                "cpu_ms": milliseconds(min(cpus)),
                "load_ms": milliseconds(load),
                "memory_mib": round(resident_mib() - before, 1),
            }
        )
    )


def resident_mib() -> float:
    """Pages of this process that are in memory; those of Python and what made the inputs were there before."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def made_up(path: str, batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    inputs = {}
    for value in onnx.load(path, load_external_data=False).graph.input:
        tensor = value.type.tensor_type
        # Free axes may be -1.
        extents = enumerate(dim.dim_value for dim in tensor.shape.dim)
        shape = [extent if extent > 0 else batch if axis == 0 else 1 for axis, extent in extents]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        # Integers are indices and masks.
        is_integer = np.issubdtype(dtype, np.integer)
        made = random.integers(0, 2, shape) if is_integer else random.standard_normal(shape)
        inputs[value.name] = made.astype(dtype)
    return inputs


def onnxruntime_(model: str, inputs: dict, threads: int, _precision: str):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    started = time.perf_counter()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs), time.perf_counter() - started


def openvino_(model: str, inputs: dict, threads: int, precision: str):
    import openvino

    started = time.perf_counter()
    core = openvino.Core()
    network = core.read_model(model)
    network.reshape({name: array.shape for name, array in inputs.items()})
    # Its default is bf16 where the processor has that.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    for name, array in inputs.items():
        request.set_tensor(name, openvino.Tensor(array))
    return request.infer, time.perf_counter() - started


ENGINES = {"onnxruntime": onnxruntime_, "openvino": openvino_}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", sys.argv[4])
    main()
