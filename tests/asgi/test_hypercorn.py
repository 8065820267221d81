"""`hypercorn`: reports the end of the task in which hypercorn waits for its stop, and that a client has left."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from hypercorn.asyncio.task_group import TaskGroup as AsyncioTaskGroup
from hypercorn.config import Config
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup as TrioTaskGroup
from hypercorn.utils import ShutdownError, raise_shutdown

from sse_bridge.asgi.hypercorn import knows_of_leaving, sending, watch
from sse_bridge.asgi.messages import Message

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_stop_is_reported_at_once(anyio_backend: str) -> None:
    """The sign is the end of the task that hypercorn's worker starts."""
    told, stop = anyio.Event(), anyio.Event()
    trigger = asyncio.create_task(raise_shutdown(stop.wait))
    watch(told.set, anyio.lowlevel.checkpoint)
    await wait_all_tasks_blocked()
    assert not told.is_set()
    stop.set()
    with anyio.fail_after(5):
        await told.wait()

    assert isinstance(trigger.exception(), ShutdownError)


async def test_the_end_of_another_task_is_ignored(anyio_backend: str) -> None:
    """While hypercorn runs, requests end all the time."""
    told, stop, end = anyio.Event(), anyio.Event(), anyio.Event()
    trigger = asyncio.create_task(raise_shutdown(stop.wait))
    request = asyncio.create_task(end.wait())
    watch(told.set, anyio.lowlevel.checkpoint)
    end.set()
    await request
    await wait_all_tasks_blocked()  # callbacks of a task that has ended run before this returns

    assert not told.is_set()
    trigger.cancel()
    await asyncio.wait([trigger])


@pytest.mark.parametrize("is_imported", [True, False])
async def test_other_servers_never_report(
    anyio_backend: str, is_imported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even in a process that has imported hypercorn."""
    if not is_imported:
        monkeypatch.delitem(sys.modules, "hypercorn.utils")
    told, end = anyio.Event(), anyio.Event()
    task = asyncio.create_task(end.wait())
    watch(told.set, anyio.lowlevel.checkpoint)
    end.set()
    await task
    await wait_all_tasks_blocked()

    assert not told.is_set()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_its_trio_worker_never_reports(anyio_backend: str) -> None:
    """The worker waits in the same function there, but only asyncio calls back at the end of a task."""
    told, stop = anyio.Event(), anyio.Event()

    async def wait_for_stop() -> None:
        with pytest.raises(ShutdownError):
            await raise_shutdown(stop.wait)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for_stop)
        await checkpoint()
        watch(told.set, anyio.lowlevel.checkpoint)
        stop.set()

    assert not told.is_set()


# -- a client that has left


def in_the_same_task(app: Any) -> Any:
    return app


def in_a_child_task(app: Any) -> Any:
    """As `BaseHTTPMiddleware` does, with a copy of the scope."""

    async def middleware(scope: Any, receive: Any, send: Any, *_: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, {**scope}, receive, send)

    return middleware


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("inside", [in_the_same_task, in_a_child_task])
async def test_its_send_fails_once_the_client_has_left(anyio_backend: str, inside: Any) -> None:
    """hypercorn's own discards what it is given, and ASGI asks for an `OSError`. Frameworks wrap it."""
    sent: list[object] = []
    ends: list[object] = []

    async def app(scope: Any, receive: Any, send: Any, *_: Any) -> None:
        async def wrapped(message: Message) -> None:
            await send(message)

        has_left = knows_of_leaving(scope)
        telling = sending(wrapped, has_left)
        await telling({"type": "http.response.start", "status": 200, "headers": []})
        ends.append(has_left())
        streams[scope["path"]].closed = True  # as `handle(StreamClosed(...))` does
        ends.append(has_left())
        with pytest.raises(OSError, match="left"):
            await telling({"type": "http.response.body", "body": b"a", "more_body": True})

    async def write(event: object) -> None:
        sent.append(event)

    nothing: Any = None
    streams = {path: HTTPStream(nothing, Config(), nothing, nothing, False, None, None, write, 1) for path in "abc"}
    group: Any = AsyncioTaskGroup(asyncio.get_running_loop()) if anyio_backend == "asyncio" else TrioTaskGroup()
    async with group as tasks:
        for path, stream in streams.items():  # each finds its own
            scope: Any = {"type": "http", "path": path, "state": {}}
            stream.scope = scope
            await tasks.spawn_app(inside(app), Config(), scope, stream.app_send)

    assert ends == [False, True] * 3
    assert len(sent) == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("scope", [{}, {"state": {}}, {"state": None}])
async def test_the_send_of_other_servers_stays_as_it_is(anyio_backend: str, scope: Any) -> None:
    """Even in a process that has imported hypercorn."""

    async def send(message: Message) -> None: ...

    has_left = knows_of_leaving(scope)
    assert not has_left()
    assert sending(send, has_left) is send
