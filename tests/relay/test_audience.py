"""`Audience`: which viewers hold a run back, for how long, and what is kept for them."""

from __future__ import annotations

import json
from math import inf

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked
from starlette.types import Message

from sse_bridge.flow.policy import Block, Coalesce, Drop, Policy
from sse_bridge.relay.clock import Clock
from sse_bridge.relay.rounds import TURN
from sse_bridge.relay.run import FLUSH_AFTER
from sse_bridge.relay.viewer import Gone
from sse_bridge.wire import events
from tests.support.scene import PATIENT, scene
from tests.support.viewers import write
from tests.support.work import exit_frame, stdout

pytestmark = pytest.mark.anyio


# -- holding the run back


@pytest.mark.parametrize("policy", [Block(30_000), Coalesce(30_000)], ids=repr)
async def test_a_slow_viewer_holds_the_run_at_the_mark(anyio_backend: str, policy: Policy) -> None:
    """Above the mark reading stops, below a quarter of it reading goes on, and every line arrives."""
    lines = [f"line {number}".ljust(3000) for number in range(50)]
    async with scene(policy=policy) as it:
        it.work.feed(*map(stdout, lines))
        await wait_all_tasks_blocked()
        assert 30_000 < it.viewer.delivery.cursor.pending < 34_000
        unread = it.work.unread
        assert unread > 35

        seen = it.take(15_000)
        await wait_all_tasks_blocked()
        assert it.work.unread == unread  # between the marks

        seen += it.take()
        await wait_all_tasks_blocked()
        assert it.work.unread < unread
        while len(seen) < len(lines):
            seen += it.take()
            await wait_all_tasks_blocked()
        it.work.feed(exit_frame())
        it.work.finish()

    assert [said["line"] for said in seen] == lines


@pytest.mark.parametrize("count", [1, TURN, 3 * TURN])
async def test_a_run_goes_on_once_its_viewers_have_taken_what_held_it(anyio_backend: str, count: int) -> None:
    """However many viewers there are. On asyncio a callback sends to them, on trio each viewer's task does."""
    async with scene(high_water=1000) as it, anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(write, it.view(Block(1000)), take)
        it.audience.leave(it.viewer)
        await wait_all_tasks_blocked()
        for _ in range(3):
            it.work.feed(stdout("x" * 2000))
            for _ in range(30):  # rounds of the event loop, in which viewers are told
                await anyio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            assert not it.work.unread
            assert not it.audience.is_held
            assert it.audience.behind() == 0
        it.work.finish()


async def take(message: Message) -> None:
    """A `send` that never waits."""


async def test_viewers_keep_the_time_of_a_run_until_it_is_over(anyio_backend: str) -> None:
    """A second server in the same event loop has another clock, which has counted other standstills."""
    async with scene() as it:
        others = Clock()
        early = it.audience.view(Block(), None, 1, PATIENT, others)
        it.work.finish()
        await it.run.done.wait()
        late = it.audience.view(Block(), None, 1, PATIENT, others)

    assert early.clock is it.clock
    assert late.clock is others


@pytest.mark.parametrize("policy", [Drop(10), Coalesce(10, beyond="drop")])
async def test_a_run_never_waits_for_a_viewer_that_may_lose_lines(anyio_backend: str, policy: Policy) -> None:
    """Everything is read, the log stays small, and the terminal frame is kept."""
    async with scene(policy=policy) as it:
        it.work.feed(*[stdout("x" * 5000)] * 50, exit_frame())
        it.work.finish()
        await it.work.closed.wait()
        assert it.audience.log.kept < 20_000

    gap, *rest = [json.loads(event.data or "") for event in events.parse(it.viewer.delivery.take(0.0))]
    assert gap["type"] == "gap"
    assert rest[-1] == {"type": "exit", "code": 0}
    assert gap["dropped"] + len(rest) == 51


