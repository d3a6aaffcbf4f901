"""Three servers behind a proxy of the trade, restarted one after the other under constant load: no request fails."""

import contextlib
import time

import pytest

import proxies
from bounds import SHORT
from ordeal import ANSWER_SECONDS_MAX, check_clients
from server import Server

COUNT = 3
# The proxy's checks and what they cost on a busy machine; then a restart is not noticed by anyone.
DRAIN = SHORT | {"KINGLET__DRAIN__DELAY": "1s", "KINGLET__DRAIN__LINGER": "500ms"}


@pytest.mark.parametrize("proxy", [proxies.haproxy, proxies.nginx], ids=["haproxy", "nginx"])
def test_rolling_restart(shelf, tmp_path, commander, report, request, proxy):
    """Clients that keep their connections and never ask twice, over REST and gRPC, and newcomers."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server([shelf], tmp_path / f"log{n}", DRAIN)) for n in range(COUNT)]
        front = stack.enter_context(proxy(servers, tmp_path))
        time.sleep(0.5)
        order = {"http": front.http, "grpc": front.grpc, "model": "add", "newcomer": True, "retries": False}
        commander.tell(do="start", phase="before", answer_seconds_max=ANSWER_SECONDS_MAX, **order)
        told = None
        try:
            time.sleep(1)
            commander.tell(do="phase", phase="fault")
            began = time.monotonic()
            for server in servers:
                server.terminate()
                assert server.wait_exit() == 0
                server.start()
                server.wait_ready()
                time.sleep(1.2)
            lasted = time.monotonic() - began
        finally:
            told = commander.tell(do="stop")
        report.append({"test": request.node.name, "seconds": round(lasted, 1), "clients": told})
        check_clients(told, timed=True, alive_seconds_max=None)
