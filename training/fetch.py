"""Gets a pinned package through its own client and checks its digest. Knows nothing of what is inside."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path


def npm_tarball(package: str, sha256: str) -> bytes:
    return _fetch(["npm", "pack", "--silent", package], sha256)


def pip_wheel(package: str, sha256: str) -> bytes:
    return _fetch([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", package], sha256)


def _fetch(command: list[str], sha256: str) -> bytes:
    """Runs a client that leaves exactly one file in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).iterdir()
        content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"{archive.name}: expected sha256 {sha256}, got {found}")
    return content