async def test_the_run_goes_on_when_a_viewer_that_held_it_leaves(anyio_backend: str) -> None:
    """While others follow, a viewer that has left is not waited for."""
    async with scene(high_water=10) as it:
        other = it.view(Block(10))
        it.work.feed(stdout("a"), stdout("b"))
        await wait_all_tasks_blocked()
        assert it.work.unread == 1
        it.take()
        await wait_all_tasks_blocked()
        assert it.work.unread == 1
        it.audience.leave(other)
        await wait_all_tasks_blocked()
        assert it.take() == [{"type": "stdout", "line": "b"}]
        it.work.feed(exit_frame())
        it.work.finish()


async def test_a_viewer_that_is_far_behind_when_it_comes_holds_the_run(anyio_backend: str) -> None:
    """A viewer that begins with what is kept counts from its first moment, although all others have kept up."""
    async with scene(replay=10**6) as it:
        for _ in range(10):
            it.work.feed(stdout("x" * 50))
            await wait_all_tasks_blocked()
            it.take()
        it.view(Block(100))
        it.work.feed(*[stdout("y")] * 20)
        await wait_all_tasks_blocked()
        assert it.work.unread == 19
        it.run.cancel()


async def test_a_viewer_holds_the_run_although_all_before_it_were_given_up(anyio_backend: str) -> None:
    """With no viewer to wait for, the run reads freely; the next viewer's mark counts again."""
    async with scene(policy=Block(100, stall_timeout=7.0), grace=None, by_hand=True) as it:
        it.audience.leave(it.viewer)
        it.work.feed(*[stdout("x" * 50)] * 20)
        await wait_all_tasks_blocked()
        it.time.advance(7.0)
        await wait_all_tasks_blocked()
        assert it.work.unread == 0

        late = it.view(Block(100), it.audience.log.next)
        it.work.feed(*[stdout("y" * 50)] * 200)
        await wait_all_tasks_blocked()
        assert it.work.unread == 198
        assert late.delivery.cursor.pending < 300
        it.run.cancel()


# -- the viewer that left last


async def test_the_viewer_that_left_last_still_holds_the_run(anyio_backend: str) -> None:
    """During the grace period its policy bounds memory."""
    async with scene(high_water=50, grace=0.2) as it:
        it.audience.leave(it.viewer)
        it.work.feed(*[stdout("x" * 20)] * 100)
        await wait_all_tasks_blocked()
        assert it.work.unread >= 97

    assert it.work.cancels == 1


async def test_a_returning_viewer_replaces_the_one_that_left(anyio_backend: str) -> None:
    """The run waits for the mark of the new viewer, and no longer for the old one's."""
    async with scene(high_water=50, grace=60) as it:
        it.audience.leave(it.viewer)
        it.work.feed(*[stdout("x" * 20)] * 100)
        await wait_all_tasks_blocked()
        assert it.work.unread >= 97
        it.viewer = it.view(Block(10**6))
        await wait_all_tasks_blocked()
        assert it.work.unread == 0
        it.run.cancel()


async def test_leaving_twice_is_leaving_once(anyio_backend: str) -> None:
    """The other viewers stay."""
    async with scene() as it:
        other = it.view(Drop())
        it.audience.leave(other)
        it.audience.leave(other)
        assert it.audience.viewers == 1
        assert it.audience.is_followed
        it.run.cancel()


async def test_what_a_viewer_got_stays_counted_after_it_has_left(anyio_backend: str) -> None:
    """Once, however often it leaves."""
    async with scene() as it:
        other = it.view(Drop())
        it.work.feed(stdout("a", "b"))
        await wait_all_tasks_blocked()
        it.take(viewer=other)
        it.audience.leave(other)
        it.audience.leave(other)
        assert it.totals.snapshot(()).frames_out == 2
        it.run.cancel()


# -- stalls


