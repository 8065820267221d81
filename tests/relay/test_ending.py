"""`Ending`: work is ended in spite of cancellation, within bounds, and its end is claimed only when it was seen."""

from __future__ import annotations

import asyncio
import logging

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.relay.clock import Clock
from sse_bridge.relay.ending import Cause, Ending
from sse_bridge.relay.statistics import CancelStatistics, Totals
from sse_bridge.upstream.base import Cancelled
from tests.support.scene import Scene, scene
from tests.support.work import ScriptedWork

pytestmark = pytest.mark.anyio


async def test_work_is_counted_by_how_far_its_ending_got(anyio_backend: str) -> None:
    """Only work that was seen to be gone counts as confirmed."""
    async with scene(ScriptedWork(outcome=Cancelled.ACKNOWLEDGED)) as it:
        assert it.run.cancelled is None
        it.audience.leave(it.viewer)

    assert it.totals.snapshot(()).cancels == CancelStatistics(requested=0, acknowledged=1, confirmed=0)


@pytest.mark.parametrize("outcome", [Cancelled.REQUESTED, Cancelled.ACKNOWLEDGED])
async def test_work_that_was_not_seen_to_end_is_reported(
    anyio_backend: str, outcome: Cancelled, caplog: pytest.LogCaptureFixture
) -> None:
    """Anything less than seen gone is a warning, with the run's short name and how far it got."""
    totals = Totals()
    ending = Ending(ScriptedWork(outcome=outcome), 1.0, "tokent", totals, Clock())

    await ending.end()

    assert ending.outcome is outcome
    assert caplog.record_tuples == [
        (
            "sse_bridge",
            logging.WARNING,
            f"run tokent...: its work was not seen to end ({outcome.value}); it may run on",
        )
    ]


async def test_work_that_was_seen_to_end_is_not_reported(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """Success is silent."""
    await Ending(ScriptedWork(), 1.0, "tokent", Totals(), Clock()).end()

    assert caplog.messages == []


@pytest.mark.virtual_time
async def test_work_that_overruns_its_timeout_is_left(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """A `Work` that does not keep to its time can hold up neither a caller nor a stop.

    The fault: it got a second more than `cancel_timeout` promises.
    """
    ending = Ending(ScriptedWork(outcome="hangs"), 5.0, "tokent", Totals(), Clock())
    started = anyio.current_time()

    await ending.end()

    assert anyio.current_time() - started == pytest.approx(5.0)
    assert ending.outcome is Cancelled.REQUESTED
    assert "not seen to end" in caplog.text


@pytest.mark.virtual_time
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_asking_again_does_not_prolong_the_time(anyio_backend: str) -> None:
    """Both calls share it: the second is given what the first has left."""
    given = []

    class Hanging(ScriptedWork):
        async def cancel(self, timeout: float) -> Cancelled:
            given.append(timeout)
            return await super().cancel(timeout)

    started = anyio.current_time()
    task = asyncio.create_task(Ending(Hanging(outcome="hangs"), 5.0, "tokent", Totals(), Clock()).end())
    await anyio.sleep(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert given == pytest.approx([5.0, 2.0])
    assert anyio.current_time() - started == pytest.approx(5.0)


async def test_work_that_knows_its_place_is_logged_with_it(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Other works have no such method, and are reported without."""

    class Placed(ScriptedWork):
        mark = "job 7"

        def trace(self) -> str:
            return "host h, job 7"

    await Ending(Placed(outcome=Cancelled.REQUESTED), 1.0, "tokent", Totals(), Clock()).end()

    assert caplog.messages == ["run tokent...: its work was not seen to end (requested); it may run on: host h, job 7"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_through_its_shield_asks_again(anyio_backend: str) -> None:
    """`asyncio.run` cancels every task when it ends, and waits for them: the work is ended all the same."""

    class Slow(ScriptedWork):
        async def cancel(self, timeout: float) -> Cancelled:
            self.cancels += 1
            if self.cancels == 1:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
            await anyio.lowlevel.checkpoint()
            return Cancelled.CONFIRMED

    it = Scene(work := Slow())
    task = asyncio.create_task(it.run.read())
    await wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert work.cancels == 2
    assert it.run.cancelled is Cancelled.CONFIRMED


@pytest.mark.parametrize("is_early", [False, True])
async def test_letting_go_does_not_wait_for_the_work(
    anyio_backend: str, is_early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Before its ending has begun and after; the log says that the work may run on."""
    async with scene(ScriptedWork(outcome="hangs"), cancel_timeout=1000.0) as it:
        if is_early:
            it.run.let_go()
        it.run.cancel(Cause.SERVER_STOPPED)
        await wait_all_tasks_blocked()
        if not is_early:
            assert not it.run.done.is_set
            it.run.let_go()

    assert it.run.done.is_set
    assert it.work.cancels == (0 if is_early else 1)
    assert it.run.cancelled is Cancelled.REQUESTED
    assert "not seen to end" in caplog.text


def test_each_cause_has_a_code_and_a_sentence() -> None:
    """Codes are stable words for programs; messages are whole sentences for people."""
    assert [cause.code for cause in Cause] == [
        "cancelled",
        "abandoned",
        "server_stopped",
        "time_limit",
        "owner_lost",
        "bridge_failed",
    ]
    assert all(cause.message.endswith(".") for cause in Cause)
