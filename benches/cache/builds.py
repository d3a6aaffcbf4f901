"""What one build of the server takes beside another: `builds.py REPOSITORY MODEL BEFORE AFTER [PAIRS]` gives two release binaries the same
requests by turns, none of which is kept, and prints ratios as `main.py` does: second to first."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from main import Inputs, Rest, compare
from server import Server


def main() -> None:
    repository, model, before, after = Path(sys.argv[1]), *sys.argv[2:5]
    pairs = int(sys.argv[5]) if len(sys.argv) > 5 else 30
    with TemporaryDirectory() as logs:
        servers = []
        for name in (after, before):
            os.environ["KINGLET_BIN"] = name
            servers.append(Server([repository], Path(logs, f"{len(servers)}.log")))
            servers[-1].start()
        try:
            for server in servers:
                server.wait_ready()
            inputs = Inputs(servers[0], model)
            print(f"{model}, {pairs} pairs; after : before")
            compare(0.0, {server: Rest(server, model, inputs) for server in servers}, inputs, pairs)
        finally:
            for server in servers:
                server.stop()


if __name__ == "__main__":
    main()