@pytest.mark.parametrize("policy", [Block(100, stall_timeout=7.0), Coalesce(100, None, stall_timeout=7.0)], ids=repr)
async def test_a_viewer_that_holds_the_run_for_too_long_is_disconnected(anyio_backend: str, policy: Policy) -> None:
    """After `stall_timeout` seconds in which it took nothing. The other viewers then get everything."""
    async with scene(by_hand=True) as it:
        stalled = it.view(policy)
        it.work.feed(*[stdout("x" * 50)] * 5)
        await wait_all_tasks_blocked()
        assert it.work.unread == 3

        it.time.advance(6.9)
        assert stalled.gone is None
        it.time.advance(0.1)
        assert [stalled.gone, it.viewer.gone] == [Gone.STALLED, None]
        assert stalled.scope.cancel_called
        it.time.advance(1)
        it.audience.leave(stalled)
        await wait_all_tasks_blocked()
        assert it.work.unread == 0
        it.work.feed(exit_frame())
        it.work.finish()

    assert it.totals.viewers_stalled == 1


async def test_a_viewer_that_takes_something_now_and_then_is_slow_and_not_stalled(anyio_backend: str) -> None:
    """The clock begins when it last took something."""
    async with scene(policy=Block(100, stall_timeout=7.0), by_hand=True) as it:
        it.work.feed(*[stdout("x" * 50)] * 5)
        await wait_all_tasks_blocked()
        it.time.advance(5)
        it.viewer.took_at = it.clock.now()
        it.time.advance(6.9)
        assert it.viewer.gone is None
        it.time.advance(0.1)
        assert it.viewer.gone is Gone.STALLED
        it.run.cancel()


async def test_a_viewer_that_reads_while_a_send_hangs_is_slow_and_not_stalled(anyio_backend: str) -> None:
    """Its connection shows that, until it stops."""
    async with scene(policy=Block(100, stall_timeout=8.0), by_hand=True) as it:
        it.work.feed(*[stdout("x" * 50)] * 5)
        await wait_all_tasks_blocked()
        acknowledged = 0
        it.viewer.progress.acknowledged = lambda: acknowledged
        it.viewer.progress.sending_since = it.clock.now()
        for _ in range(50):
            it.time.advance(1)
            acknowledged += 1000
        assert it.viewer.gone is None
        for _ in range(11):
            it.time.advance(1)
        assert it.viewer.gone is Gone.STALLED
        it.run.cancel()


async def test_a_viewer_whose_pace_makes_it_wait_is_slow_and_not_stalled(anyio_backend: str) -> None:
    """One event in ten seconds: only the time after these is the viewer's own."""
    async with scene(policy=Coalesce(100, max_rate=0.1, stall_timeout=7.0), by_hand=True) as it:
        it.work.feed(*[stdout("x" * 50)] * 5)
        await wait_all_tasks_blocked()
        it.time.advance(16.9)
        assert it.viewer.gone is None
        it.time.advance(0.1)
        assert it.viewer.gone is Gone.STALLED
        it.run.cancel()


async def test_a_viewer_below_its_low_mark_is_not_stalled_with_the_others(anyio_backend: str) -> None:
    """Only the viewers that the run waits for are disconnected."""
    async with scene(policy=Block(100, stall_timeout=7.0), by_hand=True) as it:
        other = it.view(Block(100, stall_timeout=7.0))
        it.work.feed(*[stdout("x" * 50)] * 5)
        await wait_all_tasks_blocked()
        other.delivery.cursor.take(10**6)
        it.time.advance(7)
        assert [it.viewer.gone, other.gone] == [Gone.STALLED, None]
        it.run.cancel()


async def test_a_policy_without_a_stall_timeout_may_hold_the_run_without_limit(anyio_backend: str) -> None:
    """`stall_timeout=None` switches the limit off."""
    async with scene(policy=Block(100, stall_timeout=None), by_hand=True) as it:
        it.work.feed(*[stdout("x" * 50)] * 5)
        await wait_all_tasks_blocked()
        assert it.time.due_in == inf
        it.time.advance(10**6)
        assert it.viewer.gone is None
        it.run.cancel()


