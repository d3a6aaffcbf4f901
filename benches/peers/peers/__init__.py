"""What the harness knows of a server: how to start it and what it speaks. One file for each; this one lists them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Place:
    """Where one start of a server happens."""

    target: Path  # target/peers
    repository: Path  # <model>/1/model.onnx
    folder: Path  # empty, for configuration the server needs
    http: int
    grpc: int
    admin: int

    def models(self) -> list[Path]:
        return sorted(path.parent.parent for path in self.repository.glob("*/1/model.onnx"))

    def python(self, venv: str) -> Path:
        return self.target / "venvs" / venv / "bin" / "python"

    def site_packages(self, venv: str) -> Path:
        return next((self.target / "venvs" / venv / "lib").glob("python*/site-packages"))


@dataclass(frozen=True)
class Launch:
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


V2_PATHS = {"json": "/v2/models/{}/infer", "binary": "/v2/models/{}/infer", "grpc": "/inference.GRPCInferenceService/ModelInfer"}


@dataclass(frozen=True)
class Server:
    name: str
    paths: dict[str, str]  # protocol -> where it answers
    launch: Callable[[Place], Launch]
    needs: Callable[[Place], Path]  # what must exist for a start to make sense
    echoes: bool = False  # answers with its input instead of the model's output


def speaks(*protocols: str) -> dict[str, str]:
    return {protocol: V2_PATHS[protocol] for protocol in protocols}


def all_servers() -> dict[str, Server]:
    found = [server for module in MODULES for server in importlib.import_module(f"peers.{module}").SERVERS]
    return {server.name: server for server in found}


# The order of the tables. Kinglet first, then the limits, then the peers.
MODULES = ["kinglet", "echo", "triton", "fastapi_ort", "grpc_aio", "kserve", "mlserver"]
