"""The release binary, asked what it thinks of a configuration."""

import os
import subprocess
from pathlib import Path

import pytest

from files import ROOT


def checks(*arguments: str | Path, environment: dict[str, str] | None = None) -> str:
    """What `kinglet serve --check` prints; it must be content."""
    binary = Path(os.environ["KINGLET_BIN"])
    if not binary.exists():
        pytest.skip(f"there is no binary at {binary} to read configurations with")
    command = [binary, "serve", "--check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment or {}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout
