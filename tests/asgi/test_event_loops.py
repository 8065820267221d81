"""Event loops that end, or cancel natively, while runs start and go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.requests import Request

from sse_bridge import SSEBridge
from sse_bridge.relay.viewer import HEARTBEAT
from tests.support.asgi import Page
from tests.support.work import ScriptedWork, finished


def run_with(backend: str, main: Callable[[], Awaitable[object]]) -> None:
    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 5, 50])
@pytest.mark.parametrize("how", ["start", "GET", "201"])
def test_an_event_loop_that_ends_ends_its_runs(backend: str, rounds: int, how: str) -> None:
    """Their work is ended, and the bridge serves the next event loop with all its room."""
    work = ScriptedWork()
    made: list[SSEBridge] = []

    async def resolve(request: Request) -> ScriptedWork:
        return work

    async def main() -> None:
        bridge = SSEBridge(None, resolve, max_runs=1)
        made.append(bridge)
        page = Page("GET" if how == "GET" else "POST", headers={"Prefer": "respond-async"})
        async with anyio.create_task_group() as tasks:
            if how == "start":
                tasks.start_soon(bridge.start, work)
            else:
                tasks.start_soon(bridge, page.scope, page.receive, page.send)
            for _ in range(rounds):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    async def again() -> None:
        run = await made[0].start(finished())
        assert (await run.wait()).exit_code == 0

    run_with(backend, main)
    assert work.cancels == work.started.is_set()
    assert work.closed.is_set() == work.started.is_set()
    run_with(backend, again)
    assert made[0].statistics().runs == ()


@pytest.mark.parametrize("rounds", [0, 1, 2, 10, 45])
@pytest.mark.parametrize("how", ["start", "201"])
def test_an_event_loop_that_ends_during_a_start_leaves_room_for_the_next(rounds: int, how: str) -> None:
    """`asyncio.run` cancels tasks even before their first step. The run stops counting then, too."""
    work = ScriptedWork()
    made: list[SSEBridge] = []
    left: list[object] = []

    async def resolve(request: Request) -> ScriptedWork:
        return work

    async def main() -> None:
        bridge, page = SSEBridge(None, resolve, max_runs=1), Page("POST", headers={"Prefer": "respond-async"})
        made.append(bridge)
        starting = bridge.start(work) if how == "start" else bridge(page.scope, page.receive, page.send)
        left.append(asyncio.ensure_future(starting))
        for _ in range(rounds):
            await asyncio.sleep(0)

    async def again() -> None:
        run = await made[0].start(finished())
        assert (await run.wait()).exit_code == 0

    asyncio.run(main())
    assert made[0].statistics().runs == ()
    assert work.cancels == work.started.is_set()
    asyncio.run(again())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_viewer_keeps_the_time_of_a_run_although_another_event_loop_had_its_turn(backend: str) -> None:
    """From then on the bridge has another clock, which has counted other standstills."""
    work = ScriptedWork()
    bridge = SSEBridge(resolve=lambda request: work, heartbeat=0.05)

    async def elsewhere() -> None:
        await (await bridge.start(finished())).wait()

    async def main() -> None:
        run = await bridge.start(work)
        await anyio.to_thread.run_sync(run_with, backend, elsewhere)
        bridge._host.here().clock._lost += 3600
        page = Page(path=f"/{run.token}")
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bridge, page.scope, page.receive, page.send)
                await page.until(lambda: page.content.endswith(HEARTBEAT * 2))
                work.finish()

    run_with(backend, main)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_starting_request_that_is_cancelled_natively_leaves_its_run_to_the_grace_period(times: int) -> None:
    """daphne does so after ten seconds, and `asyncio.wait_for` may do so while the first cancellation unwinds."""
    for rounds in range(60):
        work = ScriptedWork(answers=rounds % 2 == 0)

        async def resolve(request: Request, work: ScriptedWork = work) -> ScriptedWork:
            return work

        async def main(resolve: Any = resolve, rounds: int = rounds, work: ScriptedWork = work) -> None:
            bridge, page = SSEBridge(None, resolve, grace=0, keep=0), Page()
            request = asyncio.ensure_future(bridge(page.scope, page.receive, page.send))
            for _ in range(rounds):
                await asyncio.sleep(0)
            for _ in range(times):
                request.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await request
            with anyio.fail_after(5):
                while bridge.statistics().runs:  # noqa: ASYNC110 (statistics are polled)
                    await asyncio.sleep(0.001)
                await bridge.shutdown()
            assert work.cancels == work.started.is_set()

        asyncio.run(main())
