"""The states of a sandbox, and waiting for it: `sse_bridge.sandbox.life`. On asyncio and on trio."""

from __future__ import annotations

import anyio
import pytest

from sse_bridge.sandbox.errors import ApiError
from sse_bridge.sandbox.life import Life, State

pytestmark = pytest.mark.anyio

RESTING: tuple[State, ...] = ("paused", "stopped", "pausing")


async def refusal(life: Life, wait: float = 0) -> ApiError:
    with pytest.raises(ApiError) as refused:
        await life.admit(wait, "SANDBOX_STARTING")
    return refused.value


async def test_a_starting_sandbox_refuses_until_it_is_ready() -> None:
    """With the caller's code and the time to wait; a command that waits is let in."""
    life = Life(0.05)
    error = await refusal(life)

    assert (error.code, error.retryable, life.state) == ("SANDBOX_STARTING", True, "running")
    assert 0 < (error.retry_after_ms or 0) <= 50
    await life.admit(5, "SANDBOX_STARTING")
    assert life.is_ready


@pytest.mark.parametrize("state", RESTING)
async def test_a_resting_sandbox_refuses_at_once(state: State) -> None:
    """Also a command that would wait for a start: a resume may never come."""
    life = Life(0)
    life.enter(state)
    with anyio.fail_after(5):
        error = await refusal(life, wait=1000)

    assert (error.status, error.code, error.retryable) == (409, "SANDBOX_NOT_RUNNING", False)
    assert (life.is_ready, life.readiness()["status"]) == (False, state)


@pytest.mark.parametrize("state", RESTING)
async def test_a_wait_for_readiness_sees_a_resume(state: State) -> None:
    """And a timeout before it."""
    life = Life(0)
    life.enter(state)
    seen: list[bool] = []

    async def wait() -> None:
        seen.append(await life.wait_until_ready(1000))

    assert not await life.wait_until_ready(0.01)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert seen == []
        life.enter("running")
    assert seen == [True]


async def test_a_pause_interrupts_the_wait_for_a_start() -> None:
    """The time of the start passes meanwhile without making it ready."""
    life = Life(0.02)
    life.enter("paused")

    assert not await life.wait_until_ready(0.1)
    life.enter("running")
    assert await life.wait_until_ready(0)


async def test_destruction_ends_the_wait_and_is_final() -> None:
    """What a stop says after it has begun changes nothing."""
    life = Life(1000)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(life.wait_until_ready, 2000)
        await anyio.wait_all_tasks_blocked()
        life.enter("destroying")
    life.enter("stopped")

    assert (life.state, life.is_closing, life.destroyed) == ("destroying", True, None)
    life.enter("destroyed")
    life.enter("destroying")
    assert life.state == "destroyed"
    assert life.destroyed is not None
    assert (await refusal(life)).message == "the sandbox is destroyed"
