"""Starts a server in a session of its own and reads from /proc what the whole session (children included) costs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Session:
    def __init__(self, command: list[str], environment: dict[str, str], folder: Path, log: Path) -> None:
        self.log = log
        self.started = time.monotonic()
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, env={**os.environ, **environment}, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def stats(self) -> list[tuple[int, list[str]]]:
        """(pid, fields of /proc/PID/stat from the third on) of every process of the session."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # gone meanwhile
                continue
            if int(fields[3]) == self.process.pid:
                found.append((int(entry.name), fields))
        return found

    def cpu_s(self) -> float:
        """User and system time so far, of living processes and of those they waited for. Resolution 10 ms."""
        return sum(int(field) for _, fields in self.stats() for field in fields[11:15]) * TICK_S

    def rss_mib(self) -> float:
        """Sum over the processes; pages they share count once for each."""
        return sum(int(fields[21]) for _, fields in self.stats()) * PAGE_BYTES / 2**20

    def alive(self) -> bool:
        return self.process.poll() is None

    def settle(self, limit_s: float = 60) -> bool:
        """Waits until the server has finished what a broken-off run left behind; false if it does not."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            before = self.cpu_s()
            time.sleep(0.3)
            if self.cpu_s() - before <= 0.03:
                return True
        return False

    def stop(self) -> None:
        if self.alive():
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        for pid, _ in self.stats():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held until the last is found, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def machine_busy_s() -> float:
    """CPU seconds the whole machine has spent on anything but idling, stolen time included."""
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK_S
