"""What hostile clients have in common: many at once for as long as the fault goes on, and plain HTTP by hand."""

import concurrent.futures
import ctypes
import http.client
import json
import socket
import struct
from collections.abc import Callable

import numpy as np

CROWD = 8


def crowd(call: Callable[[int], object], count: int = CROWD) -> list:
    """The call by so many threads at once; what they gave, or the first thing that one of them raised."""
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        return list(threads.map(call, range(count)))


def address_of(address: str) -> tuple[str, int]:
    host, port = address.split(":")
    return host, int(port)


def connect(address: str, seconds: float = 20) -> socket.socket:
    return socket.create_connection(address_of(address), timeout=seconds)


def post_head(path: str, length: int | None = None, *lines: str) -> bytes:
    """Chunked without a length."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: kinglet", framing, *lines, "", ""]).encode()


def post(address: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict, bytes]:
    """Status, headers by their names in small letters, and body."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def infer_body(tensors: dict[str, tuple[list[int], list]], datatype: str = "FP32") -> bytes:
    inputs = [
        {"name": name, "shape": shape, "datatype": datatype, "data": values} for name, (shape, values) in tensors.items()
    ]
    return json.dumps({"inputs": inputs}).encode()


def post_binary(path: str, name: str, array: np.ndarray) -> bytes:
    """A whole request of one tensor of floats, which asks for such an answer."""
    tensor = {"name": name, "shape": array.shape, "datatype": "FP32", "parameters": {"binary_data_size": array.nbytes}}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    lengths = f"Inference-Header-Content-Length: {len(text)}"
    return post_head(path, len(text) + array.nbytes, lengths) + text + array.tobytes()


def until_closed(connection: socket.socket) -> bytes:
    """What the server says before it closes."""
    said = b""
    try:
        while piece := connection.recv(1 << 16):
            said += piece
    except ConnectionResetError:
        pass
    return said


def break_off(connection: socket.socket) -> None:
    """Closes with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def vanish(connection: socket.socket) -> None:
    """From now on nothing that comes reaches it, and nothing is acknowledged: as a machine whose cable was pulled."""
    program = ctypes.create_string_buffer(DROP_ALL)
    filter_ = struct.pack("HL", len(DROP_ALL) // 8, ctypes.addressof(program))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)


SO_ATTACH_FILTER = 26
# One instruction of the kernel's packet filter: return 0 bytes.
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
