"""What an ensemble takes beside its parts: `main.py [PAIRS]` asks, by turns, an ensemble of one and of three steps and a model that is such a step,
and prints ratios as the cache's benchmark does: ensemble to model. An application that made three calls of three steps would be at three.

Every step adds a number to four, so that what is measured is the way of a request and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "cache"))
from main import Grpc, Inputs, Rest, compare  # noqa: E402
from server import Server  # noqa: E402
from zoo import plus, save  # noqa: E402

STEP = '[[steps]]\nmodel = "plus"\n'


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with TemporaryDirectory() as work:
        repository = Path(work, "models")
        save(repository / "plus", plus(1.0))
        for steps in (1, 3):
            folder = repository / f"steps{steps}"
            (folder / "1").mkdir(parents=True)
            named = [f'{STEP}name = "plus{at}"\noutputs = {{ y = "y{at}" }}\n' for at in range(steps)]
            (folder / "manifest.toml").write_text("".join(named))
        with Server([repository], Path(work, "whole.log")) as whole, Server([repository], Path(work, "part.log")) as part:
            for wire in (Rest, Grpc):
                for name in ("plus", "steps1", "steps3"):
                    print(f"{name} : plus over {wire.__name__}, {pairs} pairs")
                    clients = {whole: wire(whole, name, Inputs(whole, name)), part: wire(part, "plus", Inputs(part, "plus"))}
                    compare(0.0, clients, Inputs(part, "plus"), pairs)


if __name__ == "__main__":
    main()
