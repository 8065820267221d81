"""`HTTPUpstream`: streams are opened once, read as they arrive, and closed whatever happens."""

from __future__ import annotations

import asyncio
import gc
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from sse_bridge.errors import UpstreamError, UpstreamLost, UpstreamMisbehaved, UpstreamRefused, UpstreamTimeout
from sse_bridge.upstream import client as client_module
from sse_bridge.upstream.client import HTTPUpstream, NotSent, ceil_seconds
from tests.support.upstreams import Connection, RawUpstream, dead_url, serve_raw

pytestmark = pytest.mark.anyio


def two_chunks(connection: Connection) -> None:
    connection.stream()
    connection.chunk(b"data: 1\n\n")
    connection.chunk(b"data: 2\n\n")
    connection.end()


def silent(connection: Connection) -> None:
    connection.stream()
    connection.wait_until_left()


def chatty(connection: Connection) -> None:
    connection.stream()
    while True:
        connection.chunk(b"data: 1\n\n" * 100)


def mute(connection: Connection) -> None:
    connection.wait_until_left()


@asynccontextmanager
async def opened(upstream: RawUpstream, client: HTTPUpstream | None = None) -> AsyncGenerator[Any]:
    async with (client or HTTPUpstream()).open("GET", upstream.url, headers={"X-Test": "1"}) as chunks:
        yield chunks


async def has_left(upstream: RawUpstream) -> None:
    """The upstream has seen the connection's end."""
    assert await anyio.to_thread.run_sync(lambda: upstream.left.acquire(timeout=5))


async def test_chunks_arrive_and_the_client_goes_with_the_last_request(anyio_backend: str) -> None:
    """No pool outlives what needs it; the next request makes a new client with the same TLS context."""
    client = HTTPUpstream()
    with serve_raw(two_chunks) as upstream:
        for _ in range(2):
            async with opened(upstream, client) as chunks:
                assert client._shared is not None
                assert b"".join([chunk async for chunk in chunks]) == b"data: 1\n\ndata: 2\n\n"
            assert client._shared is None
            await has_left(upstream)

    assert [request.headers["accept-encoding"] for request in upstream.requests] == ["identity"] * 2


async def test_requests_at_the_same_time_share_a_client(anyio_backend: str) -> None:
    """One pool, however many streams, and no limit on them."""
    client = HTTPUpstream()
    with serve_raw(silent) as upstream:
        async with opened(upstream, client):
            first = client._shared
            async with opened(upstream, client):
                assert client._shared is first
            assert client._shared is first
        assert client._shared is None


async def test_a_client_of_your_own_is_used_and_stays_open(anyio_backend: str) -> None:
    """It is yours to close."""
    with serve_raw(two_chunks) as upstream:
        async with httpx.AsyncClient(headers={"X-Mine": "yes"}) as mine:
            async with opened(upstream, HTTPUpstream(mine)) as chunks:
                assert [chunk async for chunk in chunks]
            assert not mine.is_closed
    assert upstream.requests[0].headers["x-mine"] == "yes"


@pytest.mark.parametrize(
    "content_type", ["text/event-stream", "Text/Event-Stream; charset=UTF-8", "text/event-stream ;x"]
)
async def test_what_an_event_stream_may_call_itself(anyio_backend: str, content_type: str) -> None:
    """Case and parameters do not matter."""

    def answer(connection: Connection) -> None:
        connection.answer(200, b"data: 1\n\n", content_type=content_type)

    with serve_raw(answer) as upstream:
        async with opened(upstream) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"data: 1\n\n"


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "text/event-stream-not", ""])
async def test_a_success_that_is_no_event_stream_is_an_error(anyio_backend: str, content_type: str) -> None:
    """A portal's page would otherwise be a stream without events."""

    def answer(connection: Connection) -> None:
        connection.answer(200, b"<html>", content_type=content_type)

    with serve_raw(answer) as upstream, pytest.raises(UpstreamMisbehaved):
        async with opened(upstream):
            pass


async def test_what_is_not_read_is_closed_although_others_need_the_client(anyio_backend: str) -> None:
    """A page that never ends would hold its connection for as long as anybody runs anything."""

    def endless_page(connection: Connection) -> None:
        connection.head(200, content_type="text/html")
        connection.wait_until_left()

    client = HTTPUpstream()
    with serve_raw(endless_page) as upstream:
        async with client._lease():
            with pytest.raises(UpstreamMisbehaved):
                async with opened(upstream, client):
                    pass
            await has_left(upstream)


