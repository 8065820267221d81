"""`HTTPUpstream`: streams are opened once, read as they arrive, and closed whatever happens."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import logging
import sys
import threading
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream

from sse_bridge.errors import (
    UpstreamError,
    UpstreamLost,
    UpstreamMisbehaved,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from sse_bridge.upstream import client as client_module
from sse_bridge.upstream.client import HTTPUpstream, NotSent, ceil_seconds
from tests.support.upstreams import Connection, Handler, RawUpstream, dead_url, open_connections, serve_raw

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


def cut_off(connection: Connection) -> None:
    connection.stream()
    connection.chunk(b"data: 1\n\n")
    connection.send(b"5\r\nda")


@asynccontextmanager
async def opened(upstream: RawUpstream, client: HTTPUpstream | None = None) -> AsyncGenerator[Any]:
    async with (client or HTTPUpstream()).open("GET", upstream.url, headers={"X-Test": "1"}) as chunks:
        yield chunks


async def read(upstream: RawUpstream) -> bytes:
    async with opened(upstream) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.fixture(params=["ours", "httpx"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With our own transport and with httpx's. On trio that is the same."""
    if request.param == "httpx":
        monkeypatch.setattr(client_module, "_fast_transport", lambda context: None)
    return str(request.param)


async def test_chunks_arrive_and_the_client_goes_with_the_last_request(anyio_backend: str) -> None:
    """No pool outlives what needs it; the next request makes a new client with the same TLS context."""
    client = HTTPUpstream()
    with serve_raw(two_chunks) as upstream:
        for _ in range(2):
            async with opened(upstream, client) as chunks:
                assert client._shared is not None
                assert b"".join([chunk async for chunk in chunks]) == b"data: 1\n\ndata: 2\n\n"
            assert client._shared is None
            await upstream.until_left()

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


async def test_a_client_of_your_own_may_not_follow_redirects_or_cut_silence(anyio_backend: str) -> None:
    """Whatever it does elsewhere: a key stays where it is, and a script may think for an hour."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302, headers={"Location": "http://elsewhere.invalid/"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=True, timeout=0.5) as mine:
        with pytest.raises(UpstreamRefused):
            async with HTTPUpstream(mine).open("GET", "http://h.invalid/", headers={}):
                pass
    assert [request.extensions["timeout"]["read"] for request in seen] == [None]


@pytest.mark.parametrize("transport", ["httpx"], indirect=True)
async def test_a_stream_that_ended_leaves_its_connection_to_the_next(anyio_backend: str, transport: str) -> None:
    """As long as somebody needs the client; then it is closed. The fast transport uses no connection twice."""

    def stays(connection: Connection) -> None:
        connection.stream()
        connection.chunk(b"data: 1\n\n")
        connection.stay()

    client = HTTPUpstream()
    with serve_raw(stays) as upstream:
        async with client._lease():
            for _ in range(3):
                async with opened(upstream, client) as chunks:
                    assert b"".join([chunk async for chunk in chunks]) == b"data: 1\n\n"
            assert upstream.open_connections == 1
        await upstream.until_left()
    assert (len(upstream.requests), upstream.accepted) == (3, 1)


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
            await upstream.until_left()


async def test_a_refusal_is_read_and_bounded(anyio_backend: str, monkeypatch: Any) -> None:
    """Its body may be huge, or stop, or never end."""
    monkeypatch.setattr(client_module, "CLOSE_TIMEOUT", 0.1)

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
            await upstream.until_left()


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


async def test_a_handshake_that_fails_has_started_nothing(anyio_backend: str) -> None:
    """The request waits for it."""

    async def speak_no_tls(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 X\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, speak_no_tls)
        url = f"https://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/"
        with pytest.raises(NotSent) as caught:
            async with HTTPUpstream().open("GET", url, headers={}):
                pass
        tasks.cancel_scope.cancel()
    assert isinstance(caught.value.error, UpstreamUnreachable)


async def test_a_handshake_that_takes_too_long_has_started_nothing(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it hold a connection."""
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT", 0.1)
    with serve_raw(mute) as upstream:
        with pytest.raises(NotSent) as caught:
            async with HTTPUpstream().open("GET", upstream.url.replace("http:", "https:"), headers={}):
                pass
        await upstream.until_left()
    assert isinstance(caught.value.error, UpstreamTimeout)
    assert upstream.requests == []


