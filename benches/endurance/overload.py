"""Several times what the server can do, on a schedule that does not wait for it: does goodput hold, are refusals quick?"""

from __future__ import annotations

import math
import time
from pathlib import Path

import models
import numpy as np
from arrivals import OUTCOMES, OpenLoop, Row, counted, latencies, quantile
from bodies import Body, make_bodies
from check import check
from curve import Curve, slope_mib_per_minute, sparkline
from load import drive
from onnx import helper, numpy_helper
from peers import V2_PATHS
from process import machine_busy_s
from server import Kinglet
from verdicts import Report

MODEL = "conv"
IMAGE_SIDE, CHANNELS = 32, 32
PEAK_CONCURRENCY = (4, 16, 64)
GOODPUT_SHARE_MIN = 0.9
REFUSED_CLIENT_MS_MAX, REFUSED_SERVER_MS_MAX = 20.0, 5.0
GENERATOR_CORES_MAX = 0.2
GROWTH_MIB_MAX = 8.0


def run(args, out: Path, target: Path) -> list[Report]:
    repository = heavy_enough(args, target, out)
    bodies = make_bodies(repository, target / "bodies", [MODEL], args.wires)
    reports = []
    for queue in args.queues:
        for body in bodies:
            report = Report(f"overload {body.protocol} queue {queue}")
            settings = f"[batching]\nqueue_requests_max = {queue}\n"
            with Kinglet(args.binary, [repository], out / f"overload-{body.protocol}-{queue}", settings) as server:
                overload(args, server, body, queue, report, out)
            reports.append(report)
    return reports


def overload(args, server: Kinglet, body: Body, queue: int, report: Report, out: Path) -> None:
    address, path = at(server, body)
    answer_bytes = check(address, path, body, echoes=False)
    closed = {concurrency: closed_loop(args, server, body, answer_bytes, concurrency) for concurrency in PEAK_CONCURRENCY}
    failures = sum(found["failures"] for found in closed.values())
    peak = max(found["req_per_s"] for found in closed.values())
    rate = args.factor * peak
    server.session.settle()

    refused_before, cpu, busy, start = refusals(server), server.session.cpu_s(), machine_busy_s(), time.monotonic()
    with Curve(server) as curve:
        load = OpenLoop(args.open_loop, body, address, path, rate, args.seconds, args.connections, answer_bytes)
        rows = load.rows()
    wall, refused_after = time.monotonic() - start, refusals(server)
    cpu, busy = server.session.cpu_s() - cpu, machine_busy_s() - busy
    server.session.settle()
    check(address, path, body, echoes=False)
    curve.save(out, f"rss-overload-{body.protocol}-{queue}")

    counts, window = counted(rows), steady(rows, args.seconds)
    goodput = sum(row.outcome == "ok" for row in window) / (args.seconds - skipped(args.seconds))
    refused = [row for row in rows if row.outcome == "refused"]
    in_server, prompt = (after - before for after, before in zip(refused_after, refused_before))
    refused_p99 = quantile([row.latency_ms() for row in refused], 0.99)
    generator = load.cpu_s / wall

    one_ms = alone_ms(server, body, answer_bytes)
    report.judge("one request alone, CPU ms", f">= {args.request_ms:g}", f"{one_ms:.1f}", one_ms >= args.request_ms)
    report.judge("closed-loop failures", "0", str(failures), failures == 0)
    report.judge("offered of the peak", f">= {0.98 * args.factor:g}", f"{len(rows) / args.seconds / peak:.2f}", len(rows) / args.seconds >= 0.98 * rate)
    got = f"{goodput / peak:.3f} ({goodput:.0f} of {peak:.0f}/s)"
    report.judge("goodput of the peak", f">= {GOODPUT_SHARE_MIN}", got, goodput >= GOODPUT_SHARE_MIN * peak)
    report.judge("refusals at the client, p99 ms", f"< {REFUSED_CLIENT_MS_MAX:g}", f"{refused_p99:.2f}", refused_p99 < REFUSED_CLIENT_MS_MAX)
    share = prompt / max(1, in_server)
    within = f"refusals in the server within {REFUSED_SERVER_MS_MAX:g} ms"
    report.judge(within, ">= 0.99", f"{share:.4f} (of {in_server:.0f})", in_server > 0 and share >= 0.99)
    judge_memory(report, curve)
    wrong = {outcome: counts[outcome] for outcome in OUTCOMES if outcome not in ("ok", "refused")}
    report.judge("other outcomes", "none", ", ".join(f"{count} {outcome}" for outcome, count in wrong.items()), not any(wrong.values()))
    report.judge("generator, cores", f"<= {GENERATOR_CORES_MAX}", f"{generator:.2f}", generator <= GENERATOR_CORES_MAX)

    answers_per_cpu_s = max(found["answers_per_cpu_s"] for found in closed.values()), counts["ok"] / cpu
    accepted = [row for row in window if row.outcome == "ok"]
    lag = quantile([1000 * (row.sent_s - row.due_s) for row in rows], 0.99)
    others = max(0.0, busy - cpu - load.cpu_s) / wall
    report.note(f"offered {len(rows) / args.seconds:.0f}/s for {args.seconds:g} s: {counts}; queue_requests_max {queue}, else defaults")
    report.note(f"accepted: {latencies(accepted)}; refused: {latencies(refused)}; sent after it was due by p99 {lag:.2f} ms")
    report.note(f"server {cpu / wall:.2f} cores, generator {generator:.2f}, others {others:.2f} (of no use as evidence unless near 0)")
    report.note("answers a CPU second of the server: closed loop {:.0f}, overload {:.0f}".format(*answers_per_cpu_s))
    report.note(f"memory {sparkline(curve.points)}")
    report.found = {
        "closed": closed, "peak_per_s": peak, "rate": rate, "goodput_per_s": round(goodput, 1), "counts": counts, "accepted": latencies(accepted),
        "refused": latencies(refused), "refused_in_time": round(share, 5), "send_lag_p99_ms": round(lag, 3),
        "answers_per_cpu_s": answers_per_cpu_s, "server_cores": round(cpu / wall, 3), "generator_cores": round(generator, 3), "others_cores": round(others, 3),
        "per_second": per_second(rows, args.seconds), "rss_max_mib": round(curve.highest(), 1),
    }  # fmt: skip


