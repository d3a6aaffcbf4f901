"""A soak: a mixture of models, wires and mischief at four fifths of what the server can do, for as long as it is told.

    main.py [--minutes 60] [--load 0.8] [--rate R] [--processes 2]

README.md says what it asserts. Started by `run`.
"""

import argparse
import contextlib
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import trustme

import questions
from judging import Judged
from operations import Operations, place_version, wait_for, ready
from questions import EXPLICIT, FIRST_VERSION, GOING, POLLED, SWAPPED, TOUCHED
from report import Verdicts, drawn
from samples import Samples, busy_seconds, sample
from server import Server
from watching import cpu_seconds
from zoo import DATATYPES, identity, save

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIG = """[limits]
rank_max = 8
header_timeout = "5s"
body_timeout = "5s"
idle_timeout = "5s"
write_timeout = "5s"
"""
POLLS = """[repository]
control = "poll"
poll_interval = "1s"
settle_time = "500ms"
"""
LOADS_WITH_TLS = """[repository]
control = "explicit"
load_at_start = ["*"]
[tls]
certificate = "{0}/server.pem"
key = "{0}/server.key"
listeners = ["grpc"]
"""
IDLE_SECONDS = 8
CLOSED_CONCURRENCY = 4
WINDOWS = 5


def main() -> None:
    # Without this a SIGTERM would skip what ends the processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = parse()
    described, home = title(), Path(os.environ["SOAK_HOME"])
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shelf = make_shelf(home / "shelf")
    issue = issuer(home)
    issue()
    with contextlib.ExitStack() as stack:
        servers = {kind: start(stack, kind, shelf, home) for kind in (EXPLICIT, POLLED)}
        plan = learn(servers, shelf, home)
        workers = [Worker(stack, home, plan, number) for number in range(args.processes)]
        seconds = 60 * args.minutes
        windows, found = measure(workers, min(12.0, max(2.0, seconds / 60)))
        capacity = min(windows)
        rate = args.rate or args.load * capacity
        print(f"{capacity:.0f} answers a second in a closed loop at the least; offering {rate:.0f} for {args.minutes:g} minutes", flush=True)
        time.sleep(IDLE_SECONDS)
        judged = Judged(servers, sample_all(servers))
        others = busy_seconds() - own_seconds(servers)
        with Samples({kind: server.process.pid for kind, server in servers.items()}) as samples:
            told, operations, mischief = offer(args, servers, shelf, home, plan, workers, rate, seconds, issue)
        others = (busy_seconds() - own_seconds(servers) - others) / (time.monotonic() - samples.began)
        samples.save(home)
        time.sleep(IDLE_SECONDS)
        verdicts = Verdicts()
        judged.clients(verdicts, found + told, operations, mischief)
        judged.counters(verdicts, told, mischief)
        judged.footprints(verdicts, samples, sample_all(servers), seconds)
        latencies = [(due - samples.began, took) for one in told for due, took in one["latencies"]]
        judged.latencies(verdicts, latencies)
        stretches = ", ".join(f"{window:.0f}" for window in windows)
        verdicts.note(f"{stretches} answers a second by {args.processes} processes in a closed loop; offered {rate:.0f}")
        verdicts.note(f"other processes of the machine took {others:.2f} of {os.cpu_count()} cores meanwhile")
        judged.ends(verdicts, servers)
    (home / "soak.svg").write_text(drawn(samples.taken, [(at, 1e3 * took) for at, took in latencies], seconds))
    verdicts.write(home, described, {"operations": operations.done, "mischief": mischief})
    print(f"wrote {home}/soak.md and soak.svg")
    sys.exit(not verdicts.held())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--load", type=float, default=0.8, help="of what the server answers in a closed loop, in the worst of some stretches")
    parser.add_argument("--rate", type=float, help="requests a second, in place of --load")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def make_shelf(shelf: Path) -> Path:
    """What the servers serve, copied: it is changed meanwhile, and loads leave files beside models."""
    real = Path(os.environ["SOAK_REAL_MODELS"])
    for name in sorted({model for server, model, *_ in questions.told() if server == EXPLICIT} - {GOING}):
        fixture = ROOT / "tests" / "fixtures" / f"{name}.onnx"
        places = (ROOT / "models" / name / "1" / "model.onnx", real / name / "1" / "model.onnx", fixture)
        place(next(path for path in places if path.exists()), shelf / "explicit" / name)
    place(ROOT / "models" / "vowels" / "1" / "model.onnx", shelf / "explicit" / GOING)
    save(shelf / "explicit" / "echo", identity(DATATYPES["FP32"], ["batch", "width"]))
    place(ROOT / "models" / "wine" / "1" / "model.onnx", shelf / "polled" / TOUCHED)
    (shelf / "networks").mkdir()
    shutil.copy(ROOT / "models" / "digits" / "1" / "model.onnx", shelf / "networks" / "even.onnx")
    shutil.copy(ROOT / "tests" / "fixtures" / "lenet_mnist_pruned90.onnx", shelf / "networks" / "odd.onnx")
    place_version(shelf, FIRST_VERSION)
    return shelf


