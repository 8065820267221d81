"""`Run`: reading, waiting for viewers, and every ending that one viewer can have."""

from __future__ import annotations

import asyncio
import json
import logging
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.errors import UpstreamError, UpstreamLost, UpstreamRefused
from sse_bridge.flow.policy import Block, Coalesce, Drop, Policy
from sse_bridge.relay import run as run_module
from sse_bridge.relay.clock import Clock
from sse_bridge.relay.run import Run
from sse_bridge.relay.statistics import Totals
from sse_bridge.relay.viewer import Viewer
from sse_bridge.upstream.base import Cancelled
from sse_bridge.wire import events
from sse_bridge.wire.dialects import DIALECTS
from sse_bridge.wire.ids import FrameIds
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


class Scene:
    """A run that reads a scripted exec, and one viewer who takes only when the test says so."""

    def __init__(self, work: ScriptedWork, **options: Any) -> None:
        self.work = work
        dialect = DIALECTS[options.pop("dialect", "typed")]
        policy = options.pop("policy", None) or Block(options.pop("high_water", 10**6))
        options = {"max_frame_size": None, "grace": 0.0, "replay": 0, "cancel_timeout": 5.0, **options}
        self.totals = Totals()
        self.clock = Clock()
        ids = FrameIds(None)
        self.run = Run("tokentokentokent", work, dialect, ids, totals=self.totals, clock=self.clock, **options)
        self.viewer = self.view(policy)

    def view(self, policy: Policy, number: int = 1) -> Viewer:
        return self.run.view(policy, number, self.clock, rate=None, heartbeat=None, send_timeout=None)

    def take(self, limit: int = 10**9) -> list[dict[str, Any]]:
        frames = self.viewer.delivery.cursor.take(limit)
        self.viewer._took.notify()
        return [json.loads(event.data) for event in events.parse(frames) if event.data is not None]


@asynccontextmanager
async def scene(work: ScriptedWork | None = None, **options: Any) -> AsyncGenerator[Scene]:
    """Runs it, and demands that it ends by itself within the block's end."""
    made = Scene(work or ScriptedWork(), **options)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run.read)
            await wait_all_tasks_blocked()
            yield made
    assert made.work.closed.is_set()


async def test_lines_arrive_as_they_are_printed_and_the_exit_ends_the_run(anyio_backend: str) -> None:
    """Each chunk is in the log as soon as it came; after the exit nothing is cancelled."""
    async with scene() as it:
        for line in ("a", "b"):
            it.work.feed(stdout(line))
            await wait_all_tasks_blocked()
            assert it.take() == [{"type": "stdout", "line": line}]
        it.work.feed(exit_frame(3))
        await wait_all_tasks_blocked()
        assert it.take() == [{"type": "exit", "code": 3}]
        assert it.run.log.closed
        it.work.finish()

    assert it.work.cancels == 0


async def test_an_upstream_that_lingers_after_the_exit_is_left(anyio_backend: str, monkeypatch: Any) -> None:
    """The exit is the end: what an upstream says afterwards is not read for long, and not handed on."""
    monkeypatch.setattr(run_module, "END_AFTER_EXIT", 0.05)
    async with scene() as it:
        it.work.feed(exit_frame(), stdout("late"))
        await it.work.closed.wait()

    assert it.take() == [{"type": "exit", "code": 0}]
    assert it.work.cancels == 0


async def test_an_upstream_that_ends_without_exit_is_an_error_and_its_work_is_cancelled(anyio_backend: str) -> None:
    """It is no success, and nobody knows whether it still runs."""
    async with scene() as it:
        it.work.feed(stdout("a"), b'event: stdout\ndata: {"line":"cut')
        it.work.finish()

    assert [said.get("code") for said in it.take()] == [None, "upstream_ended"]
    assert it.work.cancels == 1
    assert it.run.cancelled is Cancelled.CONFIRMED


async def test_an_upstream_that_breaks_is_an_error_and_its_work_is_cancelled(anyio_backend: str) -> None:
    """What came before is not lost."""
    async with scene() as it:
        it.work.feed(stdout("a"))
        it.work.fail(UpstreamLost("It broke."))

    assert it.take() == [
        {"type": "stdout", "line": "a"},
        {"type": "error", "code": "upstream_lost", "message": "It broke."},
    ]
    assert it.work.cancels == 1


