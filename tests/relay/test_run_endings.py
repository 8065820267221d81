"""`Run`: the ends that the bridge brings about, and what is known of a run afterwards."""

from __future__ import annotations

from math import inf

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.errors import UpstreamRefused
from sse_bridge.flow.policy import Drop
from sse_bridge.relay.ending import Cause
from sse_bridge.relay.statistics import CancelStatistics
from tests.support.scene import Scene, scene
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


# -- the bridge ends it


async def test_a_cancelled_run_ends_at_once_and_says_so(anyio_backend: str) -> None:
    """`DELETE`, while a viewer follows. A second one changes nothing."""
    async with scene() as it:
        it.work.feed(stdout("a"))
        await wait_all_tasks_blocked()
        it.run.cancel()
        it.run.cancel()
        await it.work.closed.wait()

    assert [said.get("code") for said in it.take()] == [None, "cancelled"]
    assert it.work.cancels == 1


async def test_a_run_that_is_cancelled_before_the_answer_has_the_cause_as_its_refusal(anyio_backend: str) -> None:
    """It is no error of the upstream's."""
    async with scene(ScriptedWork(answers=False)) as it:
        it.run.cancel()

    assert it.run.refused is Cause.CANCELLED


async def test_what_arrives_after_a_cancel_is_ignored(anyio_backend: str) -> None:
    """The terminal frame is the last, also for chunks that were on their way."""
    async with scene() as it:
        it.work.feed(stdout("late"))
        it.run.cancel()

    assert [said.get("code") for said in it.take()] == ["cancelled"]


async def test_a_stop_ends_the_run_and_its_work(anyio_backend: str) -> None:
    """Lines that came before are kept. The run is done when its work is."""
    async with scene() as it:
        it.work.feed(stdout("a"))
        await wait_all_tasks_blocked()
        assert not it.run.done.is_set
        it.run.cancel(Cause.SERVER_STOPPED)
        it.run.cancel(Cause.SERVER_STOPPED)
        assert it.take() == [
            {"type": "stdout", "line": "a"},
            {"type": "error", "code": "server_stopped", "message": "The server is stopping."},
        ]
        assert not it.run.done.is_set

    assert it.run.done.is_set
    assert it.work.cancels == 1


async def test_a_stop_after_the_exit_only_cuts_the_reading_short(anyio_backend: str) -> None:
    """The run had its end."""
    async with scene() as it:
        it.work.feed(exit_frame())
        await wait_all_tasks_blocked()
        it.run.cancel(Cause.SERVER_STOPPED)

    assert it.take() == [{"type": "exit", "code": 0}]
    assert it.run.done.is_set
    assert it.work.cancels == 0


async def test_a_run_that_is_never_read_is_over_and_done(anyio_backend: str) -> None:
    """A viewer that attached meanwhile gets its end, and does not wait."""
    it = Scene(ScriptedWork())
    it.run.skip()
    it.run.skip()

    assert it.run.is_over
    assert it.run.done.is_set
    assert [said.get("code") for said in it.take()] == ["cancelled"]
    assert it.viewer.delivery.finished


async def test_a_bug_gets_out_and_the_work_is_ended_on_the_way(anyio_backend: str) -> None:
    """It is not mistaken for an upstream's error, and viewers are told that the run is incomplete."""
    with pytest.raises(ExceptionGroup) as caught:
        async with scene() as it:
            it.work.fail(ZeroDivisionError("a bug"))

    assert caught.group_contains(ZeroDivisionError)
    assert it.work.cancels == 1
    assert [said.get("code") for said in it.take()] == ["bridge_failed"]


async def test_a_cancelled_host_still_ends_the_work(anyio_backend: str) -> None:
    """Ending the work is shielded from the cancellation that caused it."""
    it = Scene(ScriptedWork())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.run.read)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()

    assert it.work.closed.is_set()
    assert it.work.cancels == 1


# -- what remains of it


async def test_a_run_and_its_viewers_are_counted(anyio_backend: str) -> None:
    """The counts are right while the run goes on and after it, and each thing counts once."""
    async with scene(max_frame_size=200, high_water=200) as it:
        other = it.view(Drop(10))
        it.work.feed(stdout("x" * 50), stdout("y" * 300), stdout("x" * 50), stdout("z" * 50))
        await wait_all_tasks_blocked()
        now = it.run.statistics()
        assert (now.name, now.is_over, now.frames_in, now.stalls, len(now.viewers)) == ("tokent", False, 3, 1, 2)
        assert (now.frames_discarded, now.bytes_discarded) == (1, len(stdout("y" * 300)))
        assert now.bytes_in == now.bytes_kept == now.viewers[0].bytes_pending
        live = it.totals.snapshot((now,))
        assert (live.runs_started, live.viewers, live.viewers_seen, live.frames_in) == (1, 2, 2, 3)

        it.take()
        it.audience.leave(other)
        await wait_all_tasks_blocked()
        it.work.feed(exit_frame())
        it.work.finish()

    after = it.totals.snapshot((it.run.statistics(),))
    assert (after.frames_in, after.frames_discarded, after.stalls) == (5, 1, 1)
    assert after.cancels == CancelStatistics(requested=0, acknowledged=0, confirmed=0)


async def test_a_run_that_is_over_is_not_asked_for_the_time(anyio_backend: str) -> None:
    """Its timer stops with it."""
    async with scene(by_hand=True, high_water=10) as it:
        it.work.feed(stdout("a"))
        await wait_all_tasks_blocked()
        assert it.time.due_in < inf
        it.run.cancel()

    assert it.time.due_in == inf


@pytest.mark.parametrize("dialect", ["typed", "verbatim"])
async def test_the_outcome_counts_the_lines_before_the_exit(anyio_backend: str, dialect: str) -> None:
    """The terminal frame is no line, in any dialect."""
    async with scene(dialect=dialect) as it:
        it.work.feed(stdout("a", "b"), exit_frame(3))
        it.work.finish()

    outcome = it.run.outcome()
    assert (outcome.lines, outcome.exit_code, outcome.error) == (2, 3, None)


async def test_a_refused_run_was_not_started(anyio_backend: str) -> None:
    """It counts once its upstream has said yes."""
    async with scene(ScriptedWork(refusal=UpstreamRefused("No.", status=404))) as it:
        pass
    assert it.totals.snapshot(()).runs_started == 0
    async with scene() as it:
        assert it.totals.snapshot(()).runs_started == 1
        it.run.cancel()
