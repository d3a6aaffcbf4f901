"""The web service a team would write: Open Inference Protocol JSON and binary tensors, one FP32 input."""

import os

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response

from sessions import open_all

app = FastAPI()
sessions = open_all(os.environ["MODEL_REPOSITORY"])


@app.post("/v2/models/{model}/infer")
async def infer(model: str, request: Request) -> Response:
    body = await request.body()
    head_bytes = int(request.headers.get("inference-header-content-length", len(body)))
    head = orjson.loads(body[:head_bytes])
    tensor = head["inputs"][0]
    values = tensor["data"] if "data" in tensor else np.frombuffer(body, np.float32, offset=head_bytes)
    x = np.asarray(values, np.float32).reshape(tensor["shape"])
    y = sessions[model].run(None, {"x": x})[0]
    output = {"name": "y", "shape": list(y.shape), "datatype": "FP32"}
    if not head.get("parameters", {}).get("binary_data_output"):
        output["data"] = y.ravel()
        answer = orjson.dumps({"model_name": model, "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(answer, media_type="application/json")
    output["parameters"] = {"binary_data_size": y.nbytes}
    start = orjson.dumps({"model_name": model, "outputs": [output]})
    headers = {"inference-header-content-length": str(len(start))}
    return Response(start + y.tobytes(), media_type="application/octet-stream", headers=headers)