async def test_an_error_of_the_upstreams_ends_the_run_and_its_work(anyio_backend: str, monkeypatch: Any) -> None:
    """It is terminal, but it does not say that nothing runs any more."""
    monkeypatch.setattr(run_module, "END_AFTER_EXIT", 0.05)
    async with scene() as it:
        it.work.feed('event: error\ndata: {"code":"oom","message":"out of memory"}\n\n')

    assert it.take() == [{"type": "error", "code": "oom", "message": "out of memory"}]
    assert it.work.cancels == 1


async def test_a_break_after_the_exit_is_no_news(anyio_backend: str) -> None:
    """The terminal frame is the last, whatever the connection does."""
    async with scene() as it:
        it.work.feed(exit_frame())
        it.work.fail(UpstreamLost("It broke."))

    assert it.take() == [{"type": "exit", "code": 0}]
    assert it.work.cancels == 0


async def test_a_refusal_is_kept_for_whoever_answers(anyio_backend: str) -> None:
    """Before the first frame it is an HTTP error; nothing was started, so nothing is cancelled."""
    refusal = UpstreamRefused("No.", code="not_found", status=404)
    async with scene(ScriptedWork(refusal=refusal)) as it:
        pass

    assert it.run.refused is refusal
    assert it.run.answered.is_set
    assert it.work.cancels == 0


async def test_the_last_viewers_leaving_cancels_a_silent_exec_at_once(anyio_backend: str) -> None:
    """With `grace=0`, on the very event: nothing has to be printed first."""
    async with scene() as it:
        it.run.leave(it.viewer)
        await it.work.closed.wait()

    assert it.work.cancels == 1
    assert [said.get("code") for said in it.take()] == ["abandoned"]


async def test_leaving_before_the_upstream_has_answered_cancels_too(anyio_backend: str) -> None:
    """The request may have arrived although there was no answer."""
    async with scene(ScriptedWork(answers=False)) as it:
        it.run.leave(it.viewer)

    assert it.work.cancels == 1


async def test_the_exec_goes_on_for_the_grace_period(anyio_backend: str) -> None:
    """The last viewer's leaving starts the clock."""
    left = 0.0
    async with scene(grace=0.2) as it:
        it.run.leave(it.viewer)
        left = anyio.current_time()
        it.work.feed(stdout("still there"))
        await it.work.closed.wait()

    assert anyio.current_time() - left >= 0.2
    assert [said.get("line") for said in it.take()] == ["still there", None]
    assert it.work.cancels == 1


async def test_who_comes_back_in_time_stops_the_clock_and_has_lost_nothing(anyio_backend: str) -> None:
    """Not even what came while nobody was there; the run waited at the mark of the one who left."""
    async with scene(grace=60, high_water=100) as it:
        it.work.feed(stdout("a"))
        await wait_all_tasks_blocked()
        it.take()
        it.run.leave(it.viewer)
        assert it.run._reading.deadline < inf
        it.work.feed(*[stdout("x" * 20)] * 50)
        await wait_all_tasks_blocked()
        assert it.work.unread > 40

        it.viewer = it.view(Block(10**6), 2)
        assert it.run._reading.deadline == inf
        it.work.feed(exit_frame())
        it.work.finish()
        await it.work.closed.wait()

    assert len(it.take()) == 51
    assert it.work.cancels == 0


async def test_a_cancelled_run_ends_at_once_and_says_so(anyio_backend: str) -> None:
    """Whoever is there: `DELETE`."""
    async with scene() as it:
        it.work.feed(stdout("a"))
        await wait_all_tasks_blocked()
        it.run.cancel()
        it.run.cancel()
        await it.work.closed.wait()

    assert [said.get("code") for said in it.take()] == [None, "cancelled"]
    assert it.work.cancels == 1


