"""HAProxy and nginx in front of servers, as operators would have them: REST and gRPC each on one port."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tools
from server import Server, free_ports

CHECK_MILLISECONDS = 100


@dataclass
class Front:
    """Looks to the healthy client like a server."""

    http: str
    grpc: str
    process: subprocess.Popen | None = None


@contextlib.contextmanager
def haproxy(servers: list[Server], folder: Path) -> Iterator[Front]:
    http, grpc = (f"127.0.0.1:{port}" for port in free_ports(2))
    check = f"check inter {CHECK_MILLISECONDS}ms fall 1 rise 1"
    rest = "\n".join(f"  server s{n} {one.http} {check}" for n, one in enumerate(servers))
    # Health is asked of the REST listener: HAProxy 2.6 speaks gRPC's health protocol to nobody.
    ports = [one.http.split(":")[1] for one in servers]
    calls = "\n".join(
        f"  server s{n} {one.grpc} proto h2 {check} port {port} check-proto h1"
        for n, (one, port) in enumerate(zip(servers, ports, strict=True))
    )
    asked = "  option httpchk\n  http-check send meth GET uri /v2/health/ready ver HTTP/1.1 hdr Host kinglet\n  http-check expect status 200"
    configuration = f"""global
  maxconn 500
defaults
  mode http
  balance roundrobin
  retries 3
  option redispatch 1
  timeout connect 2s
  timeout client 60s
  timeout server 60s
frontend rest
  bind {http}
  default_backend rests
frontend calls
  bind {grpc} proto h2
  default_backend callees
backend rests
{asked}
{rest}
backend callees
{asked}
{calls}
"""
    path = folder / "haproxy.cfg"
    path.write_text(configuration)
    with running([tools.program("usr/sbin/haproxy"), "-db", "-f", str(path)], folder / "haproxy.log") as process:
        yield wait_open(Front(http, grpc, process))


@contextlib.contextmanager
def nginx(servers: list[Server], folder: Path) -> Iterator[Front]:
    """Without health checks, which its free form has not: it goes by what connections tell. By default it asks another
    server only where a request has not been sent yet."""
    http, grpc = (f"127.0.0.1:{port}" for port in free_ports(2))
    rest = "\n".join(f"    server {one.http} max_fails=1 fail_timeout=1s;" for one in servers)
    calls = "\n".join(f"    server {one.grpc} max_fails=1 fail_timeout=1s;" for one in servers)
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = f"""daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 500; }}
http {{
  access_log off;
{temporary}
  upstream rests {{
{rest}
    keepalive 16;
  }}
  upstream callees {{
{calls}
  }}
  server {{
    listen {http};
    keepalive_requests 1000000;
    location / {{
      proxy_pass http://rests;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
  server {{
    listen {grpc} http2;
    keepalive_requests 1000000;
    location / {{
      grpc_pass grpc://callees;
    }}
  }}
}}
"""
    path = folder / "nginx.conf"
    path.write_text(configuration)
    command = [tools.program("usr/sbin/nginx"), "-p", str(folder), "-e", str(folder / "nginx-error.log"), "-c", str(path)]
    with running(command, folder / "nginx.log") as process:
        yield wait_open(Front(http, grpc, process))


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=tools.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def wait_open(front: Front) -> Front:
    for address in (front.http, front.grpc):
        host, port = address.split(":")
        for _ in range(200):
            assert front.process.poll() is None, "the proxy has ended"
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                break
            time.sleep(0.05)
    return front
