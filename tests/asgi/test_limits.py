"""Policies, rates and bounds for each viewer, and the count of everything."""

from __future__ import annotations

import gc
import weakref
from dataclasses import FrozenInstanceError

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sse_bridge import Block, CancelStatistics, Coalesce, Drop, TokenBucket
from tests.support.asgi import lines
from tests.support.site import site
from tests.support.work import ScriptedWork, SlowToEnd, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def test_each_viewer_may_have_its_own_policy() -> None:
    """A function of the request chooses. The others outrun a slow viewer that may lose lines."""

    async def choose(request: Request) -> Block | Drop | Coalesce:
        policies: dict[str, Block | Drop | Coalesce] = {
            "drop": Drop(6000),
            "merge": Coalesce(max_rate=None),
            "merge and drop": Coalesce(6000, beyond="drop"),
        }
        return policies.get(request.headers.get("policy", ""), Block())

    work = ScriptedWork()
    async with site(work, policy=choose) as it:
        all_of_it = it.open()
        await all_of_it.until(lambda: all_of_it.content)
        run = all_of_it.headers["sse-bridge-run"]
        merged = it.open(path=f"/{run}", policy="merge")
        slow = [it.open(path=f"/{run}", policy=policy) for policy in ("drop", "merge and drop")]
        for page in slow:
            await page.until(lambda: page.content)  # noqa: B023
            page.stall()
        work.feed(stdout("first"))
        await wait_all_tasks_blocked()
        for number in range(20):
            work.feed(stdout(str(number).ljust(5000, ".")))
        work.feed(stdout("a", "b", "c"), exit_frame())
        work.finish()
        await all_of_it.until(lambda: all_of_it.ended)
        for page in slow:
            page.resume()
            await page.until(lambda: page.ended)  # noqa: B023

    printed = ["first", *[str(number).ljust(5000, ".") for number in range(20)], "a", "b", "c", "exit"]
    assert lines(all_of_it) == printed
    assert "\n".join(lines(merged)) == "\n".join(printed)
    assert len(merged.events) < len(all_of_it.events)
    for page in slow:
        gap = next(said for said in page.objects if said["type"] == "gap")
        shown = "\n".join(line for line in lines(page) if line != "gap").split("\n")
        assert gap["dropped"] + len(shown) == len(printed)
        assert lines(page)[-1] == "exit"


async def test_each_viewer_may_have_its_own_rate() -> None:
    """A function of the request chooses a bucket or `None`."""

    async def choose(request: Request) -> TokenBucket | None:
        return TokenBucket(1, burst=2) if "slow" in request.headers else None

    work = ScriptedWork()
    async with site(work, rate=choose) as it:
        quick = it.open()
        await quick.until(lambda: quick.content)
        slow = it.open(path="/" + quick.headers["sse-bridge-run"], slow="yes")
        work.feed(stdout("a", "b", "c", "d"))
        await quick.until(lambda: len(quick.events) == 4)
        await slow.until(lambda: len(slow.events) == 2)
        await wait_all_tasks_blocked()
        assert lines(slow) == ["a", "b"]
        await anyio.sleep(1.1)
        assert lines(slow) == ["a", "b", "c"]
        slow.leave()
        work.feed(exit_frame())
        work.finish()


async def test_a_function_that_chooses_may_refuse() -> None:
    """It raises as `resolve` does, and the work stays unstarted."""

    async def choose(request: Request) -> Block:
        raise HTTPException(402, "Pay first.")

    work = ScriptedWork()
    async with site(work, policy=choose) as it:
        page = await it.answer()

    assert (page.status, page.error["message"]) == (402, "Pay first.")
    assert not work.started.is_set()


async def test_beyond_max_runs_a_start_is_refused() -> None:
    """The answer is 503 with `Retry-After` until a run is over. Requests that only follow a run are let in."""
    works = [ScriptedWork(), ScriptedWork(), ScriptedWork()]
    async with site(*works, max_runs=1) as it:
        first = it.open()
        await first.until(lambda: first.content)
        turned_away = await it.answer()
        follower = it.open(path="/" + first.headers["sse-bridge-run"])
        works[0].feed(exit_frame())
        works[0].finish()
        await first.until(lambda: first.ended)
        await wait_all_tasks_blocked()
        works[2].feed(exit_frame())
        works[2].finish()
        third = await it.answer()

    assert (turned_away.status, turned_away.headers["retry-after"]) == (503, "5")
    assert turned_away.error["code"] == "busy"
    assert not works[1].started.is_set()
    assert lines(follower) == lines(third) == ["exit"]
    assert it.bridge.statistics().requests_turned_away == 1