async def test_who_comes_late_is_told_how_much_is_missing(anyio_backend: str) -> None:
    """Under the number of the last frame that is gone, so that a resume goes on behind it."""
    async with scene(replay=60) as it:
        for _ in range(10):
            it.work.feed(stdout("x" * 5000))  # larger than what is kept together
            await wait_all_tasks_blocked()
            it.take()
        late = it.view(Block(10**6), 3)
        missed = it.run.log.first - 3
        assert missed > 5
        assert late.delivery.take(0.0).startswith(b'data: {"type":"gap","dropped":%d}\n\n' % missed)
        it.work.feed(exit_frame())
        it.work.finish()


async def test_without_an_end_of_grace_the_exec_goes_on_to_its_own(anyio_backend: str) -> None:
    """`None` switches the limit off."""
    async with scene(grace=None) as it:
        it.run.leave(it.viewer)
        await wait_all_tasks_blocked()
        assert not it.work.closed.is_set()
        it.work.feed(exit_frame())
        it.work.finish()

    assert it.work.cancels == 0


async def test_who_is_not_the_last_leaves_unnoticed(anyio_backend: str) -> None:
    """Others go on, and the run no longer waits for the one who left."""
    async with scene(high_water=10) as it:
        other = it.view(Block(10))
        it.work.feed(stdout("a"), stdout("b"))
        await wait_all_tasks_blocked()
        assert it.work.unread == 1
        it.take()
        await wait_all_tasks_blocked()
        assert it.work.unread == 1
        it.run.leave(other)
        await wait_all_tasks_blocked()
        assert it.take() == [{"type": "stdout", "line": "b"}]
        it.work.feed(exit_frame())
        it.work.finish()


async def test_a_slow_viewer_holds_the_run_at_the_mark(anyio_backend: str) -> None:
    """`Block`: above the mark nothing is read, below a quarter of it reading goes on, and nothing is lost."""
    lines = [f"line {number}".ljust(3000) for number in range(50)]
    async with scene(high_water=30_000) as it:
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


async def test_the_last_one_who_left_still_holds_the_run(anyio_backend: str) -> None:
    """During the grace period memory is bounded by its policy."""
    async with scene(high_water=50, grace=0.2) as it:
        it.run.leave(it.viewer)
        it.work.feed(*[stdout("x" * 20)] * 100)
        await wait_all_tasks_blocked()
        assert it.work.unread >= 97

    assert it.work.cancels == 1


async def test_a_frame_too_large_becomes_a_gap_in_its_place(anyio_backend: str) -> None:
    """It is counted where it stood, under a number of its own, and the run goes on."""
    large = stdout("x" * 100)
    async with scene(max_frame_size=80) as it:
        it.work.feed(stdout("a") + large + stdout("b"), large[:90])
        await wait_all_tasks_blocked()
        it.work.feed(large[90:] + exit_frame())
        it.work.finish()

    assert it.take() == [
        {"type": "stdout", "line": "a"},
        {"type": "gap", "dropped": 1, "bytes": len(large)},
        {"type": "stdout", "line": "b"},
        {"type": "gap", "dropped": 1, "bytes": len(large)},
        {"type": "exit", "code": 0},
    ]
    assert it.run.log.next == 6


@pytest.mark.parametrize("policy", [Drop(10), Coalesce(10)])
async def test_a_run_never_waits_for_those_who_may_lose_something(anyio_backend: str, policy: Policy) -> None:
    """Everything is read; the log stays small; the end is there."""
    async with scene(policy=policy) as it:
        it.work.feed(*[stdout("x" * 5000)] * 50, exit_frame())
        it.work.finish()
        await it.work.closed.wait()
        assert it.run.log.kept < 20_000

    gap, *rest = [json.loads(event.data or "") for event in events.parse(it.viewer.delivery.take(0.0))]
    assert gap["type"] == "gap"
    assert rest[-1] == {"type": "exit", "code": 0}
    assert gap["dropped"] + len(rest) == 51


