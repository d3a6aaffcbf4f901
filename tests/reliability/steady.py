"""The healthy client: a process of its own that asks sums over REST and gRPC, one after the other, and checks each answer.

Commands are lines of JSON on standard input (start, phase, stop), each answered by one on standard output. It keeps its
connections, as clients do; the newcomer makes a new one for every question. What it retries, and whether, its commander says.
"""

import collections
import http.client
import json
import random
import socket
import sys
import threading
import time

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

PAUSE_SECONDS = 0.004
RETRY_PAUSE_SECONDS = 0.05
# A question that is asked again for this long without an answer is lost.
RETRY_SECONDS_MAX = 30
WIDTH = 16


class Question:
    """Two rows of small whole numbers, whose sums floats hold exactly."""

    def __init__(self, number: int):
        chance = random.Random(number)
        self.id = str(number)
        self.left = [chance.randrange(1 << 20) for _ in range(WIDTH)]
        self.right = [chance.randrange(1 << 20) for _ in range(WIDTH)]

    def check(self, echoed: str, values) -> None:
        wanted = [a + b for a, b in zip(self.left, self.right, strict=True)]
        if echoed != self.id or list(values) != wanted:
            raise WrongAnswer(f"question {self.id}: expected {wanted}, came {list(values)} for {echoed}")


class WrongAnswer(Exception):
    pass


class Rest:
    def __init__(self, order: dict, keeps: bool):
        self._path, self._keeps = f"/v2/models/{order['model']}/infer", keeps
        self._connection = connection_to(order["http"], order["answer_seconds_max"])

    def ask(self, question: Question) -> None:
        tensors = [
            {"name": name, "shape": [1, WIDTH], "datatype": "FP32", "data": values}
            for name, values in (("left", question.left), ("right", question.right))
        ]
        self._connection.request("POST", self._path, json.dumps({"id": question.id, "inputs": tensors}))
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise OSError(f"{answer.status} {text[:200]!r}")
        told = json.loads(text)
        question.check(told["id"], told["outputs"][0]["data"])
        if not self._keeps:
            self.renew()

    def renew(self) -> None:
        self._connection.close()


class Grpc:
    def __init__(self, order: dict):
        address = order["grpc"]
        self._model, self._seconds_max = order["model"], order["answer_seconds_max"]
        # Two channels of one process to one address would share a connection.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]
        if address.startswith("unix:"):
            options.append(("grpc.default_authority", "localhost"))
        self._channel = grpc.insecure_channel(address, options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def ask(self, question: Question) -> None:
        request = service_pb2.ModelInferRequest(model_name=self._model, id=question.id)
        for name, values in (("left", question.left), ("right", question.right)):
            request.inputs.add(name=name, shape=[1, WIDTH], datatype="FP32")
            request.raw_input_contents.append(np.array(values, np.float32).tobytes())
        answer = self._stub.ModelInfer(request, timeout=self._seconds_max)
        question.check(answer.id, np.frombuffer(answer.raw_output_contents[0], np.float32).tolist())

    def renew(self) -> None:
        """A channel connects again by itself."""


def connection_to(address: str, seconds_max: float) -> http.client.HTTPConnection:
    if not address.startswith("unix:"):
        return http.client.HTTPConnection(address, timeout=seconds_max)
    connection = http.client.HTTPConnection("localhost", timeout=seconds_max)

    def connect():
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(seconds_max)
        connection.sock.connect(address.removeprefix("unix:"))

    connection.connect = connect
    return connection


class Notes:
    """What befell one client in one phase."""

    def __init__(self):
        self.seconds: list[float] = []
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self.retries = 0

    def told(self) -> dict:
        ordered = sorted(self.seconds) or [0.0]
        return {
            "answers": len(self.seconds),
            "p50": ordered[len(ordered) // 2],
            "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
            "max": ordered[-1],
            "wrong": self.wrong[:5],
            "lost": self.lost[:5],
            "lost_count": len(self.lost),
            "retries": self.retries,
        }


class Steady:
    """Clients on threads of their own, from start to stop."""

    def __init__(self, order: dict):
        self.phase = order["phase"]
        self._retries = order["retries"]
        self._ended = threading.Event()
        self._numbers = iter(range(1, 1 << 60))
        self._lock = threading.Lock()
        self.notes: dict = collections.defaultdict(lambda: collections.defaultdict(Notes))
        self._wait_max = order["answer_seconds_max"] + RETRY_SECONDS_MAX
        clients = {"rest": lambda: Rest(order, keeps=True), "grpc": lambda: Grpc(order)}
        if order["newcomer"]:
            clients["newcomer"] = lambda: Rest(order, keeps=False)
        self._threads = [threading.Thread(target=self._run, args=client, daemon=True) for client in clients.items()]
        for thread in self._threads:
            thread.start()

    def stop(self) -> dict:
        self._ended.set()
        for thread in self._threads:
            thread.join(self._wait_max)
        return {
            phase: {name: notes.told() for name, notes in clients.items()} for phase, clients in self.notes.items()
        }

    def _run(self, name: str, make) -> None:
        client = make()
        while not self._ended.wait(PAUSE_SECONDS):
            with self._lock:
                question = Question(next(self._numbers))
            self._settle(name, client, question)

    def _settle(self, name: str, client, question: Question) -> None:
        """Asks until there is an answer, where it may ask again."""
        began = time.monotonic()
        retries = 0
        while True:
            try:
                client.ask(question)
            except WrongAnswer as wrong:
                self.notes[self.phase][name].wrong.append(str(wrong))
                return
            except (OSError, ValueError, http.client.HTTPException, grpc.RpcError) as failure:
                client.renew()
                if self._retries and time.monotonic() - began < RETRY_SECONDS_MAX:
                    retries += 1
                    time.sleep(RETRY_PAUSE_SECONDS)
                    continue
                text = f"{type(failure).__name__} after {time.monotonic() - began:.3f} s: {failure}"
                self.notes[self.phase][name].lost.append(text[:400])
                return
            notes = self.notes[self.phase][name]
            notes.seconds.append(time.monotonic() - began)
            notes.retries += retries
            return


def main() -> None:
    steady = None
    for line in sys.stdin:
        order = json.loads(line)
        told: dict = {}
        if order["do"] == "start":
            steady = Steady(order)
        elif order["do"] == "phase":
            steady.phase = order["phase"]
        else:
            told = steady.stop()
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
