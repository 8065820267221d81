"""The configurations of docs/deployment.md for proxies that only the matrix has: lines get through them at once."""

from __future__ import annotations

import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.routing import Mount

from sse_bridge import SSEBridge
from sse_bridge.testing import Script
from tests.matrix.proxies import Proxy, behind
from tests.support.documentation import DOCS, only_block
from tests.support.servers import serve
from tests.support.waiting import eventually

pytestmark = pytest.mark.matrix

PARTS = {
    "HAProxy": only_block(DOCS / "deployment.md", "haproxy"),
    "Varnish": only_block(DOCS / "deployment.md", "vcl"),
}
#: The page's application.
UPSTREAM = "127.0.0.1:8000"


def configured(name: str) -> Proxy:
    """A proxy with the page's part of its configuration, and what it needs beside."""
    part = PARTS[name].replace(UPSTREAM, "127.0.0.1:$upstream")
    if name == "Varnish":
        head = 'vcl 4.1; backend app { .host = "127.0.0.1"; .port = "$upstream"; }\n'
        command = "varnishd -F -j none -a 127.0.0.1:$port -T none -n $folder/state -s malloc,16m -f $folder/default.vcl"
        return Proxy(name, "default.vcl", command, head + part)
    frontend = "frontend in\n  bind 127.0.0.1:$port\n  default_backend app\n"
    return Proxy(name, "haproxy.cfg", "haproxy -db -f haproxy.cfg", part + frontend)


@pytest.mark.parametrize("name", PARTS)
def test_lines_get_through_at_once(name: str, certificate: trustme.LeafCert) -> None:
    """And the run ends with its page."""
    script = Script(["first"], waits=True)
    app = Starlette(routes=[Mount("/run-sse", SSEBridge(None, lambda request: script, grace=0, heartbeat=None))])
    pem, key = certificate.cert_chain_pems[0].bytes(), certificate.private_key_pem.bytes()
    with serve(app) as served, behind(configured(name), served.port, pem, key) as port:
        with httpx.stream("GET", f"http://127.0.0.1:{port}/run-sse/", timeout=10) as response:
            lines = response.iter_lines()  # closes the response when it is dropped
            assert any('"line":"first"' in line for line in lines)
            assert script.stops == 0
        eventually(lambda: script.stops == 1)