async def test_a_refusal_is_read_and_bounded(anyio_backend: str, monkeypatch: Any) -> None:
    """Its body may be huge, or stop, or never end."""
    monkeypatch.setattr(client_module, "CLOSE_TIMEOUT", 0.2)

    def whole(connection: Connection) -> None:
        connection.answer(404, b'{"request_id":"req_1"}')

    def huge(connection: Connection) -> None:
        connection.head(404)
        while True:
            connection.send(b"x" * 65536)

    def never_ends(connection: Connection) -> None:
        connection.head(404, content_length="10")
        connection.wait_until_left()

    def stops(connection: Connection) -> None:
        connection.head(404, content_length="10")
        connection.send(b"{}")

    for handler, request_id in ((whole, "req_1"), (huge, None), (never_ends, None), (stops, None)):
        with serve_raw(handler) as upstream:
            with pytest.raises(UpstreamRefused) as caught:
                async with opened(upstream):
                    pass
            assert (caught.value.status, caught.value.request_id) == (404, request_id)
            await has_left(upstream)


async def test_a_redirect_is_not_followed(anyio_backend: str) -> None:
    """A key would go where nobody meant it to go."""

    def redirect(connection: Connection) -> None:
        connection.answer(307, b"", location="/elsewhere")

    with serve_raw(redirect) as upstream, pytest.raises(UpstreamRefused):
        async with opened(upstream):
            pass
    assert len(upstream.requests) == 1


async def test_no_cookie_of_one_run_reaches_another(anyio_backend: str) -> None:
    """They belong to different people."""

    def with_cookie(connection: Connection) -> None:
        connection.answer(200, b"data: 1\n\n", content_type="text/event-stream", set_cookie="a=1; Path=/")

    client = HTTPUpstream()
    with serve_raw(with_cookie) as upstream:
        async with opened(upstream, client), opened(upstream, client):
            pass
    assert ["cookie" in request.headers for request in upstream.requests] == [False, False]


async def test_nobody_there_is_certain_to_have_started_nothing(anyio_backend: str) -> None:
    """The request did not reach anybody."""
    with pytest.raises(NotSent) as caught:
        async with HTTPUpstream().open("GET", dead_url(), headers={}):
            pass
    assert caught.value.error.code == "upstream_unreachable"


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200"])
async def test_an_answer_that_breaks_may_have_started_something(anyio_backend: str, answer: bytes) -> None:
    """So it is an error of another kind, and nothing is sent again."""
    with serve_raw(lambda connection: connection.send(answer)) as upstream:
        with pytest.raises(UpstreamError) as caught:
            async with opened(upstream):
                pass
        assert caught.value.code == "upstream_unreachable"
    assert len(upstream.requests) == 1


async def test_an_upstream_that_does_not_answer_times_out(anyio_backend: str, monkeypatch: Any) -> None:
    """And its connection is closed."""
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT", 0.1)
    with serve_raw(mute) as upstream:
        with pytest.raises(UpstreamTimeout):
            async with opened(upstream):
                pass
        await has_left(upstream)


async def test_a_stream_may_be_silent_for_ever(anyio_backend: str) -> None:
    """There is no read timeout, and no wait for a slot in a pool."""
    with serve_raw(two_chunks) as upstream:
        client = HTTPUpstream()
        async with client._lease() as leased:
            request = client_module._request(leased, "GET", upstream.url, {}, None)

    timeout = request.extensions["timeout"]
    assert timeout["read"] is timeout["pool"] is None
    assert timeout["connect"] == client_module.CONNECT_TIMEOUT


@pytest.mark.parametrize("ending", [b"", b"5\r\nda", b"zz\r\n"])
async def test_a_stream_that_stops_is_lost_and_what_came_is_not(anyio_backend: str, ending: bytes) -> None:
    """A body that is not complete is no end."""

    def stops(connection: Connection) -> None:
        connection.stream()
        connection.chunk(b"data: 1\n\n")
        connection.send(ending)

    seen = b""
    with serve_raw(stops) as upstream:
        async with opened(upstream) as chunks:
            try:
                while True:
                    seen += await anext(chunks)
            except UpstreamLost:
                pass
    assert seen.startswith(b"data: 1\n\n")


