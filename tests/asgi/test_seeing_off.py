"""The last moments of a connection when the server stops: how long it is held, and when it is cut."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.asgi import hosting, stopping
from sse_bridge.upstream.base import Cancelled
from tests.support.asgi import Page
from tests.support.connections import connected
from tests.support.site import Scene, retry_of
from tests.support.work import ScriptedWork, stdout

pytestmark = pytest.mark.anyio


@pytest.fixture
def short(monkeypatch: Any) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", 0.05)
    monkeypatch.setattr(hosting, "NOTICE_CUT", 0.05)


class SlowToEnd(ScriptedWork):
    """Ends when the test lets it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.let_end = anyio.Event()

    async def cancel(self, timeout: float) -> Cancelled:
        await self.let_end.wait()
        return await super().cancel(timeout)


async def test_the_end_waits_until_the_work_is_gone(anyio_backend: str, short: None) -> None:
    """granian ends with its last response, and would leave the script behind."""
    work = SlowToEnd()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work)
            page = scene.visit()
            await page.until(lambda: page.content)
            tasks.start_soon(scene.bridge.shutdown)
            await page.until(lambda: b"server_stopped" in page.content)
            await wait_all_tasks_blocked()
            retry_of(page)
            await anyio.sleep(3 * stopping.PATIENCE)
            assert not page.ended
            work.let_end.set()
            await page.until(lambda: page.ended)


async def test_a_refusal_waits_for_that_as_well(anyio_backend: str) -> None:
    """What was asked for may have started although nobody has answered."""
    work = SlowToEnd(answers=False)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, work)
            page = scene.visit()
            await work.started.wait()
            tasks.start_soon(scene.bridge.shutdown)
            await wait_all_tasks_blocked()
            assert page.sent == []
            work.let_end.set()

    assert page.status == 503


async def test_who_does_not_take_the_end_is_cut_off(anyio_backend: str, short: None) -> None:
    """After a second, which is shorter here: the connection itself is shut down, and the server sees that."""
    with connected() as connection, anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, ScriptedWork())
            page = Page()
            page.scope.update(connection.scope)
            scene.visit(page)
            await page.until(lambda: page.content)
            page.stall()
            await scene.bridge.shutdown()
        assert not connection.is_open()
        assert not page.ended


async def test_who_was_given_the_end_but_does_not_read_is_cut_off(anyio_backend: str, short: None) -> None:
    """What the server holds for it would be waited for without end."""
    with connected() as connection, anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, ScriptedWork())
            page = Page()
            page.scope.update(connection.scope)
            scene.visit(page)
            await page.until(lambda: page.content)
            connection.fill()
            tasks.start_soon(scene.bridge.shutdown)
            await page.until(lambda: page.ended)
            await wait_all_tasks_blocked()
            assert connection.server.fileno() > 0
        with suppress(BlockingIOError):
            while connection.client.recv(2**20):
                pass
        assert connection.client.recv(1) == b""


async def test_who_reads_in_the_end_is_left_alone(anyio_backend: str, monkeypatch: Any) -> None:
    """Slow is not stalled."""
    monkeypatch.setattr(stopping, "PATIENCE", 0.5)
    with connected() as connection, anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            scene = Scene(tasks, ScriptedWork())
            page = Page()
            page.scope.update(connection.scope)
            scene.visit(page)
            await page.until(lambda: page.content)
            connection.fill()
            tasks.start_soon(scene.bridge.shutdown)
            await page.until(lambda: page.ended)
            connection.client.settimeout(0.05)
            with suppress(TimeoutError):
                while connection.client.recv(2**20):
                    pass
        assert connection.is_open()


async def test_a_stalled_viewer_is_cut_off_at_any_time(anyio_backend: str) -> None:
    """The server would keep the connection for as long as the client does."""
    with connected() as connection, anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            work = ScriptedWork()
            page = Page()
            page.scope.update(connection.scope)
            Scene(tasks, work, grace=0, send_timeout=0.05).visit(page)
            await page.until(lambda: page.content)
            page.stall()
            work.feed(stdout("a"))
        assert not connection.is_open()
