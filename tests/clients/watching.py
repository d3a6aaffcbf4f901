"""What a running server tells of itself, and waiting until it does."""

import http.client
import os
import time
from pathlib import Path

WAIT_SECONDS = 20


def metrics(server) -> dict[str, float]:
    """Every sample by its name and labels as they stand on the page."""
    connection = http.client.HTTPConnection(server.admin, timeout=WAIT_SECONDS)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    samples = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def wait_for(condition):
    """What the condition gives, once it holds."""
    until = time.monotonic() + WAIT_SECONDS
    while not (held := condition()):
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.02)
    return held


def cpu_seconds(server) -> float:
    """User and system time of the process so far."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
