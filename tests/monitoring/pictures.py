"""The pictures of docs/: Prometheus's own graphs of the demo models under load, taken by pictures.mjs."""

import subprocess
import tempfile
import time
from pathlib import Path

from files import ROOT
from traffic import scene

# As long as the pictures show.
SECONDS = 130


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, scene(Path(folder)) as playing:
        time.sleep(SECONDS)
        subprocess.run(
            ["node", ROOT / "tests/monitoring/pictures.mjs", f"http://{playing.prometheus.address}"], check=True, timeout=90
        )


if __name__ == "__main__":
    main()
