"""Leaving a stream: its connection, task, generators and pool slot go at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import httpx
import pytest

from sse_bridge.errors import UpstreamLost
from sse_bridge.upstream import transport as transport_module
from sse_bridge.upstream.base import Stream
from sse_bridge.upstream.client import HTTPUpstream
from tests.support.upstreams import Handler, RawUpstream, Reader, open_connections, read_all, serve_raw
from tests.upstream.helpers import chatty, cut_off, mute, nothing_left_to_the_collector, opened, silent, two_chunks

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["ours", "httpx"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs each test with our own transport and with httpx's. On trio, both runs use httpx's."""
    if request.param == "httpx":
        monkeypatch.setattr(transport_module, "is_usable", lambda: False)


Leave = Callable[[RawUpstream, HTTPUpstream], Awaitable[None]]


async def leave_before_asking(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """Is cancelled before the request goes out."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with opened(upstream, client):
            raise AssertionError


async def leave_before_the_answer(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """Is cancelled while it waits for the head of the answer."""

    async def follow() -> None:
        async with opened(upstream, client):
            raise AssertionError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await upstream.until_asked()
        tasks.cancel_scope.cancel()


async def leave_while_waiting(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """Is cancelled while it waits for a chunk."""
    is_open = anyio.Event()

    async def follow() -> None:
        async with opened(upstream, client) as stream:
            is_open.set()
            await read_all(stream)
            raise AssertionError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await is_open.wait()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def leave_after_waiting_in_vain(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """Gives up the push, and then the stream."""
    async with opened(upstream, client) as stream:
        with anyio.move_on_after(0.01):
            await read_all(stream)


async def leave_while_chunks_arrive(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """Gives up the push between two chunks."""
    reader = Reader()
    async with opened(upstream, client) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(stream.push, reader.take, reader.room)
        await reader.began.wait()
        tasks.cancel_scope.cancel()


async def fail_at(number: int, stream: Stream) -> None:
    """Pushes until `take` raises an error at its n-th chunk."""
    calls = 0

    def take(chunk: bytes) -> bool:
        nonlocal calls
        calls += 1
        if calls == number:
            raise ZeroDivisionError
        return True

    await stream.push(take, Reader().room)


async def leave_with_an_error_of_the_first_take(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """`take` raises an error."""
    with pytest.raises(ZeroDivisionError):
        async with opened(upstream, client) as stream:
            await fail_at(1, stream)


async def leave_with_an_error_of_a_later_take(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """`take` raises an error in the callback that brings the chunk."""
    with pytest.raises(ZeroDivisionError):
        async with opened(upstream, client) as stream:
            await fail_at(3, stream)


async def leave_with_an_error_of_room(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """`room` raises an error."""

    async def no_room() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with opened(upstream, client) as stream:
            await stream.push(lambda chunk: False, no_room)


async def leave_while_there_is_no_room(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """Is cancelled while it waits for room."""
    with anyio.CancelScope() as scope:

        async def no_room() -> None:
            scope.cancel()
            await anyio.sleep_forever()

        async with opened(upstream, client) as stream:
            await stream.push(lambda chunk: False, no_room)


async def leave_at_once(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """Opens the stream, and leaves it."""
    async with opened(upstream, client):
        pass


async def leave_when_it_broke(upstream: RawUpstream, client: HTTPUpstream) -> None:
    """Reads up to the break."""
    async with opened(upstream, client) as stream:
        with pytest.raises(UpstreamLost):
            await read_all(stream)


LEAVINGS: list[tuple[Handler, Leave]] = [
    (mute, leave_before_the_answer),
    (silent, leave_while_waiting),
    (silent, leave_after_waiting_in_vain),
    (silent, leave_at_once),
    (chatty, leave_while_chunks_arrive),
    (chatty, leave_with_an_error_of_the_first_take),
    (chatty, leave_with_an_error_of_a_later_take),
    (chatty, leave_with_an_error_of_room),
    (chatty, leave_while_there_is_no_room),
    (chatty, leave_at_once),
    (cut_off, leave_at_once),
    (cut_off, leave_with_an_error_of_room),
    (cut_off, leave_when_it_broke),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "leave"),
    LEAVINGS,
    ids=[f"{handler.__name__}-{leave.__name__}" for handler, leave in LEAVINGS],
)
@pytest.mark.parametrize("whose", ["ours", "yours"])
async def test_leaving_closes_the_connection_wherever_it_happens(
    anyio_backend: str, whose: str, handler: Handler, leave: Leave
) -> None:
    """It happens before the garbage collector runs, with the shared client and with one of your own."""
    with serve_raw(handler) as upstream, nothing_left_to_the_collector():
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=False)) as mine:
            client = HTTPUpstream(mine if whose == "yours" else None)
            async with client.lease() as leased:
                tasks = {task.id for task in anyio.get_running_tasks()}
                await leave(upstream, client)
                assert {task.id for task in anyio.get_running_tasks()} <= tasks
                assert open_connections(leased) == 0
                await upstream.until_left()
                assert upstream.open_connections == 0
            assert client.leases == 0


async def test_leaving_before_the_request_sends_none(anyio_backend: str) -> None:
    """The client is closed again, too."""
    client = HTTPUpstream()
    with serve_raw(two_chunks) as upstream, nothing_left_to_the_collector():
        await leave_before_asking(upstream, client)
        assert client.leases == 0
    assert upstream.requests == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("handler", [mute, silent, chatty])
async def test_a_request_that_is_cancelled_twice_leaks_nothing(anyio_backend: str, handler: Handler) -> None:
    """Servers cancel the task of a request natively, while its child reads the stream, and perhaps again soon after."""
    client = HTTPUpstream()
    are_open: list[None] = []
    all_are_open = anyio.Event()

    async def request(upstream: RawUpstream) -> None:
        async def follow() -> None:
            async with opened(upstream, client) as stream:
                are_open.append(None)
                if len(are_open) == 8:
                    all_are_open.set()
                await read_all(stream)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)

    with serve_raw(handler) as upstream, nothing_left_to_the_collector():
        async with client.lease() as leased:
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
            assert open_connections(leased) == 0
        await upstream.until_left(8)
        assert upstream.open_connections == 0
