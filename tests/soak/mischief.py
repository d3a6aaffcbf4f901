"""Clients that misbehave while the others work: slow readers, half messages, connections that come and go. A process of its own.

    mischief.py PLAN SECONDS

Prints what it did, as JSON. Those who read slowly must get every byte; of the rest the server must not suffer.
"""

import http.client
import json
import os
import pickle
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import frames
import numpy as np
from hostile import address_of, break_off, connect, post_binary, post_head, until_closed

from questions import EXPLICIT, POLLED

ECHO = "/v2/models/echo/infer"
RARELY_SECONDS = 20
PIECE_BYTES = 16 << 10
# Twice the servers' write_timeout: their clocks look once for each time that they allow.
NOTHING_SECONDS = 11
# More than the kernel buffers for a socket.
LARGE_VALUES, SLOW_VALUES = 4 << 20, 1 << 18


class Mischief:
    def __init__(self, plan: dict, seconds: float):
        self.http, self.grpc = plan["http"], plan["grpc"]
        self.end = time.monotonic() + seconds
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.chance = random.Random(os.getpid())

    def run(self) -> None:
        crowd = [(self.reads_slowly, 1), (self.takes_nothing, RARELY_SECONDS), (self.sends_half, 0.5), (self.half_over_grpc, 1), (self.comes_and_goes, 0.1)]
        crowd = [*crowd, (self.asks_for_health, 0.25)]
        threads = [threading.Thread(target=self.keep, args=each) for each in crowd]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def keep(self, act: Callable[[], None], pause: float) -> None:
        while time.monotonic() < self.end:
            try:
                act()
            except Exception as failure:
                self.failures.append(f"{act.__name__}: {failure!r}"[:500])
            # Longer and shorter, so that nothing here keeps in step.
            time.sleep(min(2 * pause * self.chance.random(), max(0.0, self.end - time.monotonic())))

    def narrow(self) -> socket.socket:
        """A connection with little room for what comes."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE_BYTES)
        connection.settimeout(30)
        connection.connect(address_of(self.http[EXPLICIT]))
        return connection

    def reads_slowly(self) -> None:
        values = np.random.default_rng(self.chance.randrange(1 << 30)).standard_normal((1, SLOW_VALUES), np.float32)
        with self.narrow() as connection:
            connection.sendall(post_binary(ECHO, "x", values))
            came = bytearray()
            while len(came) < values.nbytes or not came.endswith(values[0, -4:].tobytes()):
                piece = connection.recv(PIECE_BYTES)
                if not piece:
                    raise ConnectionError(f"an answer that was cut off after {len(came)} bytes")
                came += piece
                if self.chance.random() < 0.1:
                    time.sleep(0.05)
        right = came.startswith(b"HTTP/1.1 200") and came.endswith(values.tobytes())
        self.done["read slowly" if right else "wrong"] += 1

    def takes_nothing(self) -> None:
        """Until the server gives it up."""
        values = np.zeros((1, LARGE_VALUES), np.float32)
        with self.narrow() as connection:
            connection.sendall(post_binary(ECHO, "x", values))
            self.done["took nothing"] += 1
            time.sleep(NOTHING_SECONDS)
            came = len(until_closed(connection))
        if came >= values.nbytes:
            raise AssertionError(f"expected that an answer which nobody takes is given up, came all of its {came} bytes")

    def sends_half(self) -> None:
        address = self.http[self.chance.choice([EXPLICIT, POLLED])]
        model = "vowels" if address == self.http[EXPLICIT] else "touched"
        whole = post_head(f"/v2/models/{model}/infer", 1000) + b'{"inputs":[' + b" " * 500
        connection = connect(address)
        connection.sendall(whole[: self.chance.randrange(1, len(whole))])
        self.done["sent half"] += 1
        way = self.chance.randrange(3)
        if way == 0:
            break_off(connection)
            return
        if way == 1:
            until_closed(connection)
        connection.close()

    def half_over_grpc(self) -> None:
        connection = frames.Connection(self.grpc[POLLED])
        block = frames.grpc_head("ModelInfer")
        message = bytes([0, 0, 0, 1, 0]) + b"\x0a\x07touched"
        connection.send(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block) + frames.frame(frames.DATA, 0, 1, message))
        self.done["sent half over gRPC"] += 1
        time.sleep(self.chance.random())
        if self.chance.random() < 0.5:
            connection.send(frames.reset(1))
        connection.close()

    def comes_and_goes(self) -> None:
        address = self.chance.choice([*self.http.values(), *self.grpc.values()])
        connection = connect(address)
        if self.chance.random() < 0.5:
            connection.sendall(self.chance.choice([b"\x16\x03\x01\x02\x00\x01", frames.PREFACE, b"GET /v2/hea", b"\0"]))
        if self.chance.random() < 0.5:
            break_off(connection)
        else:
            connection.close()
        self.done["came and went"] += 1

    def asks_for_health(self) -> None:
        connection = http.client.HTTPConnection(self.http[self.chance.choice([EXPLICIT, POLLED])], timeout=20)
        connection.request("GET", "/v2/health/ready")
        status = connection.getresponse().status
        connection.close()
        if status != 200:
            raise AssertionError(f"expected a server that is ready, came {status}")
        self.done["asked for health"] += 1


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        mischief = Mischief(pickle.load(file), float(sys.argv[2]))
    mischief.run()
    print(json.dumps({"done": mischief.done, "failures": mischief.failures[:20], "failed": len(mischief.failures)}))


if __name__ == "__main__":
    main()
