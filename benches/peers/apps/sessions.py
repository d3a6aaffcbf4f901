"""Opens every model of a repository in ONNX Runtime, one thread inside, as all peers here do."""

from pathlib import Path

import onnxruntime


def open_all(repository: str) -> dict[str, onnxruntime.InferenceSession]:
    return {path.parent.parent.name: open_one(path) for path in sorted(Path(repository).glob("*/1/model.onnx"))}


def open_one(path: Path | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)