async def test_who_holds_the_run_for_too_long_is_disconnected(anyio_backend: str) -> None:
    """After `stall_timeout` seconds in which it took nothing; the others then get everything."""
    async with scene(policy=Block(10**6)) as it:
        stalled = it.view(Block(100, stall_timeout=7.0))
        it.work.feed(*[stdout("x" * 50)] * 5)
        await wait_all_tasks_blocked()
        assert it.work.unread == 3
        since = it.run._held_since

        assert it.run.tick(since + 6) == since + 7
        assert stalled.gone is None
        it.run.tick(since + 7)
        assert [stalled.gone, it.viewer.gone] == ["stalled", None]
        it.run.tick(since + 8)
        it.run.leave(stalled)
        await wait_all_tasks_blocked()
        assert it.work.unread == 0
        it.work.feed(exit_frame())
        it.work.finish()

    assert it.totals.viewers_stalled == 1


async def test_who_takes_something_now_and_then_is_slow_and_not_stalled(anyio_backend: str) -> None:
    """The clock begins when it last took something."""
    async with scene(policy=Block(100, stall_timeout=7.0)) as it:
        it.work.feed(*[stdout("x" * 50)] * 5)
        await wait_all_tasks_blocked()
        it.viewer._sent_at = it.run._held_since + 5
        assert it.run.tick(it.run._held_since + 8) == it.run._held_since + 12
        assert it.viewer.gone is None
        it.take()
        await wait_all_tasks_blocked()
        it.take()
        it.work.feed(exit_frame())
        it.work.finish()


async def test_without_an_end_of_grace_nobody_is_waited_for_longer_than_a_stall(anyio_backend: str) -> None:
    """`grace=None`: the work goes on to its end, although the one who left stood at its mark."""
    async with scene(policy=Block(100, stall_timeout=7.0), grace=None) as it:
        it.run.leave(it.viewer)
        it.work.feed(*[stdout("x" * 50)] * 20, exit_frame())
        it.work.finish()
        await wait_all_tasks_blocked()
        assert it.work.unread > 15
        assert it.run.tick(it.run._held_since + 6) < inf
        it.run.tick(it.run._held_since + 7)

    assert it.run.log.next == 22
    assert it.work.cancels == 0


async def test_during_the_grace_period_the_one_who_left_is_waited_for(anyio_backend: str) -> None:
    """It ends by itself; until then who comes back has lost nothing."""
    async with scene(policy=Block(100, stall_timeout=7.0), grace=60) as it:
        it.run.leave(it.viewer)
        it.work.feed(*[stdout("x" * 50)] * 20)
        await wait_all_tasks_blocked()
        unread = it.work.unread
        assert it.run.tick(it.run._held_since + 8) == inf
        await wait_all_tasks_blocked()
        assert it.work.unread == unread > 15
        it.run.cancel()


async def test_a_run_and_its_viewers_are_counted(anyio_backend: str) -> None:
    """While it goes on and after it; nothing is counted twice."""
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
        it.run.leave(other)
        await wait_all_tasks_blocked()
        it.work.feed(exit_frame())
        it.work.finish()

    after = it.totals.snapshot((it.run.statistics(),))
    assert (after.frames_in, after.frames_discarded, after.stalls) == (5, 1, 1)
    assert after.cancels == {"requested": 0, "acknowledged": 0, "confirmed": 0}


async def test_what_had_to_be_ended_is_counted_by_how_that_went(anyio_backend: str) -> None:
    """Only what was seen to be gone counts as confirmed."""
    async with scene(ScriptedWork(outcome=Cancelled.ACKNOWLEDGED)) as it:
        assert it.run.cancelled is None
        it.run.leave(it.viewer)

    assert it.totals.snapshot(()).cancels == {"requested": 0, "acknowledged": 1, "confirmed": 0}


async def test_a_run_that_is_over_keeps_nothing_but_its_log(anyio_backend: str) -> None:
    """The beginning of a frame that never came, up to a mebibyte, is forgotten."""
    tracemalloc.start()
    async with scene() as it:
        it.work.feed(stdout("a") + b"data: " + b"x" * 10**6)
        it.work.finish()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert it.run.log.closed
    assert held < 10**6 < peak
    assert it.run.done.is_set


async def test_comments_do_not_delay_an_unfinished_line(anyio_backend: str) -> None:
    """An upstream's heartbeats are no output: the silence goes on."""
    async with scene() as it:
        it.work.feed('event: stdout\ndata: {"data":"50%"}\n\n')
        await wait_all_tasks_blocked()
        due = it.run._flush_at
        it.work.feed(": heartbeat\n\n")
        await wait_all_tasks_blocked()
        assert it.run._flush_at == due
        it.run.cancel()


