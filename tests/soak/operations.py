"""What operators do while a soak goes on: loads, unloads, configurations, certificates, versions in a polled repository.

Each step is done by itself and looked at: what it asked for must come to be.
"""

import http.client
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from questions import FIRST_VERSION, GOING, SWAPPED, TOUCHED

AWAY_SECONDS = 0.3
WAIT_SECONDS = 60
RANKS = (8, 7)


class Operations:
    def __init__(self, explicit, polled, shelf: Path, renew, models: list[str]):
        """`renew` writes new certificates."""
        self.explicit, self.polled, self.shelf, self.renew_files = explicit, polled, shelf, renew
        self.models = models
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.away: list[tuple[float, float]] = []
        self.version = FIRST_VERSION + 1
        self.chance = random.Random(1)
        self.rank = 0
        self.steps = [self.reload, self.unload, self.configure_by_signal, self.configure_by_call, self.swap, self.touch, self.renew, self.reload]

    def go_on(self, end: float, pause: float) -> None:
        """Every step once, in a new order each round."""
        while True:
            self.chance.shuffle(self.steps)
            for step in self.steps:
                if time.monotonic() + pause >= end:
                    time.sleep(max(0.0, end - time.monotonic()))
                    return
                try:
                    step()
                    self.done[step.__name__] += 1
                except Exception as failure:
                    self.failures.append(f"{step.__name__}: {failure!r}"[:500])
                time.sleep(pause)

    def reload(self) -> None:
        """Of a model that others are asking."""
        must(self.explicit.http, "POST", f"/v2/repository/models/{self.chance.choice(self.models)}/load")

    def unload(self) -> None:
        began = time.monotonic()
        must(self.explicit.http, "POST", f"/v2/repository/models/{GOING}/unload")
        time.sleep(AWAY_SECONDS)
        must(self.explicit.http, "POST", f"/v2/repository/models/{GOING}/load")
        self.away.append((began, time.monotonic()))

    def configure_by_signal(self) -> None:
        server = self.write_rank()
        server.send(signal.SIGHUP)
        # Nobody is told when it has been taken; the next call then finds nothing to do.
        wait_for(lambda: json.loads(must(server.admin, "POST", "/admin/config/reload", busy=True))["applied"] == [])

    def configure_by_call(self) -> None:
        server = self.write_rank()
        told = json.loads(must(server.admin, "POST", "/admin/config/reload", busy=True))
        if told != {"applied": ["limits.rank_max"], "refused": []}:
            raise AssertionError(f"expected one change, came {told}")

    def write_rank(self):
        """Alternately a limit that no question meets."""
        self.rank += 1
        for server in (self.explicit, self.polled):
            text = server.config.read_text()
            for rank in RANKS:
                text = text.replace(f"rank_max = {rank}", f"rank_max = {RANKS[self.rank % 2]}")
            write(server.config, text.encode())
        # The other server hears of it, too, and nobody waits for that.
        self.polled.send(signal.SIGHUP)
        return self.explicit

    def swap(self) -> None:
        """The next version, of the other network of two. Until it serves, the one before does."""
        versions = self.shelf / "polled" / SWAPPED
        before, self.version = self.version, self.version + 1
        place_version(self.shelf, self.version)
        wait_for(lambda: ready(self.polled, SWAPPED, self.version))
        remove(versions / str(before))

    def touch(self) -> None:
        """Files that are replaced by equal ones: a reload that polling finds."""
        loads = self.loads(TOUCHED)
        file = self.shelf / "polled" / TOUCHED / "1" / "model.onnx"
        write(file, file.read_bytes())
        wait_for(lambda: self.loads(TOUCHED) > loads)

    def loads(self, model: str) -> float:
        wanted = f'kinglet_model_loads_total{{model="{model}",outcome="ok"}} '
        page = must(self.polled.admin, "GET", "/metrics").decode()
        return next((float(line.removeprefix(wanted)) for line in page.splitlines() if line.startswith(wanted)), 0)

    def renew(self) -> None:
        self.renew_files()
        self.explicit.send(signal.SIGHUP)


def place_version(shelf: Path, number: int) -> None:
    """Even and odd versions are different networks."""
    source = shelf / "networks" / ("odd.onnx" if number % 2 else "even.onnx")
    hidden = shelf / "polled" / SWAPPED / f".{number}"
    hidden.mkdir(parents=True)
    shutil.copy(source, hidden / "model.onnx")
    hidden.rename(hidden.with_name(str(number)))


def remove(folder: Path) -> None:
    """At once, for the server; a load that is late may still leave a file in it."""
    hidden = folder.rename(folder.with_name(f".{folder.name}"))
    try:
        shutil.rmtree(hidden)
    except OSError:
        time.sleep(1)
        shutil.rmtree(hidden)


def ready(server, model: str, version: int) -> bool:
    connection = http.client.HTTPConnection(server.http, timeout=WAIT_SECONDS)
    connection.request("GET", f"/v2/models/{model}/versions/{version}/ready")
    status = connection.getresponse().status
    connection.close()
    return status == 200


def must(address: str, method: str, path: str, busy: bool = False) -> bytes:
    """`busy`: 503 says that another one is under way, and is asked again."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        connection = http.client.HTTPConnection(address, timeout=WAIT_SECONDS)
        connection.request(method, path, b"{}" if method == "POST" else None, {"content-type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status == 200:
            return body
        if not busy or answer.status != 503 or time.monotonic() > end:
            raise RuntimeError(f"{method} {path}: expected 200, came {answer.status} {body[:300]!r}")
        time.sleep(0.05)


def wait_for(condition) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not come to pass")
        time.sleep(0.05)


def write(file: Path, content: bytes) -> None:
    """Into place at once, by a name that polling does not see."""
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(content)
    os.replace(new, file)
