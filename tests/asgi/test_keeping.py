"""How long runs are kept, and how long runs and viewers may take."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.errors import UpstreamRefused
from tests.support.asgi import ids, lines
from tests.support.site import Site, site
from tests.support.work import ScriptedWork, SlowToEnd, exit_frame, finished, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def is_kept(it: Site, token: str) -> bool:
    """Asks for the state, which leaves the time of the run as it is."""
    return (await it.answer(path=f"/{token}", accept="application/json")).status == 200


async def over(it: Site, work: ScriptedWork) -> str:
    run = await it.bridge.start(work)
    await run.wait()
    return run.token


# -- `keep`


@pytest.mark.parametrize(("keep", "seconds"), [(60.0, 60), (5, 5), (0, 0)])
async def test_a_run_is_kept_after_its_end(keep: float, seconds: float) -> None:
    """Its time counts from the end. Asking for the state leaves it as it is."""
    async with site(keep=keep, within=1000) as it:
        run = await over(it, finished())
        if seconds:
            await anyio.sleep(seconds - 0.1)
            assert await is_kept(it, run)
            await anyio.sleep(0.2)
        assert not await is_kept(it, run)


@pytest.mark.parametrize("limit", [{"keep": 0}, {"keep_bytes": 0}])
async def test_a_run_is_known_while_its_command_is_being_ended(limit: dict[str, Any]) -> None:
    """Its time begins once the command is gone. Until then it counts, its key starts no second command, and a `DELETE`
    waits for it.
    """
    work, other = SlowToEnd(), ScriptedWork()
    async with site(work, other, max_runs=1, **limit) as it:
        page = it.open("POST", idempotency_key="k")
        await page.until(lambda: page.content)
        first = it.open("DELETE", f"/{page.headers['sse-bridge-run']}")
        await page.until(lambda: page.ended)
        second = it.open("DELETE", f"/{page.headers['sse-bridge-run']}")
        again = await it.answer("POST", idempotency_key="k")
        refused = await it.answer()
        await wait_all_tasks_blocked()
        assert not second.ended
        work.let_end.set()
        for asked in (first, second):
            await asked.until(lambda: asked.ended)  # noqa: B023

    assert (first.status, second.status, refused.status) == (204, 204, 503)
    assert lines(again) == ["error"]
    assert not other.started.is_set()


async def test_without_a_limit_a_run_is_kept() -> None:
    """`None` switches the limit off."""
    async with site(keep=None, within=10**7) as it:
        run = await over(it, finished("a"))
        await anyio.sleep(10**6)
        assert lines(await it.answer(path=f"/{run}")) == ["a", "exit"]


async def test_the_time_counts_from_the_last_viewers_leaving() -> None:
    """A slow viewer that is cut off finds the rest, however long ago the run ended. Coming back begins it anew."""
    work = ScriptedWork()
    async with site(work, keep=10, send_timeout=100, within=1000) as it:
        page, run = await it.started()
        page.stall()
        work.feed(stdout("a"), exit_frame())
        work.finish()
        await anyio.sleep(50)
        page.resume()
        page.leave()
        await wait_all_tasks_blocked()
        await anyio.sleep(9)
        assert lines(await it.answer(seen=f"{run}.0")) == ["a", "exit"]
        await anyio.sleep(9)
        assert await is_kept(it, run)
        await anyio.sleep(1.1)
        assert not await is_kept(it, run)


@pytest.mark.parametrize("keep_bytes", [0, 10**5])
async def test_beyond_keep_bytes_the_oldest_runs_are_forgotten(keep_bytes: int) -> None:
    """The newest run is always kept, however large it is. A run with a viewer stays."""
    text = "x" * 60_000
    async with site(keep_bytes=keep_bytes) as it:
        watched = it.open()
        await watched.until(lambda: watched.content)
        runs = [await over(it, finished(text)) for _ in range(3)]
        assert [await is_kept(it, run) for run in runs] == [False, False, True]
        assert await is_kept(it, watched.headers["sse-bridge-run"])
        await it.bridge.shutdown()


async def test_small_runs_count_too() -> None:
    """A run holds more than its frames, so the number of silent runs is bounded, too."""
    async with site(keep_bytes=10**6) as it:
        runs = [await over(it, finished()) for _ in range(100)]
        kept = [await is_kept(it, run) for run in runs]

    assert kept == sorted(kept)
    assert 20 < sum(kept) < 90


# -- `max_run_time`


async def test_a_run_that_takes_too_long_is_ended_with_its_command() -> None:
    """Its viewers are told why. What it printed stays."""
    work = ScriptedWork()
    async with site(work, max_run_time=30, grace=None, within=100) as it:
        page, _ = await it.started()
        work.feed(stdout("a"))
        await anyio.sleep(29.9)
        assert not page.ended
        await anyio.sleep(0.2)
        assert page.ended

    assert lines(page) == ["a", "error"]
    assert page.objects[-1]["code"] == "time_limit"
    assert work.cancels == 1


async def test_the_time_of_a_run_counts_while_the_upstream_is_silent() -> None:
    """The clock runs from the start. The viewer that waits for the head gets 410."""
    work = ScriptedWork(answers=False)
    async with site(work, max_run_time=5, commit_after=None) as it:
        before = anyio.current_time()
        page = await it.answer()
        assert anyio.current_time() == pytest.approx(before + 5, abs=0.1)

    assert (page.status, page.error["code"]) == (410, "time_limit")
    assert work.cancels == 1


# -- late refusals


@pytest.mark.parametrize("waits", [0, 30])
async def test_a_viewer_that_was_away_learns_why_the_upstream_refused(waits: float) -> None:
    """It has seen the run begin. The fault: the run was unknown when it came back."""
    refusal = UpstreamRefused("No.", code="not_found", status=404, started_nothing=True)
    work, other = ScriptedWork(answers=False, refusal=refusal), ScriptedWork()
    async with site(work, other, commit_after=1, grace=60, within=1000) as it:
        page = it.open("POST", idempotency_key="k")
        await page.until(lambda: page.content, 10)
        page.leave()
        await wait_all_tasks_blocked()
        work.answer()
        await anyio.sleep(waits)
        back = it.open(seen=page.dispatched[-1].id)
        await back.until(lambda: back.ended)
        sent_away = await it.answer(seen=back.dispatched[-1].id)
        again = it.open("POST", idempotency_key="k")
        await again.until(lambda: again.content, 10)
        other.feed(exit_frame())
        other.finish()

    assert (back.status, [event.id for event in back.dispatched]) == (200, [f"{page.headers['sse-bridge-run']}.1"])
    assert '"code":"not_found"' in (back.dispatched[-1].data or "")
    assert sent_away.status == 204
    assert again.headers["sse-bridge-run"] != page.headers["sse-bridge-run"]


@pytest.mark.parametrize("dialect", ["typed", "verbatim"])
@pytest.mark.parametrize("has_seen", [False, True])
async def test_a_run_that_was_refused_for_now_is_over_for_good(dialect: str, has_seen: bool) -> None:
    """A 503 would have its clients ask for it again and again, until it is forgotten."""
    refusal = UpstreamRefused("Not ready.", code="not_ready", status=503, started_nothing=True)
    work = ScriptedWork(answers=False, refusal=refusal)
    async with site(work, commit_after=1, dialect=dialect, ids=True, within=1000) as it:
        page = it.open()
        await page.until(lambda: page.content, 10)
        token = page.headers["sse-bridge-run"]
        work.answer()
        await page.until(lambda: page.ended, 10)
        seen = {"seen": f"{token}.0"} if has_seen else {}
        again = await it.answer(path=f"/{token}", **seen)

    if has_seen:
        assert again.status == (200 if dialect == "typed" else 204)
    else:
        assert (again.status, again.error["code"], again.headers.get("retry-after")) == (410, "not_ready", None)


# -- `max_viewer_time`


async def test_a_viewer_whose_time_is_up_comes_back_and_gets_every_line() -> None:
    """Its response ends, and the run goes on. The next response continues behind the last frame."""
    work = ScriptedWork()
    got: list[Any] = []
    numbers: list[int] = []
    times: list[float] = []

    async def browse(it: Site) -> None:
        seen = None
        while True:
            page, began = it.open(seen=seen), anyio.current_time()
            await page.until(lambda: page.ended, 100)  # noqa: B023
            if page.status == 204:
                return
            times.append(anyio.current_time() - began)
            got.extend(lines(page))
            numbers.extend(ids(page))
            seen = page.dispatched[-1].id if page.dispatched else seen

    async with site(work, max_viewer_time=10, grace=5, within=1000) as it:
        it.tasks.start_soon(browse, it)
        for number in range(100):
            await anyio.sleep(0.7)
            work.feed(stdout(str(number)))
        work.feed(exit_frame())
        work.finish()

    assert got == [*map(str, range(100)), "exit"]
    assert numbers == list(range(1, 102))
    assert len(times) == 8
    assert times[:-1] == pytest.approx([10] * 7, abs=0.1)
    assert work.cancels == 0


@pytest.mark.parametrize("grace", [0, 0.1, 60])
@pytest.mark.parametrize("retry_ms", [None, 500, 30_000])
async def test_a_viewer_whose_time_is_up_finds_its_run(grace: float, retry_ms: int | None) -> None:
    """The bridge sent it away, so it has time to come back, however short the grace period is. One that stays away
    ends the run.
    """
    work = ScriptedWork()
    away = (retry_ms or 3000) / 1000 + 1
    async with site(work, max_viewer_time=5, grace=grace, retry_ms=retry_ms, within=1000) as it:
        page, _ = await it.started()
        work.feed(stdout("a"))
        await page.until(lambda: page.ended, 100)
        await anyio.sleep(away)
        again = it.open(seen=page.dispatched[-1].id)
        work.feed(stdout("b"))
        await again.until(lambda: again.ended, 100)
        assert work.cancels == 0
        await anyio.sleep(max(grace, (retry_ms or 0) / 1000 + 10) + 0.1)
        assert work.cancels == 1

    assert [*lines(page), *lines(again)] == ["a", "b"]


async def test_a_viewer_whose_time_is_up_finds_its_run_although_that_has_ended() -> None:
    """However short `keep` is. The fault: it never learned how the run ended."""
    work = ScriptedWork()
    async with site(work, max_viewer_time=5, grace=0, keep=0, within=1000) as it:
        page, token = await it.started()
        work.feed(stdout("a"))
        await page.until(lambda: page.ended, 100)
        work.feed(exit_frame())
        work.finish()
        await anyio.sleep(4)
        again = await it.answer(seen=page.dispatched[-1].id)
        await anyio.sleep(20)
        assert not await is_kept(it, token)

    assert lines(again) == ["exit"]


async def test_a_run_to_which_a_viewer_comes_back_keeps_no_other_run() -> None:
    """With `keep=0`, a key starts a new run, although one that was left before is still kept."""
    work = ScriptedWork()
    async with site(work, finished("b"), finished("c"), max_viewer_time=5, grace=0, keep=0, within=1000) as it:
        page, _ = await it.started()
        await page.until(lambda: page.ended, 100)
        work.feed(exit_frame())
        work.finish()
        await anyio.sleep(1)
        first = await it.answer("POST", idempotency_key="k")
        await anyio.sleep(1)
        second = await it.answer("POST", idempotency_key="k")

    assert first.headers["sse-bridge-run"] != second.headers["sse-bridge-run"]


async def test_a_viewer_that_leaves_before_its_time_is_up_ends_the_run() -> None:
    """Without a grace period it does so at once: it left by itself."""
    work = ScriptedWork()
    async with site(work, max_viewer_time=5, grace=0, within=100) as it:
        page, _ = await it.started()
        page.leave()
        await wait_all_tasks_blocked()
        assert work.cancels == 1


@pytest.mark.parametrize("stalls", [False, True])
async def test_a_viewer_under_load_has_the_same_time(stalls: bool) -> None:
    """The time is up between two frames. A viewer that stalls is cut by `send_timeout`."""
    work = ScriptedWork()
    async with site(work, max_viewer_time=5, grace=0, within=100, send_timeout=2) as it:
        page, _ = await it.started()
        if stalls:
            page.stall()
        for _ in range(100):
            work.feed(stdout("a"))
            await anyio.sleep(0.1)

    assert page.ended is not stalls
    assert work.cancels == 1


async def test_the_limits_are_off_by_default() -> None:
    """A response goes on for hours."""
    work = ScriptedWork()
    async with site(work, heartbeat=None, within=10**6) as it:
        page, _ = await it.started()
        await anyio.sleep(3 * 3600)
        assert not page.ended
        page.leave()