async def test_who_leaves_during_the_handshake_leaves_nothing(anyio_backend: str) -> None:
    """The connection is not yet anybody's, and closed all the same."""
    client = HTTPUpstream()
    with serve_raw(mute) as upstream, nothing_left_to_the_collector():
        async with client._lease() as leased, anyio.create_task_group() as tasks:

            async def shake_hands() -> None:
                async with client.open("GET", upstream.url.replace("http:", "https:"), headers={}):
                    raise AssertionError

            tasks.start_soon(shake_hands)
            await upstream.until_reached()
            tasks.cancel_scope.cancel()
        await upstream.until_left()
        assert not open_connections(leased)


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
        await upstream.until_left()


async def test_a_short_call_waits_for_a_body_that_comes_late(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may send the head at once, and the body when the work is done: both have `timeout` seconds together."""
    monkeypatch.setattr(client_module, "CLOSE_TIMEOUT", 0.05)

    def slow(connection: Connection) -> None:
        connection.head(200, content_length="4")
        threading.Event().wait(0.15)
        connection.send(b"late")

    def endless(connection: Connection) -> None:
        connection.head(200, content_length="9")
        connection.send(b"part")
        connection.wait_until_left()

    for handler, timeout, body in ((slow, 5.0, b"late"), (endless, 0.1, b"part")):
        with serve_raw(handler) as upstream:
            assert await HTTPUpstream().call("GET", upstream.url, headers={}, json=None, timeout=timeout) == (200, body)
            await upstream.until_left()


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


async def test_a_body_that_is_shorter_than_it_said_is_lost(anyio_backend: str) -> None:
    """The end of the connection is no end of the stream."""

    def short(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", content_length="100")
        connection.send(b"data: 1\n\n")

    with serve_raw(short) as upstream, pytest.raises(UpstreamLost):
        await read(upstream)


async def test_a_body_without_a_length_ends_with_its_connection(anyio_backend: str) -> None:
    """HTTP/1.0 manners: that is an end like any other, and the iterator says so."""

    def closes(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", connection="close")
        connection.send(b"data: 1\n\n")

    with serve_raw(closes) as upstream:
        async with opened(upstream) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"data: 1\n\n"
            assert await anext(chunks, None) is None


async def test_a_compressed_stream_is_not_held_back(anyio_backend: str) -> None:
    """Each event is there when it was flushed, not when the stream ends."""

    def gzipped(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", content_encoding="gzip", transfer_encoding="chunked")
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb") as packer:
            packer.write(b"data: 1\n\n")
            packer.flush()
            connection.chunk(buffer.getvalue())
            connection.wait_until_left()

    seen = b""
    with serve_raw(gzipped) as upstream:
        async with opened(upstream) as chunks:
            with anyio.fail_after(5):
                while seen != b"data: 1\n\n":
                    seen += await anext(chunks)


async def test_bytes_that_cannot_be_unpacked_are_a_loss(anyio_backend: str) -> None:
    """What came out of them is unknown."""

    def garbage(connection: Connection) -> None:
        connection.answer(200, b"no gzip at all", content_type="text/event-stream", content_encoding="gzip")

    with serve_raw(garbage) as upstream, nothing_left_to_the_collector(), pytest.raises(UpstreamLost):
        await read(upstream)


async def test_a_stream_packed_in_an_unknown_way_is_no_event_stream(anyio_backend: str) -> None:
    """Its bytes would be taken for frames."""

    def brotli(connection: Connection) -> None:
        connection.answer(200, b"\x8b\x03", content_type="text/event-stream", content_encoding="br")

    with serve_raw(brotli) as upstream, pytest.raises(UpstreamMisbehaved):
        await read(upstream)


async def test_what_is_unpacked_comes_in_parts(anyio_backend: str) -> None:
    """Memory stays bounded: zlib makes 16 MB of 16 KB. And gzip files may follow one another."""
    text = b"data: 0\n\n" + b":" * 2**24

    def bomb(connection: Connection) -> None:
        packed = gzip.compress(text) + gzip.compress(b"data: 1\n\n")
        connection.answer(200, packed, content_type="text/event-stream", content_encoding="gzip")

    with serve_raw(bomb) as upstream:
        async with opened(upstream) as chunks:
            parts = [chunk async for chunk in chunks]
    assert b"".join(parts) == text + b"data: 1\n\n"
    assert max(map(len, parts)) == 65536


async def test_a_compressed_stream_is_read_all_the_same(anyio_backend: str) -> None:
    """It was not asked for, but some proxies know better."""

    def deflated(connection: Connection) -> None:
        connection.head(200, content_type="text/event-stream", content_encoding="deflate", connection="close")
        connection.send(zlib.compress(b"data: 1\n\n"))

    with serve_raw(deflated) as upstream:
        async with opened(upstream) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"data: 1\n\n"


Leave = Callable[[RawUpstream, HTTPUpstream], Awaitable[None]]


async def leave_before_asking(upstream: RawUpstream, client: HTTPUpstream) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with opened(upstream, client):
            raise AssertionError


async def leave_before_the_answer(upstream: RawUpstream, client: HTTPUpstream) -> None:
    async def read() -> None:
        async with opened(upstream, client):
            raise AssertionError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await upstream.until_asked()
        tasks.cancel_scope.cancel()


async def leave_while_waiting(upstream: RawUpstream, client: HTTPUpstream) -> None:
    is_open = anyio.Event()

    async def read() -> None:
        async with opened(upstream, client) as chunks:
            is_open.set()
            await anext(chunks)
            raise AssertionError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await is_open.wait()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def leave_after_waiting_in_vain(upstream: RawUpstream, client: HTTPUpstream) -> None:
    async with opened(upstream, client) as chunks:
        with anyio.move_on_after(0.01):
            await anext(chunks)


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
    with anyio.CancelScope() as scope:
        async with opened(upstream, client) as chunks:
            await anext(chunks)
            scope.cancel()
            await anyio.sleep_forever()


async def leave_at_once(upstream: RawUpstream, client: HTTPUpstream) -> None:
    async with opened(upstream, client):
        pass


async def leave_when_it_broke(upstream: RawUpstream, client: HTTPUpstream) -> None:
    async with opened(upstream, client) as chunks:
        with pytest.raises(UpstreamLost):
            async for _ in chunks:
                pass


LEAVINGS: list[tuple[Handler, Leave]] = [
    (mute, leave_before_the_answer),
    (silent, leave_while_waiting),
    (silent, leave_after_waiting_in_vain),
    (silent, leave_at_once),
    (chatty, leave_in_the_middle),
    (chatty, leave_with_an_error),
    (chatty, leave_while_holding_a_chunk),
    (chatty, leave_at_once),
    (cut_off, leave_at_once),
    (cut_off, leave_in_the_middle),
    (cut_off, leave_when_it_broke),
]


@contextmanager
def nothing_left_to_the_collector() -> Iterator[None]:
    """No generator is finished by the garbage collector: trio complains about that, asyncio starts a task for it."""
    hooks = sys.get_asyncgen_hooks()
    abandoned: list[str] = []

    def finalizer(generator: AsyncGenerator[Any, Any]) -> None:
        abandoned.append(repr(generator))
        if hooks.finalizer is not None:
            hooks.finalizer(generator)

    gc.collect()
    gc.freeze()  # what is there already is not looked through a second time
    gc.disable()
    sys.set_asyncgen_hooks(hooks.firstiter, finalizer)
    try:
        yield
        before = len(abandoned)  # those whose last reference is gone
        gc.collect()  # those that hold themselves, too
        assert (before, abandoned) == (0, [])
    finally:
        sys.set_asyncgen_hooks(*hooks)
        gc.enable()
        gc.unfreeze()


@pytest.mark.parametrize(
    ("handler", "leave"),
    LEAVINGS,
    ids=[f"{handler.__name__}-{leave.__name__}" for handler, leave in LEAVINGS],
)
@pytest.mark.parametrize("whose", ["ours", "yours"])
async def test_leaving_closes_the_connection_wherever_it_happens(
    anyio_backend: str, whose: str, handler: Handler, leave: Leave
) -> None:
    """At once, not when the garbage collector comes by; and no slot, generator or task is left, whose client it is."""
    with serve_raw(handler) as upstream, nothing_left_to_the_collector():
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=False)) as mine:
            client = HTTPUpstream(mine if whose == "yours" else None)
            async with client._lease() as leased:
                tasks = {task.id for task in anyio.get_running_tasks()}
                await leave(upstream, client)
                assert {task.id for task in anyio.get_running_tasks()} <= tasks
                assert not open_connections(leased)
                await upstream.until_left()
                assert upstream.open_connections == 0
            assert client._shared is None


async def test_who_is_gone_before_asking_asks_nothing(anyio_backend: str) -> None:
    """And leaves nothing behind."""
    client = HTTPUpstream()
    with serve_raw(two_chunks) as upstream, nothing_left_to_the_collector():
        await leave_before_asking(upstream, client)
        assert client._shared is None
    assert upstream.requests == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("handler", [mute, silent, chatty])
async def test_a_request_that_is_cancelled_twice_leaks_nothing(anyio_backend: str, handler: Handler) -> None:
    """As servers do it: natively, to the task whose child reads the stream, and with any time in between."""
    client = HTTPUpstream()
    are_open: list[None] = []
    all_are_open = anyio.Event()

    async def request(upstream: RawUpstream) -> None:
        async def read() -> None:
            async with opened(upstream, client) as chunks:
                are_open.append(None)
                if len(are_open) == 8:
                    all_are_open.set()
                async for _ in chunks:
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)

    with serve_raw(handler) as upstream, nothing_left_to_the_collector():
        async with client._lease() as leased:
            before = asyncio.all_tasks()
            tasks = [asyncio.create_task(request(upstream)) for _ in range(8)]
            await upstream.until_asked(8)
            if handler is not mute:
                await all_are_open.wait()
            for task in tasks:
                task.cancel()
            for pause, task in enumerate(tasks):
                for _ in range(pause):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait(tasks)
            assert asyncio.all_tasks() == before
            assert not open_connections(leased)
        await upstream.until_left(8)
        assert upstream.open_connections == 0


def test_one_upstream_serves_one_event_loop_after_the_other() -> None:
    """A module-level bridge outlives the loops of tests and reloads, even where a loop just stopped."""
    client = HTTPUpstream()
    with serve_raw(two_chunks) as upstream:

        async def read() -> int:
            async with opened(upstream, client) as chunks:
                return len([chunk async for chunk in chunks])

        assert [anyio.run(read, backend=backend) > 0 for backend in ("asyncio", "trio", "asyncio")] == [True] * 3


async def test_no_log_tells_a_key_or_where_it_goes(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """httpx writes a line for each request; tickets stand in URLs."""
    caplog.set_level(logging.DEBUG)
    with serve_raw(two_chunks) as upstream:
        headers = {"Authorization": "Bearer secret-key"}
        async with HTTPUpstream().open(
            "GET", upstream.url + "/s/sbx_1?ticket=secret-ticket", headers=headers
        ) as chunks:
            assert [chunk async for chunk in chunks]
    assert upstream.requests[0].path == "/s/sbx_1?ticket=secret-ticket"
    assert "http://upstream/" in caplog.text
    assert "secret" not in caplog.text
    assert "sbx_1" not in caplog.text


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