def place(model: Path, folder: Path) -> None:
    (folder / "1").mkdir(parents=True)
    shutil.copy(model, folder / "1" / "model.onnx")


def issuer(home: Path):
    """Gives a call that writes new certificates of one authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(home / "authority.pem"))

    def issue() -> None:
        issued = authority.issue_cert("127.0.0.1", "localhost")
        parts = {"server.key": issued.private_key_pem.bytes(), "server.pem": b"".join(part.bytes() for part in issued.cert_chain_pems)}
        for name, content in parts.items():
            (home / f"{name}.new").write_bytes(content)
            os.replace(home / f"{name}.new", home / name)

    return issue


def start(stack: contextlib.ExitStack, kind: str, shelf: Path, home: Path) -> Server:
    config = home / f"{kind}.toml"
    config.write_text(CONFIG + (LOADS_WITH_TLS.format(home) if kind == EXPLICIT else POLLS))
    return stack.enter_context(Server([shelf / kind], home / f"{kind}.log", config=config))


def learn(servers: dict[str, Server], shelf: Path, home: Path) -> Path:
    """Writes the plan of the clients: addresses, questions and what is expected."""
    asked, inputs = questions.make()
    root = (home / "authority.pem").read_bytes()
    oracles: dict[tuple, dict] = {}
    for version in (FIRST_VERSION, FIRST_VERSION + 1):
        if version > FIRST_VERSION:
            place_version(shelf, version)
            wait_for(lambda: ready(servers[POLLED], SWAPPED, FIRST_VERSION + 1))
        for place, question in enumerate(asked):
            swapped = question.model == SWAPPED
            if not swapped and version > FIRST_VERSION:
                continue
            folder = str(version) if swapped else "1"
            file = shelf / question.server / question.model / folder / "model.onnx"
            key = (file, id(inputs[place]))
            if key not in oracles:
                oracles[key] = questions.oracle(file, inputs[place])
            questions.learn(question, servers[question.server], root, oracles[key], version if swapped else None)
    plan = {
        "http": {kind: server.http for kind, server in servers.items()},
        "grpc": {kind: server.grpc for kind, server in servers.items()},
        "root": root,
        "questions": asked,
    }
    (home / "plan").write_bytes(pickle.dumps(plan))
    return home / "plan"


class Worker:
    """A process of clients."""

    def __init__(self, stack: contextlib.ExitStack, home: Path, plan: Path, number: int):
        command = [sys.executable, HERE / "worker.py", plan, str(number + 1)]
        self.process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        stack.callback(self.process.kill)
        self.to = home / f"latencies-{number}"

    def tell(self, **order) -> None:
        self.process.stdin.write(json.dumps(order | {"to": str(self.to)}) + "\n")
        self.process.stdin.flush()

    def told(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of clients has ended")
        values = array("d")
        values.frombytes(self.to.read_bytes())
        half = len(values) // 2
        return json.loads(line) | {"latencies": list(zip(values[:half], values[half:], strict=True))}


def measure(workers: list[Worker], seconds: float) -> tuple[list[float], list[dict]]:
    """Answers a second in a closed loop, of several stretches: what else runs on the machine takes its part, too."""
    windows, found = [], []
    for _ in range(WINDOWS):
        for worker in workers:
            worker.tell(do="closed", seconds=seconds, concurrency=CLOSED_CONCURRENCY)
        told = [worker.told() for worker in workers]
        windows.append(sum(len(one["latencies"]) for one in told) / seconds)
        found += told
    return windows, found


def offer(args, servers, shelf: Path, home: Path, plan: Path, workers: list[Worker], rate: float, seconds: float, issue):
    """The load, and what happens meanwhile."""
    reloaded = sorted({question[1] for question in questions.told() if question[0] == EXPLICIT} - {GOING})
    operations = Operations(servers[EXPLICIT], servers[POLLED], shelf, issue, reloaded)
    command = [sys.executable, HERE / "mischief.py", plan, str(seconds)]
    with contextlib.ExitStack() as stack:
        mischief = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(mischief.kill)
        for worker in workers:
            worker.tell(do="open", rate=rate / len(workers), seconds=seconds)
        operations.go_on(time.monotonic() + seconds, min(5.0, max(1.0, seconds / 120)))
        told = [worker.told() for worker in workers]
        did = json.loads(mischief.communicate(timeout=60)[0])
    return told, operations, did


def sample_all(servers: dict[str, Server]) -> dict:
    return {kind: sample(server.process.pid, 0) for kind, server in servers.items()}


def own_seconds(servers: dict[str, Server]) -> float:
    """Of the servers, this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(cpu_seconds(server) for server in servers.values()) + sum(one.ru_utime + one.ru_stime for one in used)


def title() -> str:
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    cpu = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    day = time.strftime("%Y-%m-%d")
    return f"{day}, {os.cpu_count()} cores of {cpu}, commit {revision}, `tests/soak/run {' '.join(sys.argv[1:])}`"


if __name__ == "__main__":
    main()
