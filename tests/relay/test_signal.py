"""`Signal` wakes the tasks that wait at this moment; `Latch` stays open once it is set."""

from __future__ import annotations

import gc
import weakref

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.relay.signal import Latch, Signal

pytestmark = pytest.mark.anyio


async def test_it_wakes_every_waiting_task_and_only_those(anyio_backend: str) -> None:
    """A wait that begins after the wake-up needs the next one."""
    signal, woken = Signal(), list[str]()

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


@pytest.mark.parametrize("others", [0, 1, 2])
async def test_a_cancelled_wait_is_forgotten(anyio_backend: str, others: int) -> None:
    """Its memory is free by the next wait, and `notify` wakes the tasks that still wait."""
    signal, woken = Signal(), list[str]()
    cancelled: list[weakref.ref[object]] = []

    async def wait() -> None:
        await signal.wait()
        woken.append("")

    async with anyio.create_task_group() as tasks:
        for _ in range(others):
            tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        for _ in range(100):
            with anyio.CancelScope() as scope:
                scope.cancel()
                waiting = signal.wait()
                cancelled.append(weakref.ref(waiting))
                await waiting
        del waiting
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        gc.collect()
        assert [ref for ref in cancelled if ref() is not None] == []
        signal.notify()
    assert len(woken) == others + 1


async def test_a_latch_stays_open_once_it_is_set(anyio_backend: str) -> None:
    """For the tasks that wait, and for those that come later."""
    latch, through = Latch(), list[str]()

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
