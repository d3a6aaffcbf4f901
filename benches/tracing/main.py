"""CPU time of the server for one request, with tracing off and on, in turns.

The demo model is asked by h2load over REST. CPU time is the process's own, of all its threads, so that what sends the
spans is in it; the collector, which reads them and throws them away, is another process.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from server import Server, free_ports

REQUESTS, CLIENTS = 20_000, 8
BODY = Path("models/digits/sample_request.json")
RATIOS = {"off": None, "ratio 0": "0", "ratio 0.01": "0.01", "ratio 1": "1"}
COLLECTOR = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def main(rounds: int) -> None:
    [port] = free_ports(1)
    collector = subprocess.Popen([sys.executable, "-c", COLLECTOR, str(port)])
    running = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, ratio in RATIOS.items():
                settings = {"KINGLET__METERING__SOURCE": "none"}
                if ratio is not None:
                    settings["KINGLET__TRACING__ENDPOINT"] = f"http://127.0.0.1:{port}"
                    settings["KINGLET__TRACING__SAMPLE_RATIO"] = ratio
                running[name] = Server([Path("models")], Path(folder) / f"{ratio}.log", settings).__enter__()
            measure(running, rounds)
    finally:
        for server in running.values():
            server.stop()
        collector.kill()


def measure(running: dict, rounds: int) -> None:
    figures = {name: [] for name in running}
    for server in running.values():
        load(server)
    for _ in range(rounds):
        for name, server in running.items():
            before = value(server, "process_cpu_seconds_total")
            load(server)
            # What waits is sent when the interval is over.
            time.sleep(0 if name == "off" else 5.5)
            figures[name].append((value(server, "process_cpu_seconds_total") - before) / REQUESTS * 1e6)
    off = figures["off"]
    for name, micros in figures.items():
        more = statistics.median(a - b for a, b in zip(micros, off))
        print(f"{name:<11} {statistics.median(micros):6.1f} us a request (least {min(micros):.1f}), {more:+.2f} beside off")
    for result in ("sent", "dropped"):
        count = value(running["ratio 1"], f'kinglet_trace_spans_total{{result="{result}"}}')
        print(f"spans {result} with ratio 1: {count:.0f}")


def load(server: Server) -> None:
    command = ["h2load", "--h1", "-n", str(REQUESTS), "-c", str(CLIENTS), "-t", "1", "-d", str(BODY)]
    command += ["-H", "content-type: application/json", f"http://{server.http}/v2/models/digits/infer"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{REQUESTS} succeeded" in output, output


def value(server: Server, name: str) -> float:
    text = urllib.request.urlopen(f"http://{server.admin}/metrics").read().decode()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)[1])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