async def test_an_unfinished_line_is_shown_after_silence(anyio_backend: str) -> None:
    """A prompt without a newline does not wait for the next line, and each piece starts the silence anew."""
    async with scene() as it:
        for piece in ("50%", "..."):
            it.work.feed(f'event: stdout\ndata: {{"data":"{piece}"}}\n\n')
            await wait_all_tasks_blocked()
            due = it.run._flush_at
            assert it.run.tick(due - 0.01) == due
            assert it.take() == []
        it.run.tick(due)
        assert it.take() == [{"type": "stdout", "line": "50%...", "partial": True}]
        it.work.feed(exit_frame())
        it.work.finish()


async def test_a_slow_viewer_does_not_cut_lines(anyio_backend: str) -> None:
    """While the run waits for it, nothing is read, so the silence says nothing."""
    async with scene(high_water=10) as it:
        it.work.feed(
            'event: stdout\ndata: {"data":"first\\nsecond ha"}\n\n', 'event: stdout\ndata: {"data":"lf\\n"}\n\n'
        )
        await wait_all_tasks_blocked()
        assert it.work.unread == 1
        due = it.run._flush_at
        assert it.run.tick(due) > due
        seen = it.take()
        await wait_all_tasks_blocked()
        seen += it.take()
        it.work.feed(exit_frame())
        it.work.finish()

    assert [said["line"] for said in seen] == ["first", "second half"]


async def test_the_clock_is_told_of_an_unfinished_line(anyio_backend: str, monkeypatch: Any) -> None:
    """A run that had nothing to wait for wakes up in time."""
    monkeypatch.setattr(run_module, "FLUSH_AFTER", 0.02)
    async with scene() as it:
        it.work.feed('event: stdout\ndata: {"data":"50%"}\n\n')
        with anyio.fail_after(5):
            while not it.viewer.delivery.cursor.pending:
                await it.viewer.news.wait()
        it.work.feed(exit_frame())
        it.work.finish()


async def test_verbatim_ends_as_its_upstream_ends(anyio_backend: str) -> None:
    """It has no frame for an error, and an exit that the upstream told of is no reason to cancel."""
    async with scene(dialect="verbatim") as it:
        it.work.feed(b"id: 1\ndata: x\r\n\r\n", exit_frame(), ": bye\n\n")
        it.work.finish()

    assert it.viewer.delivery.cursor.take(100) == b"id: 1\ndata: x\n\n" + exit_frame() + b": bye\n\n"
    assert it.viewer.delivery.cursor.finished
    assert it.work.cancels == 0


@pytest.mark.parametrize("printed", [b"data: x\n\n", exit_frame() + b"data: late\n\n", exit_frame()[:-1], b""])
async def test_verbatim_work_whose_stream_ends_without_an_exit_is_cancelled(anyio_backend: str, printed: bytes) -> None:
    """The end of a stream says as little about a command here as in other dialects: it is looked for and ended."""
    async with scene(dialect="verbatim") as it:
        it.work.feed(printed)
        it.work.finish()

    assert it.run.log.closed
    assert it.work.cancels == 1


async def test_verbatim_work_that_has_ended_is_not_cancelled_when_the_viewer_leaves(anyio_backend: str) -> None:
    """The upstream may linger after the exit: then leaving ends the reading, and there is no work to end."""
    async with scene(dialect="verbatim") as it:
        it.work.feed(exit_frame())
        await wait_all_tasks_blocked()
        it.run.leave(it.viewer)

    assert it.work.cancels == 0


async def test_verbatim_cancels_what_broke(anyio_backend: str) -> None:
    """A broken connection says nothing about the work."""
    async with scene(dialect="verbatim") as it:
        it.work.fail(UpstreamLost("It broke."))

    assert it.viewer.delivery.cursor.finished
    assert it.work.cancels == 1


