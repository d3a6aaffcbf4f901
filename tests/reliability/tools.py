"""Debian's programs that `setup` has unpacked, run with the libraries beside them."""

import os
import subprocess
from pathlib import Path

import pytest

HOME = Path(os.environ.get("RELIABILITY_HOME", "target/reliability")).resolve() / "tools"


def program(path: str) -> str:
    """Skips the test where it is not there."""
    found = HOME / path
    if not found.exists():
        pytest.skip(f"{path} is not there: no apt-get to fetch it with")
    return str(found)


def environment() -> dict[str, str]:
    libraries = [str(folder) for root in ("usr/lib", "lib") for folder in sorted((HOME / root).glob("*-linux-gnu"))]
    return os.environ | {"LD_LIBRARY_PATH": ":".join(libraries)}


def run(path: str, *arguments: str, seconds_max: float = 60) -> subprocess.CompletedProcess:
    command = [program(path), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=seconds_max)