async def test_without_a_grace_limit_an_absent_viewer_holds_the_run_no_longer_than_a_stall(anyio_backend: str) -> None:
    """`grace=None`: the work goes on to its end, although the viewer that left stood at its mark."""
    async with scene(policy=Block(100, stall_timeout=7.0), grace=None, by_hand=True) as it:
        it.audience.leave(it.viewer)
        it.work.feed(*[stdout("x" * 50)] * 20, exit_frame())
        it.work.finish()
        await wait_all_tasks_blocked()
        it.time.advance(6.9)
        await wait_all_tasks_blocked()
        assert it.work.unread > 15
        it.time.advance(0.1)

    assert it.audience.log.next == 22
    assert it.work.cancels == 0


async def test_a_viewer_that_leaves_at_its_mark_is_timed_from_then(anyio_backend: str) -> None:
    """`grace=None`: the run was waiting for it already when it left."""
    async with scene(policy=Block(100, stall_timeout=7.0), grace=None, by_hand=True) as it:
        it.work.feed(*[stdout("x" * 50)] * 20)
        await wait_all_tasks_blocked()
        it.audience.leave(it.viewer)
        assert it.time.due_in <= 7
        it.time.advance(7)
        await wait_all_tasks_blocked()
        assert it.work.unread == 0
        it.run.cancel()


async def test_during_the_grace_period_the_viewer_that_left_is_waited_for(anyio_backend: str) -> None:
    """The grace period ends the wait; until then a viewer that comes back has lost nothing."""
    async with scene(policy=Block(100, stall_timeout=7.0), grace=60, by_hand=True) as it:
        it.audience.leave(it.viewer)
        it.work.feed(*[stdout("x" * 50)] * 20)
        await wait_all_tasks_blocked()
        unread = it.work.unread
        it.time.advance(8)
        await wait_all_tasks_blocked()
        assert it.work.unread == unread > 15
        it.run.cancel()


async def test_a_viewer_is_timed_from_the_moment_the_run_waits_for_it(anyio_backend: str) -> None:
    """It took nothing during a long silence because there was nothing to take."""
    async with scene(policy=Block(100, stall_timeout=7.0), by_hand=True) as it:
        it.time.advance(1000)
        it.work.feed(*[stdout("x" * 50)] * 5)
        await wait_all_tasks_blocked()
        it.time.advance(6.9)
        assert it.viewer.gone is None
        it.run.cancel()


async def test_without_a_grace_limit_the_run_goes_on_without_its_only_viewer_once_that_has_stalled(
    anyio_backend: str,
) -> None:
    """`grace=None`: a viewer that was disconnected for holding the run does not hold it as an absent one."""
    async with scene(policy=Block(100, stall_timeout=7.0), grace=None, by_hand=True) as it:
        it.work.feed(*[stdout("x" * 50)] * 20, exit_frame())
        it.work.finish()
        await wait_all_tasks_blocked()
        it.time.advance(7)
        assert it.viewer.gone is Gone.STALLED
        it.audience.leave(it.viewer)

    assert it.audience.log.next == 22
    assert it.work.cancels == 0


# -- what is kept


async def test_a_viewer_that_was_replaced_keeps_no_memory(anyio_backend: str) -> None:
    """What the viewer that left has not taken is forgotten once another one has taken it."""
    async with scene(grace=60) as it:
        it.audience.leave(it.viewer)
        it.work.feed(*[stdout("x" * 5000)] * 20)
        await wait_all_tasks_blocked()
        assert it.audience.log.kept > 100_000
        it.viewer = it.view(Block())
        it.take()
        it.work.feed(stdout("y"))
        await wait_all_tasks_blocked()
        assert it.audience.log.kept < 20_000
        it.run.cancel()


async def test_a_viewer_that_comes_late_is_told_how_much_is_missing(anyio_backend: str) -> None:
    """The gap stands under the number of the last frame that is gone, so that a resume continues behind it."""
    async with scene(replay=60) as it:
        for _ in range(10):
            it.work.feed(stdout("x" * 5000))  # larger than what is kept together
            await wait_all_tasks_blocked()
            it.take()
        late = it.view(Block(10**6), 3)
        missed = it.audience.log.first - 3
        assert missed > 5
        assert late.delivery.take(0.0).startswith(b'data: {"type":"gap","dropped":%d}\n\n' % missed)
        it.work.feed(exit_frame())
        it.work.finish()


