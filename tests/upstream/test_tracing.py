"""Whether a request had an effect, and whether its connection is kept alive: at every step, through every transport."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest

from sse_bridge.errors import (
    UpstreamError,
    UpstreamLost,
    UpstreamMisbehaved,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from sse_bridge.upstream import client as client_module
from sse_bridge.upstream import transport as transport_module
from sse_bridge.upstream.client import HTTPUpstream
from tests.support.upstreams import Connection, Handler, RawUpstream, dead_url, read_all, serve_raw
from tests.upstream.helpers import cut_off, mute, silent
from tests.upstream.raw import connections_to

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["ours", "httpx", "yours"])
async def client(
    anyio_backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Callable[[], HTTPUpstream]]:
    """Makes an upstream with our own transport, with httpx's, or with a client of the application's own."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    if request.param != "ours":
        monkeypatch.setattr(transport_module, "is_usable", lambda: False)
    async with AsyncExitStack() as closing:

        def make() -> HTTPUpstream:
            mine = httpx.AsyncClient() if request.param == "yours" else None
            if mine is not None:
                closing.push_async_callback(mine.aclose)
            return HTTPUpstream(mine)

        yield make


# -- whether a request had an effect


def unanswered(connection: Connection) -> None:
    """Closes without an answer."""


def garbage(connection: Connection) -> None:
    connection.send(b"garbage\r\n\r\n")


