"""HTTP/2 by hand: frames that no library would send.

Knows enough of HPACK to write headers without compressing them, and of the protocol to read what comes back.
"""

import socket
import struct
import threading
import time
from dataclasses import dataclass

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
CANCEL, ENHANCE_YOUR_CALM = 8, 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error(self) -> int:
        """Of a GOAWAY or a RST_STREAM."""
        return struct.unpack(">I", self.payload[4:8] if self.kind == GOAWAY else self.payload[:4])[0]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(values: dict[int, int] | None = None) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in (values or {}).items()))


def reset(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


def header(name: str, value: str) -> bytes:
    """A literal that is not indexed, without Huffman's code."""
    return b"\0" + text(name.encode()) + text(value.encode())


def text(sent: bytes) -> bytes:
    if len(sent) < 127:
        return bytes([len(sent)]) + sent
    rest, coded = len(sent) - 127, bytearray([127])
    while rest >= 128:
        coded.append(rest % 128 + 128)
        rest //= 128
    return bytes(coded) + bytes([rest]) + sent


def head(path: str, method: str = "POST", **more: str) -> bytes:
    """The header block of a request."""
    named = {":method": method, ":scheme": "http", ":path": path, ":authority": "kinglet"}
    named |= {name.replace("_", "-"): value for name, value in more.items()}
    return b"".join(header(*pair) for pair in named.items())


def grpc_head(call: str, **more: str) -> bytes:
    return head(f"/inference.GRPCInferenceService/{call}", content_type="application/grpc", te="trailers", **more)


class Connection:
    """One that has greeted. Frames that come are kept by a thread, unless nothing shall be read; `alive` answers PING,
    and is for those who send nothing large meanwhile."""

    def __init__(self, address: str, values: dict[int, int] | None = None, reads: bool = True, alive: bool = False):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.frames: list[Frame] = []
        self.closed = threading.Event()
        self._alive = alive
        self.socket.sendall(PREFACE + settings(values))
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def send(self, sent: bytes) -> bool:
        """Whether the other side still takes it."""
        try:
            self.socket.sendall(sent)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()

    def wait_closed(self, seconds: float) -> bool:
        return self.closed.wait(seconds)

    def of_kind(self, *kinds: int) -> list[Frame]:
        return [came for came in list(self.frames) if came.kind in kinds]

    def wait_for(self, kinds: tuple[int, ...], seconds: float) -> list[Frame]:
        """Those that have come once there are any, or the connection is closed."""
        end = time.monotonic() + seconds
        while not self.of_kind(*kinds) and time.monotonic() < end and not self.closed.is_set():
            time.sleep(0.01)
        return self.of_kind(*kinds)

    def _answer(self, came: Frame) -> None:
        if self._alive and came.kind == PING and not came.flags & ACK:
            self.send(frame(PING, ACK, 0, came.payload))

    def _read(self) -> None:
        buffer = b""
        try:
            while piece := self.socket.recv(1 << 16):
                buffer += piece
                while len(buffer) >= 9 and len(buffer) >= 9 + (length := int.from_bytes(buffer[:3])):
                    stream = int.from_bytes(buffer[5:9]) & 0x7FFFFFFF
                    self.frames.append(Frame(buffer[3], buffer[4], stream, buffer[9 : 9 + length]))
                    buffer = buffer[9 + length :]
                    self._answer(self.frames[-1])
        except TimeoutError:
            return
        except OSError:
            pass
        self.closed.set()