async def test_a_viewer_may_come_after_the_end(anyio_backend: str) -> None:
    """It reads what is kept and is done; the run is told nothing any more. The terminal frame is kept in any case."""
    async with scene() as it:
        it.work.feed(stdout("a"), exit_frame())
        it.work.finish()

    late = it.view(Block())
    assert [said["type"] for said in it.take(viewer=late)] == ["stdout", "exit"]
    it.audience.leave(late)
    it.audience.leave(it.viewer)
    assert it.audience.viewers == 0
    assert [said["type"] for said in it.take(viewer=it.view(Block()))][-1] == "exit"


async def test_a_run_that_starts_without_a_viewer_keeps_a_place_for_one(anyio_backend: str) -> None:
    """It is held at the mark of the expected viewer, so that the first one gets the run from its beginning."""
    async with scene(grace=60) as it:
        it.audience.leave(it.viewer)
        it.audience.expect(Block(100), None, PATIENT, it.clock)
        it.work.feed(*[stdout("x" * 50)] * 50)
        await wait_all_tasks_blocked()
        assert it.work.unread > 40
        first = it.view(Block(10**6))
        await wait_all_tasks_blocked()
        assert len(it.take(viewer=first)) == 50
        it.run.cancel()


@pytest.mark.parametrize("grace", [0.0, 0.1])
async def test_a_first_viewer_has_time_to_come(anyio_backend: str, grace: float) -> None:
    """However short the grace period is. Then the run is abandoned."""
    async with scene(grace=grace, replay=10**6) as it:
        other = it.view(Block())
        it.audience.leave(it.viewer)
        it.audience.begin_grace(0.01)  # there is a viewer: it changes nothing
        with anyio.move_on_after(0.1):
            await it.work.closed.wait()
        assert not it.work.closed.is_set()
        it.audience.leave(other)
        it.audience.begin_grace(0.2)
        before = anyio.current_time()
        if grace:
            await it.work.closed.wait()
            assert anyio.current_time() - before >= 0.2

    assert it.work.cancels == 1


# -- viewers that were sent away


@pytest.mark.parametrize(("returns", "seconds"), [(False, 10.0), (True, 0.0)])
async def test_who_was_sent_away_has_time_to_come_back(anyio_backend: str, returns: bool, seconds: float) -> None:
    """Also if others leave meanwhile. Once it is back, the run ends with its last viewer."""
    async with scene(by_hand=True) as it:
        it.work.feed(stdout("a"))
        await wait_all_tasks_blocked()
        it.take()
        other = it.view(Block())
        it.viewer.send_away()
        it.audience.leave(it.viewer)
        it.time.advance(1.0)
        back = it.view(Block(), number=2) if returns else None
        it.audience.leave(other)
        if back is not None:
            it.audience.leave(back)
        await wait_all_tasks_blocked()
        assert it.run.is_over is returns
        it.time.advance(seconds)
        await wait_all_tasks_blocked()
        assert it.run.is_over


async def test_an_unfinished_line_is_shown_although_another_one_held_the_run(anyio_backend: str) -> None:
    """The viewer has taken that one. Nothing else comes from the upstream, which waits for an answer to its prompt."""
    async with scene(high_water=200, by_hand=True) as it:
        it.work.feed('event: stdout\ndata: {"data":"' + "x" * 300 + '"}\n\n')
        await wait_all_tasks_blocked()
        it.time.advance(0.2)
        it.work.feed('event: stderr\ndata: {"data":"Password: "}\n\n')
        await wait_all_tasks_blocked()
        it.time.advance(FLUSH_AFTER - 0.2)  # the line of stdout is due, and beyond the mark
        assert [said["type"] for said in it.take()] == ["stdout"]
        it.time.advance(FLUSH_AFTER)
        assert [said["line"] for said in it.take()] == ["Password: "]
        it.run.cancel()
