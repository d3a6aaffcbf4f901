"""Drives one server with h2load, the same way for each: HTTP/1.1 for REST, HTTP/2 for gRPC, one request at a time a connection."""

from __future__ import annotations

import re
import resource
import subprocess
import tempfile
from pathlib import Path

from bodies import Body


def drive(
    address: str, path: str, body: Body, answer_bytes: int, concurrency: int, seconds: float, rate: float | None, prefix: list[str]
) -> dict:
    """Closed loop, or with `rate` (requests a second over all connections) an open one."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.tsv"
        command = [*prefix, "h2load", f"--connect-to={address}", "-c", str(concurrency), "-m1", "-t1", f"-D{round(seconds * 1000)}ms"]
        command += [f"--log-file={log}", "-d", str(body.file)]
        command += ["--rps", f"{rate / concurrency:.4f}"] if rate else []
        command += [] if body.protocol == "grpc" else ["--h1"]
        command += [part for name, value in body.headers.items() for part in ("-H", f"{name}: {value}")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*command, f"http://{address}{path}"], capture_output=True, text=True, timeout=seconds + 60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0 or "finished in" not in done.stdout:
            raise RuntimeError(f"expected h2load to finish, got rc {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
        generator_cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {**counts(done.stdout, answer_bytes), **latencies(log), "generator_cpu_s": round(generator_cpu_s, 3)}


def counts(text: str, answer_bytes: int) -> dict:
    def number(pattern: str) -> float:
        return float(re.search(pattern, text)[1])

    done = int(number(r"(\d+) succeeded"))
    failures = max(int(number(r"(\d+) failed")), sum(int(number(rf"(\d+) {code}xx")) for code in (3, 4, 5)))
    # h2load does not read grpc-status and looks at no body: an error with status 200 shows only in its length.
    # Answers cut off by the end of the run count as bytes but not as requests, so only a mean that is too low is sure.
    mean_bytes = number(r"\((\d+)\) data") / max(done, 1)
    if done and mean_bytes < 0.95 * answer_bytes:
        failures = done
    per_second = number(r"finished in [^,]+, ([\d.]+) req/s")
    return {"requests": done, "req_per_s": per_second, "failures": failures, "mean_answer_bytes": round(mean_bytes)}


def latencies(log: Path) -> dict:
    rows = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
    micros = sorted(int(row[2]) for row in rows if row[1] == "200")
    if not micros:
        return {"p50_ms": None, "p99_ms": None}
    at = lambda share: micros[min(len(micros) - 1, int(share * len(micros)))] / 1000  # noqa: E731
    return {"p50_ms": at(0.50), "p99_ms": at(0.99)}
