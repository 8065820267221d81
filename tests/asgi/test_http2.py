"""hypercorn's HTTP/2: a client that opens no window holds its run back, as one that does not read does on HTTP/1.

The fault: a `send` that never waits, so that a slow viewer's frames pile up in the server, beyond every policy.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.routing import Mount

from sse_bridge import Block, Drop, SSEBridge
from tests.support.asgi import Page
from tests.support.servers import serve_on_hypercorn
from tests.support.site import site
from tests.support.waiting import eventually
from tests.support.work import ScriptedWork, exit_frame, finished, stdout

CHUNK = stdout(*["x" * 1000] * 64)
CHUNKS = 40
#: Bytes that may be on their way: the mark of the policy, hypercorn's own, windows, and a batch at each place.
MOST_ON_THE_WAY = 1_500_000


class Client:
    """An HTTP/2 client that opens no window until it is told to read.

    Args:
        url: of the server.
        streams: how many requests it sends on its one connection.
    """

    def __init__(self, url: str, streams: int = 1) -> None:
        self.content = b""
        self.ended = 0
        self._streams = streams
        self._socket = socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=10)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        for number in range(streams):
            headers = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "localhost")]
            self._h2.send_headers(2 * number + 1, headers, end_stream=True)
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def read_all(self) -> None:
        self._h2.increment_flow_control_window(2**30)
        for number in range(self._streams):
            self._h2.increment_flow_control_window(2**30, 2 * number + 1)
        self._flush()
        while self.ended < self._streams:
            for event in self._h2.receive_data(self._socket.recv(2**16)):
                if isinstance(event, h2.events.DataReceived):
                    self.content += event.data or b""
                self.ended += isinstance(event, h2.events.StreamEnded)
            self._flush()

    def close(self) -> None:
        self._socket.close()


class Server:
    """A bridge on hypercorn, and the works that it has started."""

    def __init__(self, wrap: Callable[[SSEBridge], Any], **options: Any) -> None:
        self.works: list[ScriptedWork] = []
        self.bridge = SSEBridge(None, self._resolve, **options)
        self.app = wrap(self.bridge)

    async def _resolve(self, request: Request) -> ScriptedWork:
        work = ScriptedWork()
        work.feed(*[CHUNK] * CHUNKS, exit_frame())
        work.finish()
        self.works.append(work)
        return work

    def is_held(self) -> bool:
        """Whether every run has been at the same place for a while, before its end."""
        looks = []
        for _ in range(3):
            looks.append([work.unread for work in self.works])
            time.sleep(0.2)
        return bool(self.works) and looks[0] == looks[1] == looks[2]


async def through(request: Request, call_next: Any) -> Any:
    return await call_next(request)


WRAPPINGS: dict[str, Callable[[SSEBridge], Any]] = {
    "bare": lambda bridge: bridge,
    "mounted": lambda bridge: Starlette(routes=[Mount("/", bridge)]),
    "behind middleware": lambda bridge: Starlette(
        routes=[Mount("/", bridge)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=through)] * 2
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("wrapping", "streams"), [*((wrapping, 1) for wrapping in WRAPPINGS), ("mounted", 3)])
def test_a_client_without_a_window_holds_its_run_back(backend: str, wrapping: str, streams: int) -> None:
    """It gets everything once it reads, on each of its streams."""
    server = Server(WRAPPINGS[wrapping], policy=Block(high_water=100_000))
    with serve_on_hypercorn(server.app, backend=backend, graceful=1) as url, closing(Client(url, streams)) as client:
        eventually(lambda: len(server.works) == streams and server.is_held(), 20)
        for work in server.works:
            assert (CHUNKS - work.unread) * len(CHUNK) < MOST_ON_THE_WAY
        client.read_all()

    assert client.content.count(b'"type":"stdout"') == streams * CHUNKS * 64
    assert client.content.count(b'"type":"exit","code":0') == streams


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_policy_that_drops_drops(backend: str) -> None:
    """What the client is too slow for is counted, and its memory given back."""
    server = Server(WRAPPINGS["mounted"], policy=Drop(high_water=100_000))
    with serve_on_hypercorn(server.app, backend=backend, graceful=1) as url, closing(Client(url)) as client:
        eventually(lambda: server.works and not server.works[0].unread)
        client.read_all()

    assert b'"type":"gap"' in client.content
    assert len(client.content) < MOST_ON_THE_WAY


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_client_that_leaves_a_closed_window_behind_is_noticed(backend: str) -> None:
    """Its run ends."""
    server = Server(WRAPPINGS["mounted"], policy=Block(high_water=100_000), grace=0)
    with serve_on_hypercorn(server.app, backend=backend, graceful=1) as url, closing(Client(url)) as client:
        eventually(server.is_held, 20)
        client.close()
        eventually(lambda: server.works[0].cancels)


@pytest.mark.anyio
@pytest.mark.virtual_time
@pytest.mark.parametrize(("extensions", "warnings"), [({"http.response.push": {}}, 1), ({}, 0)])
async def test_the_log_says_once_that_buffers_cannot_be_reached(
    extensions: dict[str, Any], warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Of hypercorn's HTTP/2 only."""
    with caplog.at_level(logging.WARNING, "sse_bridge"):
        async with site(finished("a"), finished("b")) as it:
            for _ in range(2):
                page = Page()
                page.scope.update(http_version="2", extensions=extensions)
                it.visit(page)
                await page.until(lambda page=page: page.ended)  # type: ignore[misc]

    assert caplog.text.count("HTTP/2 client") == warnings
