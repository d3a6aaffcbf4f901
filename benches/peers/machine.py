"""Says what the numbers were measured on: machine, commit, versions. Without it a table is worth nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path


def describe(target: Path, arguments: list[str]) -> dict:
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    here = Path(__file__).parent
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "arguments": arguments,
        "cpu": f"{len(os.sched_getaffinity(0))} x {models[0] if models else platform.machine()}",
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "commit": said(["git", "-C", str(here), "rev-parse", "--short", "HEAD"]),
        "changed": bool(said(["git", "-C", str(here), "status", "--porcelain"])),
        "h2load": said(["h2load", "--version"]),
        "packages": {venv.name: packages(venv) for venv in sorted((target / "venvs").iterdir()) if venv.is_dir()},
    }


def packages(venv: Path) -> list[str]:
    return sorted(path.name.removesuffix(".dist-info") for path in venv.glob("lib/python*/site-packages/*.dist-info"))


def said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
