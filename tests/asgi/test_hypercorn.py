"""`hypercorn`: reports the end of the task in which hypercorn waits for its stop, and of that task only."""

from __future__ import annotations

import asyncio
import sys

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from hypercorn.utils import ShutdownError, raise_shutdown

from sse_bridge.asgi.hypercorn import watch

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_stop_is_reported_at_once(anyio_backend: str) -> None:
    """The sign is the end of the task that hypercorn's worker starts."""
    told, stop = anyio.Event(), anyio.Event()
    trigger = asyncio.create_task(raise_shutdown(stop.wait))
    watch(told.set)
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
    watch(told.set)
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
    watch(told.set)
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
        watch(told.set)
        stop.set()

    assert not told.is_set()