async def test_our_own_bug_gets_out_and_the_work_is_cancelled_on_the_way(anyio_backend: str) -> None:
    """It is not mistaken for an upstream's error, and viewers elsewhere are told that this is not the whole run."""
    with pytest.raises(ExceptionGroup) as caught:
        async with scene() as it:
            it.work.fail(ZeroDivisionError("a bug"))

    assert caught.group_contains(ZeroDivisionError)
    assert it.work.cancels == 1
    assert [said.get("code") for said in it.take()] == ["bridge_failed"]


async def test_a_cancelled_host_still_cancels_the_work(anyio_backend: str) -> None:
    """Ending the work is shielded from the cancellation that caused it."""
    work = ScriptedWork()
    it = Scene(work)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.run.read)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()

    assert work.closed.is_set()
    assert work.cancels == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_past_its_shield_tries_again(anyio_backend: str) -> None:
    """`asyncio.run` cancels every task when it ends, and waits for them: the work is ended all the same."""

    class Slow(ScriptedWork):
        async def cancel(self, timeout: float) -> Cancelled:
            self.cancels += 1
            if self.cancels == 1:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
            await anyio.lowlevel.checkpoint()
            return Cancelled.CONFIRMED

    work = Slow()
    it = Scene(work)
    task = asyncio.create_task(it.run.read())
    await wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert work.cancels == 2
    assert it.run.cancelled is Cancelled.CONFIRMED


@pytest.mark.parametrize("outcome", [Cancelled.REQUESTED, Cancelled.ACKNOWLEDGED, "never"])
async def test_work_that_was_not_seen_to_end_is_reported(
    anyio_backend: str, outcome: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Success is claimed for nothing less than seen gone, and cancelling never takes for ever."""
    with caplog.at_level(logging.WARNING):
        async with scene(ScriptedWork(outcome=outcome), cancel_timeout=-0.9) as it:
            it.run.leave(it.viewer)

    assert it.run.cancelled is (Cancelled.REQUESTED if outcome == "never" else outcome)
    assert "not seen to end" in caplog.text


async def test_the_log_says_why_and_nothing_that_is_secret(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Code, status and request id help whoever is on call; a whole token would let them into the run."""
    refusal = UpstreamError("No.", code="upstream_failed", upstream_status=503, request_id="req_1")
    with caplog.at_level(logging.INFO, logger="sse_bridge"):
        async with scene(ScriptedWork(refusal=refusal)):
            pass

    assert caplog.messages == ["run tokent...: upstream_failed (upstream status 503, request req_1)"]


# -- the server stops ----------------------------------------------------------------------------------------------


async def test_a_stop_ends_the_run_and_its_work(anyio_backend: str) -> None:
    """What came before is not lost; the run is done when the work is."""
    async with scene() as it:
        it.work.feed(stdout("a"))
        await wait_all_tasks_blocked()
        assert not it.run.done.is_set
        it.run.stop()
        it.run.stop()
        assert it.take() == [
            {"type": "stdout", "line": "a"},
            {"type": "error", "code": "server_stopped", "message": "The server is stopping."},
        ]
        assert not it.run.done.is_set

    assert it.run.done.is_set
    assert it.work.cancels == 1


async def test_a_stop_after_the_exit_is_no_news(anyio_backend: str) -> None:
    """The run had its end; only its reading is cut short."""
    async with scene() as it:
        it.work.feed(exit_frame())
        await wait_all_tasks_blocked()
        it.run.stop()

    assert it.take() == [{"type": "exit", "code": 0}]
    assert it.run.done.is_set
    assert it.work.cancels == 0


@pytest.mark.parametrize("is_early", [False, True])
async def test_letting_go_does_not_wait_for_the_work(
    anyio_backend: str, is_early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither before its ending has begun nor after, and the log says that it may run on."""
    async with scene(ScriptedWork(outcome="hangs"), cancel_timeout=1000.0) as it:
        if is_early:
            it.run.let_go()
        it.run.stop()
        await wait_all_tasks_blocked()
        if not is_early:
            assert not it.run.done.is_set
            it.run.let_go()

    assert it.run.done.is_set
    assert it.work.cancels == (0 if is_early else 1)
    assert it.run.cancelled is Cancelled.REQUESTED
    assert "not seen to end" in caplog.text
