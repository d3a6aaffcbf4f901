"""One process of clients: asks at the times of a Poisson process, whatever came back so far, and notes what became of each request.

Orders are lines of JSON on standard input, each answered by one on standard output. Latency counts from when a request was
due, so that a client which falls behind shows.
"""

import asyncio
import collections
import itertools
import json
import pickle
import random
import sys
import time
import traceback
from array import array

import grpc
from tritonclient.grpc import service_pb2

from questions import EXPLICIT, GOING, ID, METHOD, SWAPPED, VERSION, Question, draw

# An answer that takes longer is lost.
ANSWER_SECONDS_MAX = 30
# Of all arrivals; the rest are plain questions.
SHARES = {"leaves": 0.02, "hurries": 0.02, "errs": 0.02}
# Questions over REST whose client keeps no connection.
NEWCOMERS = 0.05
LEAVES_AFTER_SECONDS_MAX = 0.03
TOLD_MAX = 20
CHANNELS = 2
SKEW_SECONDS_MAX = 1e-3
# What a mistake is answered with: the status over REST, over gRPC, and the code by which the server counts it.
MISTAKES = {
    "model": (404, grpc.StatusCode.NOT_FOUND, "not_found"),
    "version": (404, grpc.StatusCode.NOT_FOUND, "not_found"),
    "body": (400, grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument"),
}


class Lost(Exception):
    pass


class Overloaded(Exception):
    """The server has said that it has no room."""


class Rest:
    """Connections that are kept, each for one request at a time. Any of the idle ones is taken, so that some are used just
    when the server gives them up."""

    def __init__(self, address: str, chance: random.Random):
        self.host, port = address.split(":")
        self.port, self._chance = int(port), chance
        self._idle: list = []

    async def connect(self):
        return await asyncio.open_connection(self.host, self.port, limit=1 << 22)

    async def take(self, new: bool):
        while self._idle and not new:
            place = self._chance.randrange(len(self._idle))
            self._idle[place], self._idle[-1] = self._idle[-1], self._idle[place]
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await self.connect()

    async def ask(self, path: str, body: bytes, headers: str, new: bool) -> tuple[int, bytes]:
        reader, writer = await self.take(new)
        try:
            writer.write(head(path, len(body), headers, close=new) + body)
            status, closes, answer = await response(reader)
        except BaseException:
            writer.transport.abort()
            raise
        if closes or new:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return status, answer

    async def leave(self, path: str, headers: str, body: bytes, after: float, abruptly: bool) -> None:
        _, writer = await self.connect()
        writer.write(head(path, len(body), headers, close=False) + body)
        await writer.drain()
        await asyncio.sleep(after)
        if abruptly:
            writer.transport.abort()
        else:
            writer.close()


def head(path: str, length: int, headers: str, close: bool) -> bytes:
    connection = "connection: close\r\n" if close else ""
    return f"POST {path} HTTP/1.1\r\nhost: kinglet\r\ncontent-length: {length}\r\n{connection}{headers}\r\n".encode()


async def response(reader) -> tuple[int, bool, bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split(" ")[1]), fields.get("connection") == "close", await reader.readexactly(int(fields["content-length"]))


class Clients:
    """All of this process, and what befell them."""

    def __init__(self, plan: dict, seed: int):
        self.chance = random.Random(seed)
        self.questions: list[Question] = plan["questions"]
        self.drawn = draw(self.chance, self.questions)
        self.numbers = (f"{seed:04d}{number:012d}" for number in itertools.count())
        self.rest = {server: Rest(address, self.chance) for server, address in plan["http"].items()}
        self.calls = {
            server: [self.channel(address, plan["root"] if server == EXPLICIT else None) for _ in range(CHANNELS)]
            for server, address in plan["grpc"].items()
        }
        self.renew()

    def channel(self, address: str, root: bytes | None):
        # Two channels of one process to one address would share a connection.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        if root:
            return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(root), options)
        return grpc.aio.insecure_channel(address, options)

    def renew(self) -> None:
        self.asked = 0
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.details: list[str] = []
        self.away: list[tuple[float, float, str]] = []
        self.due, self.took = array("d"), array("d")
        self.versions: set[int] = set()

    def note(self, question: Question, outcome: str, detail: str = "") -> None:
        self.outcomes[f"{question.server} {question.model} {outcome}"] += 1
        if detail and len(self.details) < TOLD_MAX:
            self.details.append(f"{question.model} over {question.wire}: {outcome}: {detail[:1000]}")

    async def closed(self, seconds: float, concurrency: int) -> None:
        end = time.monotonic() + seconds

        async def goes_on():
            while time.monotonic() < end:
                await self.settle("asks", next(self.drawn), time.monotonic())

        await asyncio.gather(*(goes_on() for _ in range(concurrency)))

    async def open(self, rate: float, seconds: float) -> None:
        began, due, tasks = time.monotonic(), 0.0, set()
        while (due := due + self.chance.expovariate(rate)) < seconds:
            wait = began + due - time.monotonic()
            if wait > SKEW_SECONDS_MAX:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.settle(self.kind(), next(self.drawn), began + due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)

    def kind(self) -> str:
        place = self.chance.random()
        for kind, share in SHARES.items():
            if place < share:
                return kind
            place -= share
        return "asks"

    async def settle(self, kind: str, question: Question, due: float) -> None:
        """One outcome for each request, whatever happens."""
        self.asked += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await getattr(self, kind)(question, due)
        except Overloaded:
            self.note(question, "refused overloaded")
        except Lost as lost:
            self.note(question, "lost", f"{kind} after {time.monotonic() - due:.3f} s: {lost}")
        except (OSError, EOFError, TimeoutError, grpc.aio.AioRpcError) as error:
            self.note(question, "lost", f"{kind} after {time.monotonic() - due:.3f} s: {error!r}")
        except Exception:
            self.note(question, "lost", traceback.format_exc()[-1000:])

    async def asks(self, question: Question, due: float) -> None:
        number, known = next(self.numbers).encode(), max(self.versions, default=0)
        status, answer = await self.send(question, question.request.replace(ID, number, 1), *target(question))
        done = time.monotonic()
        if status in (503, grpc.StatusCode.UNAVAILABLE) and question.model == GOING:
            self.away.append((due, done, question.model))
            self.note(question, "refused unavailable")
        elif status not in (200, grpc.StatusCode.OK):
            raise Lost(f"{status} {answer[:300]!r}")
        elif trouble := self.check(question, answer, number, known):
            self.note(question, "wrong", trouble)
        else:
            self.note(question, "ok")
            self.due.append(due)
            self.took.append(done - due)

    def check(self, question: Question, answer: bytes, number: bytes, known: int) -> str:
        """What is wrong with an answer. A version that has been seen is not followed by one before it."""
        version = b""
        if question.model == SWAPPED:
            at = question.expected[False].index(VERSION)
            version = answer[at : at + len(VERSION)]
            if not version.isdigit() or int(version) < known:
                return f"expected version {known} or a later one, came {version!r}"
            self.versions.add(int(version))
        wanted = question.expected[bool(version) and int(version) % 2 == 1].replace(ID, number, 1).replace(VERSION, version, 1)
        if answer == wanted:
            return ""
        return f"expected {len(wanted)} bytes {wanted[:300]!r}, came {len(answer)} bytes {answer[:300]!r}"

    async def send(self, question: Question, body: bytes, path: str, headers: str, seconds: float = ANSWER_SECONDS_MAX):
        if question.wire != "grpc":
            status, answer = await self.rest[question.server].ask(path, body, headers, self.chance.random() < NEWCOMERS)
            if status == 429:
                raise Overloaded
            return status, answer
        try:
            answer = await self.chance.choice(self.calls[question.server]).unary_unary(METHOD)(body, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise Overloaded from error
            return error.code(), error.details().encode()
        return grpc.StatusCode.OK, answer

    async def leaves(self, question: Question, due: float) -> None:
        """A client that does not wait for its answer. Whether the server saw the request, it cannot know."""
        after = self.chance.random() * LEAVES_AFTER_SECONDS_MAX
        body = question.request.replace(ID, next(self.numbers).encode(), 1)
        if question.wire == "grpc":
            call = self.chance.choice(self.calls[question.server]).unary_unary(METHOD)(body)
            await asyncio.sleep(after)
            call.cancel()
        else:
            await self.rest[question.server].leave(*target(question), body, after, self.chance.random() < 0.5)
        self.note(question, "left")

    async def hurries(self, question: Question, due: float) -> None:
        """A deadline that may pass: a right answer, or word that it was late."""
        number, known = next(self.numbers).encode(), max(self.versions, default=0)
        body = question.request.replace(ID, number, 1)
        path, headers = target(question)
        seconds = self.chance.choice([0.001, 0.002, 0.005])
        status, answer = await self.send(question, body, path, f"{headers}kinglet-timeout-ms: {1000 * seconds:.0f}\r\n", seconds)
        if status in (200, grpc.StatusCode.OK):
            trouble = self.check(question, answer, number, known)
            self.note(question, "wrong" if trouble else "ok", trouble)
        elif status == 504:
            self.note(question, "refused deadline_exceeded")
        elif status == grpc.StatusCode.DEADLINE_EXCEEDED:
            # Its own library may have said so, before the server could.
            self.note(question, "left")
        elif status in (503, grpc.StatusCode.UNAVAILABLE) and question.model == GOING:
            self.away.append((due, time.monotonic(), question.model))
            self.note(question, "refused unavailable")
        else:
            raise Lost(f"{status} {answer[:300]!r}")

    async def errs(self, question: Question, due: float) -> None:
        """A mistake, which must be refused as what it is."""
        mistake = self.chance.choice(list(MISTAKES))
        rest, call, code = MISTAKES[mistake]
        model = "nobody" if mistake == "model" else "vowels" if question.server == EXPLICIT else "touched"
        version = "77" if mistake == "version" else ""
        if question.wire == "grpc":
            body = service_pb2.ModelInferRequest(model_name=model, model_version=version).SerializeToString()
        else:
            body = b'{"inputs":[' if mistake == "body" else b'{"inputs":[]}'
        path = f"/v2/models/{model}/versions/{version}/infer" if version else f"/v2/models/{model}/infer"
        status, answer = await self.send(question, body, path, "")
        if status != (call if question.wire == "grpc" else rest):
            raise Lost(f"{mistake}: expected {rest} or {call}, came {status} {answer[:300]!r}")
        self.note(question, f"refused {code}")

    def told(self) -> dict:
        return {
            "asked": self.asked,
            "outcomes": dict(self.outcomes),
            "details": self.details,
            "away": self.away,
            "versions": sorted(self.versions),
        }


def target(question: Question) -> tuple[str, str]:
    """Path and headers over REST."""
    headers = f"inference-header-content-length: {question.head_bytes}\r\n" if question.head_bytes else ""
    return f"/v2/models/{question.model}/infer", headers


async def main() -> None:
    with open(sys.argv[1], "rb") as file:
        plan = pickle.load(file)
    clients = Clients(plan, int(sys.argv[2]))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        clients.renew()
        if order["do"] == "closed":
            await clients.closed(order["seconds"], order["concurrency"])
        else:
            await clients.open(order["rate"], order["seconds"])
        with open(order["to"], "wb") as file:
            clients.due.tofile(file)
            clients.took.tofile(file)
        print(json.dumps(clients.told()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