def half_a_head(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-")


def another_protocol(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")


def no_event_stream(connection: Connection) -> None:
    connection.answer(200, b"{}", content_type="application/json")


def an_odd_compression(connection: Connection) -> None:
    connection.answer(200, b"", content_type="text/event-stream", content_encoding="br")


def answering(status: int, **headers: str) -> Handler:
    return lambda connection: connection.answer(status, b"{}", **headers)


ANSWERS: dict[str, tuple[Handler, type[UpstreamError], bool]] = {
    "closed": (unanswered, UpstreamUnreachable, False),
    "garbage": (garbage, UpstreamUnreachable, False),
    "half a head": (half_a_head, UpstreamUnreachable, False),
    "101": (another_protocol, UpstreamUnreachable, False),
    "no answer": (mute, UpstreamTimeout, False),
    "no event stream": (no_event_stream, UpstreamMisbehaved, False),
    "an odd compression": (an_odd_compression, UpstreamMisbehaved, False),
    "broken off": (cut_off, UpstreamLost, False),
    **{
        str(status): (answering(status), UpstreamRefused, True)
        for status in (400, 401, 402, 403, 404, 405, 406, 409, 410, 413, 415, 421, 422, 429)
    },
    **{
        str(status): (answering(status), UpstreamRefused, False)
        for status in (201, 202, 204, 302, 303, 307, 408, 418, 424, 460, 499, 500, 502, 503, 504, 529)
    },
    "503, busy": (answering(503, retry_after="1"), UpstreamRefused, False),
    "529, busy": (answering(529, retry_after="1"), UpstreamRefused, False),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_error_says_whether_the_request_had_an_effect(
    anyio_backend: str, client: Callable[[], HTTPUpstream], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a refusal that proves it says no. Of a run that may have had an effect, the request is never repeated."""
    handler, kind, started_nothing = ANSWERS[name]
    if handler is mute:
        monkeypatch.setattr(client_module, "ANSWER_TIMEOUT", 1.0)
    with serve_raw(handler) as upstream, pytest.raises(UpstreamError) as caught:
        async with client().open("POST", upstream.url, headers={}, body=b"{}") as stream:
            await read_all(stream)
    assert isinstance(caught.value, kind)
    assert caught.value.started_nothing == started_nothing
    assert len(upstream.requests) == 1


def refuses_to_connect(connection: Connection) -> None:
    assert connection.request.method == "CONNECT"
    connection.answer(403, b"No.")


def wants_a_password(connection: Connection) -> None:
    connection.answer(407, b"", proxy_authenticate="Basic")


def speaks_no_tls(connection: Connection) -> None:
    """Opens the tunnel, and answers the handshake in plain text."""
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def stops_in_the_handshake(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.wait_until_left()


TUNNELS: dict[str, tuple[Handler, type[UpstreamError]]] = {
    "refused": (refuses_to_connect, UpstreamUnreachable),
    "with a password": (wants_a_password, UpstreamUnreachable),
    "closed": (unanswered, UpstreamUnreachable),
    "garbage": (garbage, UpstreamUnreachable),
    "without TLS": (speaks_no_tls, UpstreamUnreachable),
    "silent": (mute, UpstreamTimeout),
    "silent in the handshake": (stops_in_the_handshake, UpstreamTimeout),
}


@pytest.mark.parametrize("name", TUNNELS)
async def test_a_tunnel_that_fails_has_started_nothing(
    anyio_backend: str, client: Callable[[], HTTPUpstream], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind of fault: what fails before the request goes out was told from the kind of the exception alone.

    A proxy's refusal and silence look like the upstream's own, yet the upstream has heard of nothing.
    """
    handler, kind = TUNNELS[name]
    if kind is UpstreamTimeout:
        monkeypatch.setattr(client_module, "ANSWER_TIMEOUT", 0.3)
    with serve_raw(handler) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(UpstreamError) as caught:
            async with client().open("POST", "https://sandbox.invalid/", headers={}, body=b"{}"):
                pass
    assert (type(caught.value), caught.value.started_nothing) == (kind, True)


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/", "https://no-such-host.invalid/", "closed"])
async def test_an_upstream_that_is_not_there_has_started_nothing(
    anyio_backend: str, client: Callable[[], HTTPUpstream], url: str
) -> None:
    """Neither a name nor a port leads to it."""
    with pytest.raises(UpstreamUnreachable) as caught:
        async with client().open("POST", dead_url() if url == "closed" else url, headers={}, body=b"{}"):
            pass
    assert caught.value.started_nothing


async def test_a_short_call_that_is_over_before_it_connects_has_started_nothing(
    anyio_backend: str, client: Callable[[], HTTPUpstream]
) -> None:
    """Its own time may be shorter than that for a handshake."""
    with serve_raw(mute) as upstream:
        url = upstream.url.replace("http:", "https:")
        with pytest.raises(UpstreamTimeout) as caught:
            await client().ask("POST", url, headers={}, json={}, timeout=0.2)
    assert caught.value.started_nothing


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio complains about a generator of httpx's that breaks, too
async def test_a_request_that_breaks_on_its_way_may_have_had_an_effect(
    anyio_backend: str, client: Callable[[], HTTPUpstream]
) -> None:
    """How much of it arrived is unknown."""

    async def resets(stream: Any) -> None:
        await stream.receive(100)
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, resets)
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/"
        with pytest.raises(UpstreamUnreachable) as caught:
            async with client().open("POST", url, headers={}, body=b'"' + b"x" * 2**24 + b'"'):
                pass
        tasks.cancel_scope.cancel()
    assert not caught.value.started_nothing


@pytest.mark.parametrize(
    ("raised", "kind", "started_nothing"),
    [
        (httpx.ConnectError, UpstreamUnreachable, True),
        (httpx.ConnectTimeout, UpstreamTimeout, True),
        (httpx.PoolTimeout, UpstreamTimeout, True),
        (httpx.UnsupportedProtocol, UpstreamUnreachable, True),
        (httpx.WriteTimeout, UpstreamTimeout, False),
        (httpx.ReadTimeout, UpstreamTimeout, False),
        (httpx.WriteError, UpstreamUnreachable, False),
        (httpx.ReadError, UpstreamUnreachable, False),
        (httpx.ProxyError, UpstreamUnreachable, False),
        (httpx.RemoteProtocolError, UpstreamUnreachable, False),
    ],
)
async def test_a_transport_that_reports_no_steps_is_judged_by_what_it_raises(
    anyio_backend: str, raised: type[httpx.HTTPError], kind: type[UpstreamError], started_nothing: bool
) -> None:
    """A client of the application's own may have any. What took too long is a timeout, wherever it did."""

    def fails(request: httpx.Request) -> httpx.Response:
        raise raised("It failed.")

    async with httpx.AsyncClient(transport=httpx.MockTransport(fails)) as mine:
        with pytest.raises(UpstreamError) as caught:
            async with HTTPUpstream(mine).open("POST", "http://h.invalid/", headers={}):
                pass
    assert (type(caught.value), caught.value.started_nothing) == (kind, started_nothing)


# -- whether a connection is kept alive


@contextmanager
def connection_to(server: RawUpstream) -> Iterator[socket.socket]:
    """This process's only connection to the server."""
    (fd,) = connections_to(server.url)
    with socket.socket(fileno=os.dup(fd)) as same:
        yield same


def keep_alive_of(server: RawUpstream) -> tuple[bool, int, int, int]:
    """Whether the connection is probed; after how many seconds of silence, how often, and how many times."""
    with connection_to(server) as connection:
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        first, then, times = (connection.getsockopt(socket.IPPROTO_TCP, name) for name in names)
        return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)), first, then, times


@pytest.mark.parametrize("variable", [None, "http_proxy", "all_proxy"])
async def test_every_connection_is_kept_alive(
    anyio_backend: str,
    client: Callable[[], HTTPUpstream],
    variable: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kind of fault: a stream whose peer is gone was followed without end, unless it had no proxy.

    httpcore hands socket options to direct connections only.
    """
    with serve_raw(silent) as server:
        if variable:
            monkeypatch.setenv(variable, server.url)
        url = "http://sandbox.invalid/" if variable else server.url
        async with client().open("GET", url, headers={}):
            assert keep_alive_of(server) == (True, 60, 15, 4)


@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy"])
async def test_a_tunnel_is_kept_alive(
    anyio_backend: str, client: Callable[[], HTTPUpstream], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the moment when the proxy is asked for it."""

    async def follow() -> None:
        async with client().open("GET", "https://sandbox.invalid/", headers={}):
            raise AssertionError

    with serve_raw(mute) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await proxy.until_asked()
            assert keep_alive_of(proxy) == (True, 60, 15, 4)
            tasks.cancel_scope.cancel()


async def test_a_connection_that_is_kept_alive_already_stays_as_it_is(anyio_backend: str) -> None:
    """The client's owner knows the network."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7)]
    with serve_raw(silent) as server:
        mine = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(socket_options=options))
        async with mine, HTTPUpstream(mine).open("GET", server.url, headers={}):
            assert keep_alive_of(server)[:2] == (True, 7)