async def test_a_run_counts_until_its_work_has_ended() -> None:
    """The work of a run that was cancelled may take a while to end, and a new one would run beside it."""
    work = SlowToEnd()
    async with site(work, max_runs=1) as it:
        page, run = await it.started()
        await it.answer("DELETE", f"/{run}")
        await page.until(lambda: page.ended)
        refused = await it.answer()
        work.let_end.set()
        await wait_all_tasks_blocked()
        second, _ = await it.started()
        second.leave()
        await it.bridge.shutdown()

    assert refused.status == 503


async def test_a_bridge_forgets_its_runs() -> None:
    """A minute after a run's end, the next request frees its memory."""
    works: list[weakref.ref[ScriptedWork]] = []

    async def resolve(request: Request) -> ScriptedWork:
        work = ScriptedWork()
        works.append(weakref.ref(work))
        if "ends" in request.headers:
            work.feed(exit_frame())
            work.finish()
        return work

    async with site(resolve=resolve, within=200, grace=0) as it:
        staying, _ = await it.started()
        over = await it.answer(ends="yes")
        await anyio.sleep(61)
        await it.answer(path="/" + over.headers["sse-bridge-run"])
        gc.collect()
        assert [work() is None for work in works] == [False, True]
        staying.leave()


async def test_beyond_max_viewers_every_viewer_is_refused() -> None:
    """This holds for starting a run and for following one. A place is free again once its viewer has left."""
    work = ScriptedWork()
    async with site(work, max_viewers=2) as it:
        first = it.open()
        await first.until(lambda: first.content)
        run = first.headers["sse-bridge-run"]
        second = it.open(path=f"/{run}")
        await second.until(lambda: second.content)
        assert [(await it.answer()).status, (await it.answer(path=f"/{run}")).status] == [503, 503]
        second.leave()
        await wait_all_tasks_blocked()
        third = it.open(path=f"/{run}")
        await third.until(lambda: third.content)
        work.feed(exit_frame())
        work.finish()

    assert third.status == 200
    assert it.bridge.statistics().viewers_seen == 3


async def test_statistics_count_runs_viewers_and_frames() -> None:
    """They count what is there now and what was there since the beginning. A snapshot stays as it is."""
    work, second = ScriptedWork(), ScriptedWork()
    async with site(work, second, grace=0) as it:
        assert it.bridge.statistics().runs == ()
        first = it.open()
        await first.until(lambda: first.content)
        other = it.open(path="/" + first.headers["sse-bridge-run"])
        await other.until(lambda: other.content)
        work.feed(stdout("a", "b"))
        await other.until(lambda: len(other.events) == 2)
        await wait_all_tasks_blocked()
        now = it.bridge.statistics()
        assert (len(now.runs), now.viewers, now.runs_started, now.viewers_seen) == (1, 2, 1, 2)
        assert (now.frames_in, now.frames_out, now.frames_dropped) == (2, 4, 0)
        assert now.bytes_out == 2 * now.bytes_in == 2 * now.runs[0].bytes_in
        work.feed(exit_frame())
        work.finish()
        await first.until(lambda: first.ended)

        gone = it.open()
        await gone.until(lambda: gone.content)
        gone.leave()
        await second.closed.wait()

    after = it.bridge.statistics()
    assert (after.runs, after.viewers, after.runs_started, after.viewers_seen) == ((), 0, 2, 3)
    assert (after.frames_in, after.frames_out) == (4, 6)
    assert after.cancels == CancelStatistics(requested=0, acknowledged=0, confirmed=1)
    assert now.viewers == 2
    with pytest.raises(FrozenInstanceError):
        after.cancels.confirmed = 0  # type: ignore[misc]


async def test_a_run_in_the_statistics_cannot_be_followed_by_its_name() -> None:
    """Metrics have many readers, so they show a piece of the token, as logs do."""
    work = ScriptedWork()
    async with site(work) as it:
        page = it.open()
        await page.until(lambda: page.content)
        name = it.bridge.statistics().runs[0].name
        run = page.headers["sse-bridge-run"]
        work.feed(exit_frame())
        work.finish()

    assert run.startswith(name)
    assert len(run) - len(name) >= 10
