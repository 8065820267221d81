"""`Signal` wakes the tasks that wait at this moment; `Latch` stays open once it is set."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable

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


class Waiting:
    """Tasks that wait for a signal, and the memory of their waits."""

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.woken = 0
        self._waits: list[weakref.ref[object]] = []

    def _wait(self) -> Awaitable[None]:
        waiting = self.signal.wait()
        self._waits.append(weakref.ref(waiting))
        return waiting

    async def wait(self) -> None:
        await self._wait()
        self.woken += 1

    async def wait_cancelled(self) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await self._wait()

    @property
    def kept(self) -> int:
        """Waits that are still in memory."""
        gc.collect()
        return sum(wait() is not None for wait in self._waits)


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_cancelled_wait_leaves_the_others_alone(anyio_backend: str, before: int, after: int) -> None:
    """`notify` wakes the tasks that still wait, whenever they came; afterwards the signal keeps no wait in memory."""
    waiting = Waiting(Signal())
    async with anyio.create_task_group() as tasks:
        for _ in range(before):
            tasks.start_soon(waiting.wait)
        await wait_all_tasks_blocked()
        await waiting.wait_cancelled()
        for _ in range(after):
            tasks.start_soon(waiting.wait)
        await wait_all_tasks_blocked()
        waiting.signal.notify()

    assert waiting.woken == before + after
    assert waiting.kept == 0


@pytest.mark.parametrize("others", [0, 1, 2])
async def test_cancelled_waits_do_not_pile_up(anyio_backend: str, others: int) -> None:
    """Their memory is free by the next wait, whether other tasks wait or not."""
    waiting = Waiting(Signal())
    async with anyio.create_task_group() as tasks:
        for _ in range(others):
            tasks.start_soon(waiting.wait)
        await wait_all_tasks_blocked()
        for _ in range(100):
            await waiting.wait_cancelled()
        tasks.start_soon(waiting.wait)
        await wait_all_tasks_blocked()
        assert waiting.kept == others + 1
        waiting.signal.notify()


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
