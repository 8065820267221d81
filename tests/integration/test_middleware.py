"""Inside the middleware that applications commonly stack: lines still arrive at once, and leaving is noticed.

hypercorn says `http.disconnect` once. Its kind of fault: a middleware, or a function of the application's, took the
message, and the command ran with no viewer left.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import anyio
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
from starlette.types import ASGIApp, Receive, Scope, Send

from sse_bridge import SandboxExec, SSEBridge
from tests.support.sandboxes import LocalSandbox, new_mark, running
from tests.support.servers import serve, serve_on_hypercorn
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
    mark = new_mark()
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


async def until_left(request: Request) -> None:
    """As functions that have to know whether anyone still waits."""
    while not await request.is_disconnected():  # noqa: ASYNC110
        await anyio.sleep(0.01)


class Asks:
    """A middleware that has taken the message before the application is called."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await until_left(Request(scope, receive))
        await self.app(scope, receive, send)


class Listens(Asks):
    """A middleware that takes the message while the application runs, and keeps it for itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def never() -> None:
            await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            if scope["type"] == "http":
                tasks.start_soon(listen)
            await self.app(scope, never if scope["type"] == "http" else receive, send)  # type: ignore[arg-type]


async def asks_first(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    await until_left(request)
    return await call_next(request)


@pytest.mark.parametrize(
    "middleware",
    [None, Middleware(Asks), Middleware(BaseHTTPMiddleware, dispatch=asks_first)],
    ids=["none", "pure", "base"],
)
def test_a_client_that_left_before_the_bridge_was_asked_starts_nothing(
    sandbox: LocalSandbox, middleware: Middleware | None
) -> None:
    """Its `http.disconnect` was taken by a middleware, or by `resolve`."""
    mark = new_mark()
    work, asked = SandboxExec(sandbox.id, f"touch {mark}; sleep {mark}"), []

    async def resolve(request: Request) -> SandboxExec:
        if middleware is None:
            await until_left(request)
        asked.append(request)
        return work

    bridge = SSEBridge(sandbox.miosa(), resolve, grace=0, heartbeat=None)
    app = Starlette(routes=[Mount("/run-sse", bridge)], middleware=[middleware] if middleware else [])
    with serve_on_hypercorn(app) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url + "/run-sse/", timeout=0.5)
        eventually(lambda: asked)
        eventually(lambda: not bridge.statistics().runs)

    assert not running(mark)


def test_a_middleware_that_keeps_the_message_is_found_out_by_the_next_send(sandbox: LocalSandbox) -> None:
    """A heartbeat, at the latest: on hypercorn the bridge sees that the stream is closed."""
    mark = new_mark()
    work = SandboxExec(sandbox.id, f"echo first; sleep {mark}")
    bridge = SSEBridge(sandbox.miosa(), lambda request: work, grace=0, heartbeat=0.2)
    app = Listens(Starlette(routes=[Mount("/run-sse", bridge)]))
    with serve_on_hypercorn(app) as url:
        with httpx.stream("GET", url + "/run-sse/") as response:
            assert response.status_code == 200
            eventually(lambda: running(mark))
        eventually(lambda: not running(mark))


REQUESTS = {
    "GET": b"GET /run-sse/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a body that is read": b"POST /run-sse/?read HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "a body that is not read": b"POST /run-sse/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "half a body": b"POST /run-sse/?read HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}",
}


@pytest.mark.parametrize("sent", list(REQUESTS))
@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
@pytest.mark.parametrize("stack", list(STACKS))
def test_a_client_that_leaves_during_resolve_raises_nothing(
    sandbox: LocalSandbox, stack: str, server: str, sent: str
) -> None:
    """The kind of fault: a client left before its response had begun. The middleware got none, and raised."""
    asked, left = threading.Event(), threading.Event()
    outcomes: list[BaseException | None] = []

    async def resolve(request: Request) -> SandboxExec:
        asked.set()
        if request.url.query:
            await request.body()
        await anyio.to_thread.run_sync(left.wait)
        await anyio.sleep(0.2)  # the server reads the end of the connection; this middleware does not hand it on
        return SandboxExec(sandbox.id, "echo")

    bridge = SSEBridge(sandbox.miosa(), resolve, grace=0, allow_cross_site=True)
    site = Starlette(routes=[Mount("/run-sse", bridge)], middleware=STACKS[stack])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await site(scope, receive, send)
        except BaseException as error:
            outcomes.append(error)
            raise
        if scope["type"] == "http":
            outcomes.append(None)

    with ExitStack() as serving:
        url = (
            serving.enter_context(serve_on_hypercorn(app))
            if server == "hypercorn"
            else serving.enter_context(serve(app)).url
        )
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0)) as connection:
            connection.sendall(REQUESTS[sent])
            assert asked.wait(10)
        left.set()
        eventually(lambda: outcomes)

    assert outcomes == [None]
    assert bridge.statistics().runs_started == 0