def refusals(server: Kinglet) -> tuple[float, float]:
    """All of them so far, and those that left the server in time."""
    name, bound = "kinglet_refusal_duration_seconds", f"{REFUSED_SERVER_MS_MAX / 1000:g}"
    return server.metric(f"{name}_count"), server.metric(f"{name}_bucket", le=bound)


def judge_memory(report: Report, curve: Curve) -> None:
    half = curve.last(curve.points[-1][0] / 2)
    grown = max(mib for _, mib in half) - max(mib for at, mib in curve.points if (at, mib) not in half)
    got = f"{grown:+.1f} (slope {slope_mib_per_minute(half):+.1f} MiB/min, at most {curve.highest():.0f} MiB)"
    report.judge("memory, second half over first, MiB", f"< {GROWTH_MIB_MAX:g}", got, grown < GROWTH_MIB_MAX)


def skipped(seconds: float) -> float:
    """The queue fills first: answers of this long from the start do not count."""
    return min(5.0, seconds / 5)


def steady(rows: list[Row], seconds: float) -> list[Row]:
    return [row for row in rows if skipped(seconds) <= row.done_s < seconds]


def per_second(rows: list[Row], seconds: float) -> list[tuple[int, int]]:
    """(answered, refused) in each second."""
    series = [[0, 0] for _ in range(math.ceil(seconds))]
    for row in rows:
        if row.done_s < seconds and row.outcome in ("ok", "refused"):
            series[int(row.done_s)][row.outcome == "refused"] += 1
    return [tuple(pair) for pair in series]


def at(server: Kinglet, body: Body) -> tuple[str, str]:
    return server.grpc if body.protocol == "grpc" else server.http, V2_PATHS[body.protocol].format(body.model)


def closed_loop(args, server: Kinglet, body: Body, answer_bytes: int, concurrency: int) -> dict:
    address, path = at(server, body)
    server.session.settle()
    cpu = server.session.cpu_s()
    found = drive(address, path, body, answer_bytes, concurrency, args.peak_seconds, None, [])
    server.session.settle()
    return {**found, "answers_per_cpu_s": found["requests"] / (server.session.cpu_s() - cpu)}


def alone_ms(server: Kinglet, body: Body, answer_bytes: int) -> float:
    """What computing one request takes alone, in CPU time: wall time would count what others take of the machine."""
    address, path = at(server, body)
    before = server.metric("kinglet_model_cpu_seconds_total")
    requests = drive(address, path, body, answer_bytes, 1, 3, None, [])["requests"]
    return 1000 * (server.metric("kinglet_model_cpu_seconds_total") - before) / requests


def heavy_enough(args, target: Path, out: Path) -> Path:
    """A repository with one model that this machine needs more than `--request-ms` for, small in bytes and in rows."""
    repository, depth = target / "overload-models", 6
    for _ in range(5):
        models.save(convolutions(depth), repository, MODEL)
        body = make_bodies(repository, target / "bodies", [MODEL], ["binary"])[0]
        with Kinglet(args.binary, [repository], out / "calibration") as server:
            answer_bytes = check(*at(server, body), body, echoes=False)
            took = alone_ms(server, body, answer_bytes)
        if took >= 1.15 * args.request_ms:
            break
        depth = math.ceil(depth * 1.3 * args.request_ms / took)
    return repository


def convolutions(depth: int):
    """`depth` 3x3 convolutions of 32x32 images with 32 channels between: 9.4 million multiplications each."""
    random = np.random.default_rng(0)
    shape = np.array([0, 1, IMAGE_SIDE, IMAGE_SIDE], np.int64)  # 0 keeps the batch axis
    nodes, weights, value = [helper.make_node("Reshape", ["x", "shape"], ["image"])], [numpy_helper.from_array(shape, "shape")], "image"
    for index in range(depth + 1):
        channels = CHANNELS if index else 1
        kernel = random.normal(0, (2 / (9 * channels)) ** 0.5, (CHANNELS, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(helper.make_node("Conv", [value, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        value = f"r{index}"
    nodes += [helper.make_node("GlobalAveragePool", [value], ["pooled"]), helper.make_node("Flatten", ["pooled"], ["y"])]
    return models.model(nodes, IMAGE_SIDE * IMAGE_SIDE, CHANNELS, weights)
