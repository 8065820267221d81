"""`Signal`: wakes who waits now, remembers nothing."""

from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.relay.signal import Latch, Signal

pytestmark = pytest.mark.anyio


async def test_it_wakes_all_who_wait_and_nobody_who_comes_later(anyio_backend: str) -> None:
    """A wait that begins after the wake-up needs the next one."""
    signal, woken = Signal(), []

    async def wait(name: str) -> None:
        await signal.wait()
        woken.append(name)

    async with anyio.create_task_group() as tasks:
        signal.notify()
        tasks.start_soon(wait, "a")
        tasks.start_soon(wait, "b")
        await wait_all_tasks_blocked()
        assert woken == []

        signal.notify()
        tasks.start_soon(wait, "c")
        await wait_all_tasks_blocked()
        assert sorted(woken) == ["a", "b"]

        signal.notify()
        await wait_all_tasks_blocked()
        assert sorted(woken) == ["a", "b", "c"]


async def test_a_cancelled_wait_leaves_nothing_behind(anyio_backend: str) -> None:
    """The next one is woken as if nobody had waited before."""
    signal, woken = Signal(), []

    async def wait() -> None:
        await signal.wait()
        woken.append("")

    async with anyio.create_task_group() as tasks:
        for first in (False, True):  # while nobody else waits, and while somebody does
            for _ in range(100):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await signal.wait()
            assert len(signal._others or ()) <= 1
            if not first:
                tasks.start_soon(wait)
                await wait_all_tasks_blocked()
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        signal.notify()
    assert woken == ["", ""]


async def test_a_latch_lets_through_for_good_once_it_is_set(anyio_backend: str) -> None:
    """Those who wait, and those who come later."""
    latch, through = Latch(), []

    async def wait(name: str) -> None:
        await latch.wait()
        through.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, "a")
        tasks.start_soon(wait, "b")
        await wait_all_tasks_blocked()
        assert (through, latch.is_set) == ([], False)
        latch.set()
        latch.set()
        tasks.start_soon(wait, "c")

    assert sorted(through) == ["a", "b", "c"]
    assert latch.is_set
