"""What the server does under overload, for long, and while models come and go; README.md says how to read it. Started by `run`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import drain
import machine
import overload
import reload
import soak
import unload
import verdicts
from clients import WIRES
from verdicts import Report

MODES = {"overload": overload.run, "soak": soak.run, "unload": unload.run, "reload": reload.run, "drain": drain.run}
ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    # Without this a SIGTERM would skip what stops the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = parse()
    target = Path(os.environ["ENDURANCE_TARGET"])
    args.open_loop = target / "build" / "release" / "open-loop"
    out = args.out or target / "results" / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    described = machine.describe(Path(os.environ["PEERS_TARGET"]), sys.argv[1:])
    reports: list[Report] = []
    for mode in args.modes:
        try:
            reports += MODES[mode](args, out, target)
        except Exception as error:
            traceback.print_exc()
            failed = Report(mode)
            failed.judge("ran to its end", "yes", repr(error)[:300].replace("|", "/"), False)
            reports.append(failed)
        verdicts.write(out, described, reports)
    print(f"wrote {out / 'summary.md'}")
    sys.exit(0 if all(report.passed() for report in reports) else 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("modes", nargs="*", metavar="MODE", help=f"of {', '.join(MODES)}; all, in this order, where none is named")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "kinglet")
    parser.add_argument("--out", type=Path, help="folder of the results; target/endurance/results/<time> where none is named")
    load = parser.add_argument_group("overload")
    load.add_argument("--wires", type=lambda text: text.split(","), default="binary,grpc", help=f"of {', '.join(WIRES)}; also of reload and drain")
    load.add_argument("--request-ms", type=float, default=20, help="least CPU time of a request; also of drain")
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    load.add_argument("--queues", type=numbers, default="64,512", help="queue_requests_max of each pass; 512 is the server's default")
    load.add_argument("--seconds", type=float, default=60)
    load.add_argument("--peak-seconds", type=float, default=10, help="of each closed-loop measurement")
    load.add_argument("--factor", type=float, default=5, help="offered load over the peak")
    load.add_argument("--connections", type=int, default=32, help="opened before the first request; more are opened when all are busy")
    long = parser.add_argument_group("soak")
    long.add_argument("--minutes", type=float, default=20)
    long.add_argument("--threads", type=int, default=3, help="of mixed clients")
    long.add_argument("--rest", type=float, default=1.5, help="each client rests for this many times what its last request took")
    other = parser.add_argument_group("unload, reload and drain")
    other.add_argument("--cycles", type=int, default=3, help="of loading all, asking all and unloading all")
    other.add_argument("--cycle-seconds", type=float, default=20, help="of load in a cycle")
    other.add_argument("--reload-seconds", type=float, default=20, help="of load with reloads, and of load without")
    other.add_argument("--drains", type=int, default=5, help="of each kind")
    args = parser.parse_args()
    for got, known in ((args.modes, MODES), (args.wires, WIRES)):
        if unknown := set(got) - set(known):
            parser.error(f"expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    args.modes = args.modes or list(MODES)
    args.binary = args.binary.resolve()
    if not args.binary.exists():
        parser.error(f"--binary: expected a server at {args.binary}, there is none")
    return args


if __name__ == "__main__":
    main()
