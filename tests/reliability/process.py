"""What the kernel tells of a process, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Footprint:
    resident_bytes: int
    open_files: int

    @staticmethod
    def of(pid: int) -> "Footprint":
        return Footprint(status_bytes(pid, "VmRSS"), len(os.listdir(f"/proc/{pid}/fd")))


def status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"expected {field} of process {pid}")


def forget_peak(pid: int) -> None:
    """From now on VmHWM is the peak since now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    return status_bytes(pid, "VmHWM")
