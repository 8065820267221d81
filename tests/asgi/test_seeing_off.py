"""The last moments of a connection: how long it is held, and when it is cut."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from tests.support.asgi import Page
from tests.support.connections import Connection, connected
from tests.support.site import Site, site
from tests.support.work import ScriptedWork, SlowToEnd, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@asynccontextmanager
async def visit(work: ScriptedWork, **options: Any) -> AsyncGenerator[tuple[Site, Page, Connection]]:
    """A page on a real connection, once it has the head of its stream."""
    with connected() as connection:
        async with site(work, **options) as it:
            page = Page()
            page.scope.update(connection.scope)
            it.visit(page)
            await page.until(lambda: page.content)
            yield it, page, connection


async def test_a_viewer_that_stalls_is_cut_off() -> None:
    """The server would keep the connection until the client closes it."""
    work = ScriptedWork()
    async with visit(work, grace=0, send_timeout=5) as (_, page, connection):
        page.stall()
        work.feed(stdout("a"))
        await anyio.sleep(4)
        assert connection.is_open()
        await work.closed.wait()
        await wait_all_tasks_blocked()
        assert not connection.is_open()


async def test_a_viewer_that_leaves_is_not_cut_off() -> None:
    """Its connection is the server's: another request may be on it by now."""
    async with visit(ScriptedWork(), grace=0) as (it, page, connection):
        page.leave()
        await wait_all_tasks_blocked()
        await it.bridge.shutdown()
        assert connection.is_open()


async def test_a_viewer_that_does_not_take_its_end_is_cut_off() -> None:
    """It gets a second. Then its connection is shut down, and the server sees that."""
    async with visit(ScriptedWork()) as (it, page, connection):
        page.stall()
        it.tasks.start_soon(it.bridge.shutdown)
        await anyio.sleep(0.9)
        assert connection.is_open()
        await anyio.sleep(0.2)
        assert not connection.is_open()
        assert not page.ended


async def test_a_viewer_that_does_not_read_its_end_is_cut_off() -> None:
    """The server took the response, and would wait indefinitely for the client to read it."""
    async with visit(ScriptedWork()) as (it, page, connection):
        connection.fill()
        it.tasks.start_soon(it.bridge.shutdown)
        await page.until(lambda: page.ended)
        await anyio.sleep(0.8)
        with pytest.raises(BlockingIOError):  # full, but open
            connection.server.send(b"x")
        await anyio.sleep(0.3)
        with pytest.raises(BrokenPipeError):
            connection.server.send(b"x")


async def test_a_viewer_that_reads_slowly_is_left_alone() -> None:
    """It has read everything within the second."""
    async with visit(ScriptedWork()) as (it, page, connection):
        size = connection.fill()
        it.tasks.start_soon(it.bridge.shutdown)
        await page.until(lambda: page.ended)
        connection.read(size)
        await anyio.sleep(2)
        assert connection.is_open()


async def test_a_viewer_that_has_read_everything_is_not_waited_for() -> None:
    """Its request ends with its response."""
    async with visit(ScriptedWork()) as (it, page, connection):
        before = anyio.current_time()
        await it.bridge.shutdown()
        assert page.ended
        assert anyio.current_time() - before < 0.5
        assert connection.is_open()


async def test_a_run_that_exits_leaves_slow_readers_to_the_server() -> None:
    """The request ends with its response. Only a server that stops is in a hurry."""
    work = ScriptedWork()
    async with visit(work) as (it, page, connection):
        connection.fill()
        work.feed(exit_frame())
        work.finish()
        await page.until(lambda: page.ended)
        await wait_all_tasks_blocked()
        assert it.bridge.statistics().viewers == 0
        connection.fill()  # still open; the kernel may have made room meanwhile


async def test_the_connection_is_found_behind_a_proxy() -> None:
    """uvicorn names the proxy's client in the scope. Its transport knows the connection's own addresses."""

    class Behind(Page):
        transport: Any

    with connected() as connection:
        async with site(ScriptedWork()) as it:
            page = Behind()
            page.scope["client"] = ("203.0.113.9", 0)
            page.transport = SimpleNamespace(get_extra_info=addresses(connection).get)
            it.visit(page)
            await page.until(lambda: page.content)
            page.stall()
            await it.bridge.shutdown()
            assert not connection.is_open()


def addresses(connection: Connection) -> dict[str, Any]:
    """What a transport says about its connection."""
    return {"peername": connection.scope["client"], "sockname": connection.scope["server"]}


async def test_a_connection_is_cut_only_once_the_work_has_ended() -> None:
    """granian ends its process with its last connection, and would leave the script behind."""
    work = SlowToEnd()
    async with visit(work) as (it, page, connection):
        page.stall()
        it.tasks.start_soon(it.bridge.shutdown)
        await anyio.sleep(3)
        assert connection.is_open()
        work.let_end.set()
        await wait_all_tasks_blocked()
        assert not connection.is_open()


@pytest.mark.parametrize("sees", [False, True])
async def test_the_server_gets_a_moment_to_see_that_the_connection_is_cut(sees: bool) -> None:
    """Without it the server would log an incomplete response. Some servers stay silent, so the moment is bounded."""
    async with visit(ScriptedWork()) as (it, page, connection):
        page.stall()
        it.tasks.start_soon(it.bridge.shutdown)
        await anyio.sleep(1.05)
        assert not connection.is_open()
        assert it.bridge.statistics().viewers == 1
        if sees:
            page.leave()
            await wait_all_tasks_blocked()
        else:
            await anyio.sleep(0.3)
        assert it.bridge.statistics().viewers == 0
