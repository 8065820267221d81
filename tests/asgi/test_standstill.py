"""The process stands still: its container is paused, or code of the application's blocks the event loop.

When it goes on, every timer of the event loop is overdue at once, while clients and upstreams have had no chance to do
anything. Time in which we were not running is their delay no more than it is ours.
"""

from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge import Block, Outcome, RunInfo
from sse_bridge.errors import UpstreamRefused
from sse_bridge.upstream.base import Cancelled
from tests.support.asgi import lines
from tests.support.site import site
from tests.support.virtual_time import stand_still
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

#: Longer than a test may take in the event loop's time.
LONG = 10**7

standstill = pytest.mark.parametrize("seconds", [5.0, 40.0, 86_400.0])


async def until_idle() -> None:
    """What was overdue has happened."""
    await anyio.sleep(0.1)
    await wait_all_tasks_blocked()


@standstill
async def test_a_run_is_kept_for_a_browser_that_comes_back(anyio_backend: str, seconds: float) -> None:
    """The grace period goes on where it was, and ends in its time if no browser comes."""
    work = ScriptedWork()
    async with site(work, grace=4, within=LONG) as it:
        page, run = await it.started()
        work.feed(stdout("a"))
        await page.until(lambda: lines(page) == ["a"])
        page.leave()
        await anyio.sleep(2)
        stand_still(seconds)
        await until_idle()
        back = it.open(seen=f"{run}.1")
        work.feed(stdout("b"))
        await back.until(lambda: lines(back) == ["b"])
        back.leave()
        await anyio.sleep(3.9)
        assert work.cancels == 0
        await anyio.sleep(0.3)
        assert work.cancels == 1


@standstill
async def test_a_send_that_hangs_has_its_time(anyio_backend: str, seconds: float) -> None:
    """The client that takes it afterwards was not stalled; one that takes nothing is, after the rest of the time."""
    work = ScriptedWork()
    async with site(work, send_timeout=4, grace=None, within=LONG) as it:
        page, _ = await it.started()
        for line in ("a", "b"):
            page.stall()
            work.feed(stdout(line))
            await anyio.sleep(2)
            stand_still(seconds)
            await until_idle()
            page.resume()
            await page.until(lambda: line in lines(page))  # noqa: B023
        page.stall()
        work.feed(stdout("c"), exit_frame())
        work.finish()
        await anyio.sleep(2)
        assert it.bridge.statistics().viewers == 1
        await anyio.sleep(2.1)
        assert it.bridge.statistics().viewers_stalled == 1


@standstill
async def test_a_viewer_that_holds_the_run_has_its_time(anyio_backend: str, seconds: float) -> None:
    """`stall_timeout`."""
    work = ScriptedWork()
    policy = Block(high_water=100, stall_timeout=4)
    async with site(work, policy=policy, send_timeout=None, grace=None, within=LONG) as it:
        page, _ = await it.started()
        page.stall()
        work.feed(*[stdout("x" * 50)] * 20)
        await anyio.sleep(2)
        stand_still(seconds)
        await until_idle()
        page.resume()
        work.feed(exit_frame())
        work.finish()
        await page.until(lambda: page.ended)

        assert lines(page) == ["x" * 50] * 20 + ["exit"]
        assert it.bridge.statistics().viewers_stalled == 0


@standstill
async def test_an_upstreams_answer_has_its_time(anyio_backend: str, seconds: float) -> None:
    """`commit_after`: the refusal still has its status."""
    work = ScriptedWork(answers=False, refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with site(work, commit_after=4, within=LONG) as it:
        page = it.open()
        await anyio.sleep(2)
        stand_still(seconds)
        await until_idle()
        work.answer()
        await page.until(lambda: page.ended)

    assert page.status == 404


@standstill
async def test_ending_a_command_has_its_time(anyio_backend: str, seconds: float) -> None:
    """`cancel_timeout`: a request whose time was over when the process went on is made again, for the rest of it."""

    class SlowToAnswer(ScriptedWork):
        async def cancel(self, timeout: float) -> Cancelled:
            self.cancels += 1
            with anyio.move_on_after(timeout):
                for _ in range(30):  # three seconds of running
                    await anyio.sleep(0.1)
                return Cancelled.CONFIRMED
            return Cancelled.REQUESTED

    work = SlowToAnswer()
    async with site(work, cancel_timeout=6, within=LONG) as it:
        page, run = await it.started()
        it.open("DELETE", f"/{run}")
        await anyio.sleep(2)
        stand_still(seconds)
        await anyio.sleep(4)
        counted = it.bridge.statistics().cancels

    assert (counted.confirmed, counted.requested) == (1, 0)
    assert work.cancels == 2
    assert page.ended


@standstill
async def test_the_time_of_runs_and_viewers_goes_on_where_it_was(anyio_backend: str, seconds: float) -> None:
    """`max_run_time` and `max_viewer_time`. An operator's limit is for what we made of the time."""
    work = ScriptedWork()
    async with site(work, max_run_time=6, max_viewer_time=4, grace=None, within=LONG) as it:
        page, run = await it.started()
        await anyio.sleep(2)
        stand_still(seconds)
        await until_idle()
        assert not page.ended
        await anyio.sleep(2)
        assert page.ended
        back = it.open(seen=f"{run}.0")
        await anyio.sleep(1)
        assert not back.ended
        await anyio.sleep(1)
        assert lines(back) == ["error"]


@standstill
async def test_an_upstream_has_its_time_to_end_its_response(anyio_backend: str, seconds: float) -> None:
    """A response that is read to its end leaves a connection that can be used again."""
    work = ScriptedWork()
    async with site(work, within=LONG) as it:
        await it.started()
        work.feed(exit_frame())
        await anyio.sleep(0.2)
        stand_still(seconds)
        await until_idle()
        work.finish()

    assert work.was_read_to_its_end


@standstill
async def test_heartbeats_keep_their_interval(anyio_backend: str, seconds: float) -> None:
    """There is one for the silence that we made, and none for each interval of it."""
    work = ScriptedWork()
    async with site(work, heartbeat=4, within=LONG) as it:
        page, _ = await it.started()
        await anyio.sleep(2)
        stand_still(seconds)
        await until_idle()
        assert page.content.count(b": heartbeat") == 0
        await anyio.sleep(2)
        assert page.content.count(b": heartbeat") == 1
        work.feed(exit_frame())
        work.finish()


async def test_a_run_says_how_long_it_really_took(anyio_backend: str) -> None:
    """`Outcome.duration` is what a user waits."""
    durations: list[float] = []

    async def note(run: RunInfo, outcome: Outcome) -> None:
        durations.append(outcome.duration)

    work = ScriptedWork()
    async with site(work, on_end=note, within=LONG) as it:
        await it.started()
        await anyio.sleep(1)
        stand_still(40)
        await anyio.sleep(1)
        work.feed(exit_frame())
        work.finish()
        await until_idle()

    assert durations == [pytest.approx(42, abs=0.1)]
