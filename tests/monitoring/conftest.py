"""The scene that all live tests share: it is set once, and they begin when it has played long enough."""

import time

import pytest

from expressions import OFFSET_HERE
from traffic import scene

PLAY_SECONDS_MAX = 60
# What must have a past before the rest is asked for: the longest chain of rules, from two sources.
LAST_TO_COME = "build_source_quality:kinglet_energy_per_inference_joules:ratio_rate1h"


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    with scene(tmp_path_factory.mktemp("scene")) as playing:
        back = f"offset {int(OFFSET_HERE.total_seconds())}s"
        until = time.monotonic() + PLAY_SECONDS_MAX
        while len(playing.prometheus.values(f"count by (quality) ({LAST_TO_COME} {back} > 0)")) < 2:
            assert time.monotonic() < until, f"expected {LAST_TO_COME} from two sources"
            time.sleep(0.5)
        yield playing
