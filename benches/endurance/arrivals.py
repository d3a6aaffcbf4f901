"""Open-loop load through the `open-loop` generator, and what its log says."""

from __future__ import annotations

import resource
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bodies import Body

# Ends without an answer. Turned away: HTTP/2's GOAWAY says that the server has not looked at it. Unknown: a connection
# that had never brought an answer was reset; it may have waited for its acceptance when the listener closed.
NO_ANSWER = {-1: "lost", -2: "not_sent", -3: "turned_away", -4: "unknown"}
OUTCOMES = ("ok", "refused", "wrong", *NO_ANSWER.values())
REFUSED_HTTP, REFUSED_GRPC = {429, 503}, {8, 14}  # RESOURCE_EXHAUSTED, UNAVAILABLE


@dataclass(frozen=True)
class Row:
    due_s: float
    sent_s: float
    done_s: float
    outcome: str  # of OUTCOMES

    def latency_ms(self) -> float:
        """From when the request was due, so that a generator which falls behind shows in it."""
        return 1000 * (self.done_s - self.due_s)


class OpenLoop:
    """One run of the generator. Started at once; `rows` waits for its end."""

    def __init__(self, binary: Path, body: Body, address: str, path: str, rate: float, seconds: float, connections: int, answer_bytes: int) -> None:
        wire = "http2" if body.protocol == "grpc" else "http1"
        headers = [f"{name}:{value}" for name, value in body.headers.items()]
        numbers = [f"{rate:.3f}", f"{seconds:.3f}", str(connections)]
        self.protocol, self.answer_bytes, self.seconds = body.protocol, answer_bytes, seconds
        self.cpu_before_s = children_cpu_s()
        self.process = subprocess.Popen(
            [str(binary), wire, address, path, str(body.file), *numbers, *headers], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def rows(self) -> list[Row]:
        out, error = self.process.communicate(timeout=self.seconds + 120)
        if self.process.returncode != 0:
            raise RuntimeError(f"expected open-loop to finish, got rc {self.process.returncode}: {error[-400:]}")
        self.why_lost = Counter(error.splitlines())
        self.cpu_s = children_cpu_s() - self.cpu_before_s
        return [self.row(*(int(part) for part in line.split("\t"))) for line in out.splitlines()]

    def row(self, due: int, sent: int, done: int, status: int, grpc_status: int, size: int) -> Row:
        return Row(due / 1e6, sent / 1e6, done / 1e6, self.outcome(status, grpc_status, size))

    def outcome(self, status: int, grpc_status: int, size: int) -> str:
        if status in NO_ANSWER:
            return NO_ANSWER[status]
        is_grpc = self.protocol == "grpc"
        if status in REFUSED_HTTP or (is_grpc and grpc_status in REFUSED_GRPC):
            return "refused"
        right = status == 200 and size == self.answer_bytes and (not is_grpc or grpc_status == 0)
        return "ok" if right else "wrong"


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def counted(rows: list[Row]) -> dict[str, int]:
    return {outcome: sum(row.outcome == outcome for row in rows) for outcome in OUTCOMES}


def latencies(rows: list[Row]) -> dict[str, float | None]:
    values = [row.latency_ms() for row in rows]
    return {f"p{round(100 * share)}_ms": round(quantile(values, share), 3) if values else None for share in (0.5, 0.9, 0.99)}


def children_cpu_s() -> float:
    """Of waited-for children: subtract before from after around one child."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
