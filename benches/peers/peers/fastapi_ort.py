"""FastAPI on uvicorn (uvloop, httptools) with ONNX Runtime: what a team writes itself. With one worker and with one a core."""

import os
from pathlib import Path

from peers import HERE, Launch, Place, Server, speaks


def python(place: Place) -> Path:
    return place.python("fastapi")


def launch(place: Place, workers: int) -> Launch:
    command = [str(python(place)), "-m", "uvicorn", "fastapi_app:app", f"--app-dir={HERE / 'apps'}", f"--port={place.http}"]
    command += [f"--workers={workers}", "--loop=uvloop", "--http=httptools", "--no-access-log", "--log-level=warning"]
    return Launch(command, {"MODEL_REPOSITORY": str(place.repository)})


CORES = len(os.sched_getaffinity(0))
SERVERS = [
    Server("fastapi-1", speaks("json", "binary"), lambda place: launch(place, 1), python),
    Server("fastapi-cores", speaks("json", "binary"), lambda place: launch(place, CORES), python),
]
