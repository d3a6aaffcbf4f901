"""The two tables of a run, and the subsection of the docs that holds them."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import textwrap
import time
import tomllib
from importlib import metadata
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
SECTION = "## The native engine"
BY_HAND = "<!-- by hand -->"
INSTRUCTIONS = ["avx512f", "avx512_vnni", "avx512_bf16"]

# Rounds by engine; an engine that cannot run the model is missing.
Runs = dict[str, list[dict]]


def times_head(engines: list[str]) -> list[str]:
    cells = [f"{engine} ms (CPU)" for engine in engines] + [f"best other / {engines[0]}", "CPU", f"{engines[0]}'s share of peak"]
    return head(cells)


def costs_head(engines: list[str]) -> list[str]:
    return head([f"{engine} load ms, MiB" for engine in engines])


def head(cells: list[str]) -> list[str]:
    return [line(["model", "threads", "batch", *cells]), "|---|---:|---:|" + "---|" * len(cells)]


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def times_row(engines: list[str], name: str, threads: str, batch: str, runs: Runs) -> str:
    # Where threads spin, CPU time says nothing about a run.
    undisturbed = "cpu_ms" if threads == "1" else "min_ms"
    times = lambda rounds: f"{median(found['median_ms'] for found in rounds):.4g} ({least(rounds, undisturbed):.4g})"
    cells = [times(runs[engine]) if engine in runs else "-" for engine in engines]
    ours, others = runs[engines[0]], [runs[engine] for engine in engines[1:] if engine in runs]
    ratio = cpu = "-"
    if others:
        ratios = [min(other["median_ms"] for other in at[1:]) / at[0]["median_ms"] for at in zip(ours, *others)]
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        cpu = f"{min(least(other, undisturbed) for other in others) / least(ours, undisturbed):.2f}"
    return line([name, threads, batch, *cells, ratio, cpu, share_of_peak(ours)])


def costs_row(engines: list[str], name: str, threads: str, batch: str, runs: Runs) -> str:
    cost = lambda rounds: f"{least(rounds, 'load_ms'):.0f}, {least(rounds, 'memory_mib'):.0f}"
    return line([name, threads, batch, *(cost(runs[engine]) if engine in runs else "-" for engine in engines)])


def share_of_peak(rounds: list[dict]) -> str:
    """Of what a core could multiply in the CPU time of a run; the fastest round tells what it can do."""
    macs = rounds[0].get("macs")
    peaks = [found["peak_gmacs"] for found in rounds if found.get("peak_gmacs")]
    if not macs or not peaks:
        return "-"
    return f"{100 * macs / (least(rounds, 'cpu_ms') * 1e6 * max(peaks)):.0f} %"


def least(rounds: list[dict], key: str) -> float:
    return min(found[key] for found in rounds)


def measured_on(engines: list[str], cores: int) -> str:
    """Command, date, commit, machine and versions, without which a table is worth nothing."""
    text = Path("/proc/cpuinfo").read_text()
    of = lambda key: next(iter(re.findall(rf"^{key}\s*: (.*)$", text, re.MULTILINE)), "")
    flags = of("flags").split()
    instructions = [name for name in INSTRUCTIONS if name in flags] or [name for name in ["avx2"] if name in flags]
    machine = f"{of('model name') or platform.machine()} ({', '.join(instructions) or 'neither AVX-512 nor AVX2'})"
    versions = [f"{engine} {version}" for engine in engines if (version := version_of(engine))]
    command = shlex.join(["benches/engines/run", *sys.argv[1:]])
    parts = [f"`{command}`", time.strftime("%Y-%m-%d"), f"commit {commit()}"]
    parts += [f"{cores} of {os.cpu_count()} cores of {machine}", *versions]
    return textwrap.fill(", ".join(parts) + ".", 125, break_long_words=False, break_on_hyphens=False) + "\n"


def version_of(engine: str) -> str | None:
    """Of Kinglet's own engine there is none but the commit."""
    lock = ROOT / "benches" / "engines" / engine / "Cargo.lock"
    if lock.exists():
        packages = tomllib.loads(lock.read_text())["package"]
        return next(package["version"] for package in packages if package["name"] in (engine, f"{engine}-onnx"))
    try:
        return metadata.version(engine)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """Changed prose changes no figures."""
    changed = git("status", "--porcelain", "--", ".", ":!*.md")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True).stdout.strip()


def subsection(docs: Path, title: str) -> tuple[list[str], list[str], list[str]]:
    """The file's lines before the subsection, its own, and those after it; a new one stands last in the section."""
    lines = docs.read_text().split("\n")
    if SECTION not in lines:
        sys.exit(f"{docs} has no section {SECTION!r}")
    start = lines.index(SECTION) + 1
    headings = [at for at in range(start, len(lines)) if re.match("###? ", lines[at])]
    end = next((at for at in headings if not lines[at].startswith("###")), len(lines))
    begin = next((at for at in headings if at < end and lines[at] == f"### {title}"), end)
    after = next((at for at in headings if at > begin), len(lines)) if begin < end else end
    return lines[:begin], lines[begin:after], lines[after:]


def write(docs: Path, title: str, text: list[str]) -> None:
    before, old, after = subsection(docs, title)
    kept = "\n".join(old[old.index(BY_HAND) :]).strip() + "\n" if BY_HAND in old else ""
    made = "\n".join([f"### {title}", "", *text, ""])
    docs.write_text("\n".join([*before, made, *([kept] if kept else []), *after]))