async def test_a_compressed_stream_is_read_all_the_same(anyio_backend: str) -> None:
    """It was not asked for, but some proxies know better."""

    def deflated(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", content_encoding="deflate", connection="close")
        connection.send(zlib.compress(b"data: 1\n\n"))

    with serve_raw(deflated) as upstream:
        async with opened(upstream) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"data: 1\n\n"


async def leave_while_waiting(upstream: RawUpstream, client: HTTPUpstream) -> None:
    with anyio.move_on_after(0.1):
        async with opened(upstream, client) as chunks:
            async for _ in chunks:
                pass


async def leave_in_the_middle(upstream: RawUpstream, client: HTTPUpstream) -> None:
    async with opened(upstream, client) as chunks:
        async for _ in chunks:
            break


async def leave_with_an_error(upstream: RawUpstream, client: HTTPUpstream) -> None:
    try:
        async with opened(upstream, client) as chunks:
            await anext(chunks)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


async def leave_while_holding_a_chunk(upstream: RawUpstream, client: HTTPUpstream) -> None:
    with anyio.move_on_after(0.1):
        async with opened(upstream, client) as chunks:
            await anext(chunks)
            await anyio.sleep_forever()


async def leave_at_once(upstream: RawUpstream, client: HTTPUpstream) -> None:
    async with opened(upstream, client):
        pass


@pytest.mark.parametrize(
    ("handler", "leave"),
    [
        (mute, leave_while_waiting),
        (silent, leave_while_waiting),
        (silent, leave_at_once),
        (chatty, leave_in_the_middle),
        (chatty, leave_with_an_error),
        (chatty, leave_while_holding_a_chunk),
        (chatty, leave_at_once),
    ],
)
async def test_leaving_closes_the_connection_wherever_it_happens(anyio_backend: str, handler: Any, leave: Any) -> None:
    """At once, not when the garbage collector comes by; and no generator is left to it."""
    gc.collect()
    gc.disable()
    try:
        client = HTTPUpstream()
        with serve_raw(handler) as upstream:
            await leave(upstream, client)
            await has_left(upstream)
        assert client._shared is None
    finally:
        gc.enable()
        gc.collect()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("handler", [mute, silent, chatty])
async def test_a_request_that_is_cancelled_twice_leaks_nothing(anyio_backend: str, handler: Any) -> None:
    """As servers do it: natively, to the task whose child reads the stream."""
    client = HTTPUpstream()

    async def request(upstream: RawUpstream) -> None:
        async def read() -> None:
            async with opened(upstream, client) as chunks:
                async for _ in chunks:
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)

    with serve_raw(handler) as upstream:
        async with client._lease() as leased:
            tasks = [asyncio.create_task(request(upstream)) for _ in range(8)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            pool = leased._transport._pool  # type: ignore[attr-defined]
            assert not pool._requests
            assert not pool.connections
        for _ in range(8):
            await has_left(upstream)


def test_one_upstream_serves_one_event_loop_after_the_other() -> None:
    """A module-level bridge outlives the loops of tests and reloads, even where a loop just stopped."""
    client = HTTPUpstream()
    with serve_raw(two_chunks) as upstream:

        async def read() -> int:
            async with opened(upstream, client) as chunks:
                return len([chunk async for chunk in chunks])

        assert [anyio.run(read, backend=backend) > 0 for backend in ("asyncio", "trio", "asyncio")] == [True] * 3


async def test_proxies_of_the_environment_are_honoured(anyio_backend: str, monkeypatch: Any) -> None:
    """As httpx does it by itself."""
    with serve_raw(two_chunks) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with HTTPUpstream().open("GET", "http://sandbox.invalid/x", headers={}) as chunks:
            assert [chunk async for chunk in chunks]
    assert proxy.requests[0].path == "http://sandbox.invalid/x"


@pytest.mark.parametrize(("seconds", "whole"), [(0.001, 1), (1, 1), (1.01, 2), (600, 600)])
def test_seconds_are_rounded_up(seconds: float, whole: int) -> None:
    """Zero would mean none."""
    assert ceil_seconds(seconds) == whole
