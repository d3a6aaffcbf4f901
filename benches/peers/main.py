"""Side-by-side benchmark of Kinglet, bare echoes and other servers; README.md says how to read it. Started by `run`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import machine
import models
import tables
from bodies import PROTOCOLS, Body, make_bodies
from check import check
from load import drive
from peers import Place, Server, all_servers
from process import Session, free_ports, machine_busy_s

# Offered load of `rate`, requests a second, in reach of the slowest peer; where that one is missing, pass --rate.
RATES = {"add16": 400, "mlp": 300, "add150528": 20}
RATE_JSON = {"add150528": 1}
RATE_CONCURRENCY_MAX = 8
READY_LIMIT_S = 90
IDLE_MODELS = 10


def main() -> None:
    # Without this a SIGTERM would skip the `finally` that stops the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = parse()
    target = Path(os.environ["PEERS_TARGET"]).resolve()
    if args.report:
        tables.write(args.report)
        return
    out = args.out or target / "results" / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    (out / "machine.json").write_text(json.dumps(machine.describe(target, sys.argv[1:]), indent=1))
    bench = Bench(args, target, out)
    bench.run()
    tables.write(out)
    sys.exit(1 if bench.failures else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    known = ",".join(all_servers())
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("mode", nargs="?", choices=["throughput", "rate", "idle"], default="throughput")
    parser.add_argument("--servers", type=names, default=known, help=f"of {known}")
    parser.add_argument("--models", type=names, default=",".join(models.WIDTHS))
    parser.add_argument("--protocols", type=names, default=",".join(PROTOCOLS))
    parser.add_argument("--concurrency", type=lambda text: [int(part) for part in text.split(",")], default="1,8,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=1, help="seconds before each measurement")
    parser.add_argument("--rate", type=float, help="requests a second in mode rate, instead of the built-in table")
    parser.add_argument("--together", action="store_true", help="keep the servers up side by side and alternate at every measurement")
    parser.add_argument("--server-cpus", help="taskset list for the servers, such as 0")
    parser.add_argument("--load-cpus", help="taskset list for h2load, such as 1")
    parser.add_argument("--out", type=Path, help="folder of the results (appended to)")
    parser.add_argument("--report", type=Path, help="only rewrite summary.md of this folder")
    args = parser.parse_args()
    for option, allowed in (("servers", all_servers()), ("models", models.WIDTHS), ("protocols", PROTOCOLS)):
        unknown = set(getattr(args, option)) - set(allowed)
        if unknown:
            parser.error(f"--{option}: expected some of {','.join(allowed)}, got {','.join(sorted(unknown))}")
    return args


class NotReady(Exception):
    pass


@dataclass
class Running:
    server: Server
    session: Session
    place: Place
    ready_s: float

    def address(self, body: Body) -> str:
        return f"127.0.0.1:{self.place.grpc if body.protocol == 'grpc' else self.place.http}"

    def path(self, body: Body) -> str:
        return self.server.paths[body.protocol].format(body.model)

    def check(self, body: Body, timeout_s: float = 60) -> int:
        return check(self.address(body), self.path(body), body, self.server.echoes, timeout_s)


class Bench:
    def __init__(self, args: argparse.Namespace, target: Path, out: Path) -> None:
        self.args, self.target, self.out = args, target, out
        self.failures = 0
        self.repository = target / "models"
        if args.mode == "idle":
            self.repository = target / "models-idle"
            models.write_copies(self.repository, IDLE_MODELS)
            args.models = ["add16"]
        self.bodies = make_bodies(self.repository, target / "bodies", args.models, args.protocols)
        self.servers = [server for server in self.selected() if self.present(server)]

    def selected(self) -> list[Server]:
        return [server for name, server in all_servers().items() if name in self.args.servers]

    def present(self, server: Server) -> bool:
        needed = server.needs(self.place(Path("unused")))
        if not needed.exists():
            loud(f"SKIPPED {server.name}: expected {needed}, which is not there")
        return needed.exists() and any(body.protocol in server.paths for body in self.bodies)

    def place(self, folder: Path) -> Place:
        return Place(self.target, self.repository, folder, *free_ports(3))

    def run(self) -> None:
        groups = [self.servers] if self.args.together else [[server] for server in self.servers]
        for round_, group in itertools.product(range(1, self.args.rounds + 1), groups):
            with tempfile.TemporaryDirectory() as folder:
                running: list[Running] = []
                try:
                    for server in group:
                        running += filter(None, [self.start(server, Path(folder) / server.name)])
                    self.measure_group(running, round_)
                finally:
                    for each in running:
                        each.session.stop()

    def start(self, server: Server, folder: Path) -> Running | None:
        folder.mkdir(parents=True)
        place = self.place(folder)
        launch = server.launch(place)
        session = Session([*taskset(self.args.server_cpus), *launch.command], launch.environment, folder, self.out / f"{server.name}.log")
        running = Running(server, session, place, 0)
        try:
            self.wait_ready(running)
        except BaseException as error:
            session.stop()
            if not isinstance(error, NotReady):
                raise
            self.fail(f"{server.name}: {error}\n{session.last_words()}")
            return None
        found = {"models": len(place.models()), "ready_s": running.ready_s, "rss_mib": round(session.rss_mib(), 1)}
        self.record(running, "start", found)
        return running

    def wait_ready(self, running: Running) -> None:
        session = running.session
        probe = next(body for body in self.bodies if body.protocol in running.server.paths)
        error: Exception | None = None
        while session.alive() and time.monotonic() - session.started < READY_LIMIT_S:
            try:
                running.check(probe, timeout_s=10)
                running.ready_s = round(time.monotonic() - session.started, 3)
                return
            except Exception as refused:  # not up yet, or not right: told apart only by the time that passes
                error = refused
                time.sleep(0.02)
        ended = f"{READY_LIMIT_S} s passed" if session.alive() else f"it exited with {session.process.returncode}"
        raise NotReady(f"expected a right answer, {ended}; last was {error!r}")

    def measure_group(self, group: list[Running], round_: int) -> None:
        if self.args.mode == "idle":
            for running in group:
                self.measure_idle(running, round_)
            return
        for body in self.bodies:
            for concurrency, running in itertools.product(self.concurrencies(body), group):
                if body.protocol in running.server.paths:
                    self.measure(running, body, concurrency, round_)

    def concurrencies(self, body: Body) -> list[int]:
        if self.args.mode == "throughput":
            return self.args.concurrency
        # h2load's connections send in step, so few of them at a low rate, else all requests come in rare bursts.
        return [max(1, min(RATE_CONCURRENCY_MAX, int(self.rate(body) / 10)))]

    def rate(self, body: Body) -> float:
        table = RATE_JSON if body.protocol == "json" else {}
        return self.args.rate or table.get(body.model, RATES[body.model])

    def measure(self, running: Running, body: Body, concurrency: int, round_: int) -> None:
        cell = {"protocol": body.protocol, "model": body.model, "concurrency": concurrency, "round": round_}
        try:
            self.record(running, self.args.mode, {**cell, **self.measured(running, body, concurrency)})
        except Exception as error:
            self.fail(f"{running.server.name} {cell}: {error!r}")
            self.record(running, self.args.mode, {**cell, "error": repr(error)[:500]})

    def measured(self, running: Running, body: Body, concurrency: int) -> dict:
        args, session = self.args, running.session
        rate = self.rate(body) if args.mode == "rate" else None
        answer_bytes = running.check(body)

        def once(seconds: float) -> dict:
            prefix = taskset(args.load_cpus)
            return drive(running.address(body), running.path(body), body, answer_bytes, concurrency, seconds, rate, prefix)

        if args.warmup:
            once(args.warmup)
        settled = session.settle()
        cpu, busy, start = session.cpu_s(), machine_busy_s(), time.monotonic()
        found = once(args.seconds)
        cpu, busy, wall = session.cpu_s() - cpu, machine_busy_s() - busy, time.monotonic() - start
        rss = session.rss_mib()
        settled = session.settle() and settled
        running.check(body)
        return {
            **found,
            "offered_per_s": rate,
            "body_bytes": len(body.payload),
            "cpu_s": round(cpu, 3),
            "cpu_s_per_1000": round(1000 * cpu / found["requests"], 4) if found["requests"] else None,
            "rss_mib": round(rss, 1),
            # What others took of the machine meanwhile, in cores: a run with much of it is no evidence.
            "others_cores": round(max(0.0, busy - cpu - found["generator_cpu_s"]) / wall, 2),
            "generator_cores": round(found["generator_cpu_s"] / wall, 2),
            "settled": settled,
        }

    def measure_idle(self, running: Running, round_: int) -> None:
        running.session.settle()
        cpu, start = running.session.cpu_s(), time.monotonic()
        time.sleep(self.args.seconds)
        share = (running.session.cpu_s() - cpu) / (time.monotonic() - start)
        idle = {"round": round_, "models": IDLE_MODELS, "core_share": round(share, 5), "rss_mib": round(running.session.rss_mib(), 1)}
        self.record(running, "idle", idle)

    def fail(self, text: str) -> None:
        self.failures += 1
        loud(f"FAILED {text}")

    def record(self, running: Running, kind: str, found: dict) -> None:
        line = json.dumps({"kind": kind, "server": running.server.name, **found})
        print(line, flush=True)
        with (self.out / "measurements.jsonl").open("a") as out:
            out.write(line + "\n")


def taskset(cpus: str | None) -> list[str]:
    return ["taskset", "-c", cpus] if cpus else []


def loud(text: str) -> None:
    print(f"!!! {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
