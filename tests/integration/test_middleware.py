"""Inside the middleware that applications commonly stack: lines still arrive at once, and leaving is noticed."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount

from sse_bridge import SandboxExec, SSEBridge
from tests.support.sandboxes import LocalSandbox, running
from tests.support.servers import serve
from tests.support.waiting import eventually


async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


STACKS = {
    "one": [Middleware(BaseHTTPMiddleware, dispatch=pass_on)],
    "many": [
        Middleware(CORSMiddleware, allow_origins=["*"]),
        Middleware(GZipMiddleware, minimum_size=1),
        Middleware(BaseHTTPMiddleware, dispatch=pass_on),
        Middleware(BaseHTTPMiddleware, dispatch=pass_on),
    ],
}


@pytest.mark.parametrize("stack", list(STACKS))
def test_lines_arrive_at_once_and_leaving_is_noticed(sandbox: LocalSandbox, stack: str) -> None:
    """Even with a wrapped `receive` and a compressing `send`. Heartbeats are off: the leaving itself must be heard."""
    mark = f"300.{uuid.uuid4().int % 10**12:012}"
    work = SandboxExec(sandbox.id, f"echo first; sleep {mark}")
    bridge = SSEBridge(sandbox.miosa(), lambda request: work, grace=0, heartbeat=None, allow_cross_site=True)
    app = Starlette(routes=[Mount("/run-sse", bridge)], middleware=STACKS[stack])
    with serve(app) as served:
        with httpx.stream("GET", served.url + "/run-sse/", headers={"Origin": "http://x"}) as response:
            assert "content-encoding" not in response.headers
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if b'"line":"first"' in content:
                    break
            eventually(lambda: running(mark))
        eventually(lambda: not running(mark))
