"""Runs in Triton's Python backend: the requests of one batch go through ONNX Runtime together."""

import json
import os
import sys

sys.path.append(os.environ["MODEL_PACKAGES"])

import numpy as np  # noqa: E402 - found only from here on
import onnxruntime  # noqa: E402
import triton_python_backend_utils as backend  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(config["parameters"]["onnx"]["string_value"], options)

    def execute(self, requests):
        inputs = [backend.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        y = self.session.run(None, {"x": np.concatenate(inputs) if len(inputs) > 1 else inputs[0]})[0]
        answers, start = [], 0
        for x in inputs:
            rows = y[start : start + len(x)]
            start += len(x)
            answers.append(backend.InferenceResponse([backend.Tensor("y", rows)]))
        return answers
