"""Reads what the rules are held against: `cargo metadata` for every target of deny.toml, the lock files, and deny.toml itself."""

import json
import subprocess
import tomllib
from pathlib import Path

from rules import Tree

ROOT = Path(__file__).resolve().parents[2]


def policy() -> dict:
    return tomllib.loads((ROOT / "deny.toml").read_text())


def tree(targets: list[str]) -> Tree:
    return Tree.of([metadata(target) for target in targets])


def metadata(target: str) -> dict:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def lock_files() -> dict[str, tuple[dict, set[str]]]:
    """Each that is kept, and the names of the crates that this repository has itself."""
    command = ["git", "ls-files", "--", "*Cargo.lock", "*Cargo.toml"]
    kept = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    # A copy without its history has no list.
    files = kept.stdout.split() if kept.returncode == 0 else [str(path.relative_to(ROOT)) for path in found()]
    own = {name for file in files if file.endswith(".toml") for name in names(ROOT / file)}
    return {file: (tomllib.loads((ROOT / file).read_text()), own) for file in files if file.endswith(".lock")}


def found() -> list[Path]:
    return [path for name in ("Cargo.lock", "Cargo.toml") for path in ROOT.rglob(name) if "target" not in path.relative_to(ROOT).parts]


def names(manifest: Path) -> list[str]:
    told = tomllib.loads(manifest.read_text())
    return [told["package"]["name"]] if "package" in told else []
