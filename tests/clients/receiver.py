"""A collector of traces for the tests: OTLP over HTTP or gRPC, read by OpenTelemetry's own messages.

Knows the protocol and nothing of what spans mean.
"""

import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

WAIT_SECONDS = 20


class Receiver:
    """Keeps every span that comes. Use as a context; `pause` and `resume` close and open its port."""

    def __init__(self, protocol: str, port: int):
        self.protocol = protocol
        self.endpoint = f"http://127.0.0.1:{port}"
        self.messages = []
        self.headers = []
        # What is answered instead of taking spans: a status of HTTP, or a code of gRPC.
        self.answer = None
        self._port = port
        self._stop = None

    def __enter__(self) -> "Receiver":
        self.resume()
        return self

    def __exit__(self, *_) -> None:
        self.pause()

    def resume(self) -> None:
        self._stop = serve_grpc(self, self._port) if self.protocol == "grpc" else serve_http(self, self._port)

    def pause(self) -> None:
        if self._stop:
            self._stop()
        self._stop = None

    def take(self, message, headers: dict[str, str]) -> None:
        self.messages.append(message)
        self.headers.append(headers)

    @property
    def spans(self) -> list:
        resources = (resource for message in list(self.messages) for resource in message.resource_spans)
        scopes = (scope for resource in resources for scope in resource.scope_spans)
        return [span for scope in scopes for span in scope.spans]

    def wait(self, condition) -> list:
        """The spans, once they fulfil a condition."""
        until = time.monotonic() + WAIT_SECONDS
        while not condition(spans := self.spans):
            assert time.monotonic() < until, f"these spans came: {[span.name for span in spans]}"
            time.sleep(0.02)
        return spans

    def wait_for(self, name: str, count: int = 1) -> list:
        """Spans of a name, once there are so many."""
        named = lambda spans: [span for span in spans if span.name == name]
        return named(self.wait(lambda spans: len(named(spans)) >= count))


def serve_http(receiver: Receiver, port: int):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.answer or 200
            if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
                status = 404
            if status == 200:
                message = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                receiver.take(message, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        connections = []

        def process_request(self, request, address):
            self.connections.append(request)
            super().process_request(request, address)

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        # A collector that ends takes its connections along.
        for connection in server.connections:
            try:
                connection.shutdown(2)
            except OSError:
                pass
        thread.join()

    return stop


def serve_grpc(receiver: Receiver, port: int):
    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):
            if receiver.answer:
                context.abort(receiver.answer, "asked for")
            receiver.take(request, dict(context.invocation_metadata()))
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    return lambda: server.stop(0).wait()


def attributes(of) -> dict:
    """Of a span or a resource."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


def children(spans: list, parent) -> list:
    return [span for span in spans if span.parent_span_id == parent.span_id and span.trace_id == parent.trace_id]


def seconds(span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
