"""Keys by which requests share a run: the application's own, and the header of a `POST`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked
from starlette.requests import Request

from sse_bridge import Block
from sse_bridge.errors import UpstreamRefused
from sse_bridge.upstream.base import Stream
from tests.support.asgi import Page, lines
from tests.support.site import site
from tests.support.work import ScriptedWork, exit_frame, finished, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def feed_key(request: Request) -> str | None:
    return request.headers.get("x-feed")


async def who(request: Request) -> str | None:
    return request.headers.get("x-user")


async def heads(pages: list[Page]) -> set[str]:
    for page in pages:
        await page.until(lambda: page.content)  # noqa: B023
    return {page.headers["sse-bridge-run"] for page in pages}


async def test_a_hundred_tabs_share_one_feed() -> None:
    """One run feeds them all, and it ends when the last of them has left."""
    work = ScriptedWork()
    async with site(work, key=feed_key, grace=0) as it:
        pages = [it.open(x_feed="prices") for _ in range(100)]
        assert len(await heads(pages)) == 1
        work.feed(stdout("a"))
        for page in pages:
            await page.until(lambda: page.events)  # noqa: B023
            assert work.cancels == 0
            page.leave()

    assert [lines(page) for page in pages] == [["a"]] * 100
    assert work.cancels == 1
    assert it.bridge.statistics().runs_started == 1


@pytest.mark.parametrize("rounds", range(60))
async def test_a_page_that_mounts_twice_starts_one_command(rounds: int) -> None:
    """It opens, closes and opens its stream again within milliseconds."""
    works = [ScriptedWork(), ScriptedWork()]
    async with site(*works, key=feed_key, grace=5) as it:
        first = it.open(x_feed="k")
        for _ in range(rounds):
            await anyio.lowlevel.checkpoint()
        first.leave()
        second = it.open(x_feed="k")
        await second.until(lambda: second.content)
        assert sum(work.started.is_set() for work in works) <= 1
        await wait_all_tasks_blocked()
        assert sum(work.started.is_set() for work in works) == 1
        for work in works:
            work.feed(stdout("a"), exit_frame())
            work.finish()

    assert lines(second) == ["a", "exit"]


class SlowToLeave(ScriptedWork):
    """Work whose stream takes time to be left."""

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Stream]:
        async with super().stream() as stream:
            try:
                yield stream
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(3)


@pytest.mark.parametrize("late", [0, 0.1, 1, 2.9])
@pytest.mark.parametrize("grace", [0, 0.1, 5])
async def test_a_viewer_that_comes_after_the_grace_period_gets_a_run_of_its_own(grace: float, late: float) -> None:
    """Also while the stream of the abandoned run is still being left."""
    work, other = SlowToLeave(), finished("b")
    async with site(work, other, key=feed_key, grace=grace, within=100) as it:
        first = it.open(x_feed="k")
        await work.started.wait()
        first.leave()
        await wait_all_tasks_blocked()
        await anyio.sleep(grace + late)
        second = await it.answer(x_feed="k")
        await work.closed.wait()

    assert lines(second) == ["b", "exit"]


@pytest.mark.parametrize("rounds", range(60))
async def test_a_client_that_leaves_during_a_start_leaves_nothing_behind(rounds: int) -> None:
    """Whenever it leaves. A command that has started is ended, and the key is free for another source."""
    work, other = ScriptedWork(answers=rounds % 2 == 0), ScriptedWork(command="rm")
    other.feed(exit_frame())
    other.finish()
    async with site(work, other, grace=0, keep=0, max_runs=1) as it:
        page = it.open("POST", idempotency_key="k")
        for _ in range(rounds):
            await anyio.lowlevel.checkpoint()
        page.leave()
        await wait_all_tasks_blocked()
        assert it.bridge.statistics().runs == ()
        assert work.cancels == work.started.is_set()
        again = await it.answer("POST", idempotency_key="k")

    assert lines(again) == ["exit"]


async def test_a_feed_that_has_ended_starts_anew() -> None:
    """A key of the application's own names a feed, which may have one exec after another."""
    async with site(finished("a"), finished("b"), key=feed_key) as it:
        pages = [await it.answer(x_feed="k") for _ in range(2)]

    assert [lines(page) for page in pages] == [["a", "exit"], ["b", "exit"]]


async def test_an_exec_that_has_ended_is_read_again_by_its_idempotency_key() -> None:
    """For the time that runs are kept. After that the key is unknown."""
    async with site(finished("a"), finished("b"), finished("c"), keep=10, within=100) as it:
        pages = [await it.answer("POST", idempotency_key="k") for _ in range(2)]
        await anyio.sleep(10.1)
        pages.append(await it.answer("POST", idempotency_key="k"))

    assert [lines(page)[0] for page in pages] == ["a", "a", "c"]


async def test_an_idempotency_key_returned_by_key_is_one() -> None:
    """An application may hand the header on."""

    async def from_the_header(request: Request) -> str | None:
        return request.headers.get("idempotency-key")

    async with site(finished("a"), finished("b"), key=from_the_header) as it:
        posts = [await it.answer("POST", idempotency_key="k") for _ in range(2)]

    assert [lines(page)[0] for page in posts] == ["a", "a"]


async def test_key_replaces_the_header() -> None:
    """Requests with different keys get a run each, whatever their header says. So does each `None` and ""."""
    async with site(*(ScriptedWork() for _ in range(6)), key=feed_key, grace=0) as it:
        pages = [it.open("POST", idempotency_key="k", x_feed=feed) for feed in ("a", "b", "", "")]
        pages += [it.open("POST", idempotency_key="k") for _ in range(2)]
        assert len(await heads(pages)) == 6
        for page in pages:
            page.leave()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_known_key_with_another_source_is_a_conflict(method: str) -> None:
    """The client gets 422, and the command stays unstarted."""
    works = [ScriptedWork(), ScriptedWork(command="rm")]
    async with site(*works, key=feed_key, grace=0) as it:
        first = it.open(method, x_feed="k")
        await first.until(lambda: first.content)
        second = await it.answer(method, x_feed="k")
        first.leave()

    assert (second.status, second.error["code"]) == (422, "key_conflict")
    assert not works[1].started.is_set()


@pytest.mark.parametrize("waiting", ["identify", "key", "resolve", "policy"])
@pytest.mark.parametrize("shape", [(0, 0), (5, 0), (0, 5), (30, 60)])
async def test_requests_that_race_start_one_run(waiting: str, shape: tuple[int, int]) -> None:
    """However long each function of the application takes for each of them."""

    async def hold(request: Request) -> None:
        for _ in range(int(request.headers["x-wait"])):
            await anyio.lowlevel.checkpoint()

    async def slow_key(request: Request) -> str:
        await hold(request)
        return "k"

    async def slow_who(request: Request) -> str:
        await hold(request)
        return "ann"

    async def slow_policy(request: Request) -> Block:
        await hold(request)
        return Block()

    works: list[ScriptedWork] = []

    async def resolve(request: Request) -> ScriptedWork:
        if waiting == "resolve":
            await hold(request)
        works.append(finished("a"))
        return works[-1]

    options: dict[str, Any] = {
        "identify": {"identify": slow_who},
        "key": {"key": slow_key},
        "policy": {"policy": slow_policy},
    }
    async with site(resolve=resolve, **options.get(waiting, {})) as it:
        waits = [{"x_wait": str(shape[number % 2])} for number in range(6)]
        pages = [it.open("POST", idempotency_key="k", **wait) for wait in waits[:4]]
        pages += [it.open("POST", idempotency_key="k", prefer="respond-async", **wait) for wait in waits[4:]]
        tokens = await heads(pages)

    if waiting != "key":  # a feed that has ended starts anew
        assert len(tokens) == 1
        assert it.bridge.statistics().runs_started == 1
    assert [lines(page) for page in pages[:4]] == [["a", "exit"]] * 4


async def test_users_that_race_with_one_key_start_a_run_each() -> None:
    """A key belongs to an identity from the first moment on."""
    async with site(identify=who, grace=0) as it:
        pages = [it.open("POST", idempotency_key="k", x_user=user) for user in ("ann", "bob") * 3]
        tokens = await heads(pages)
        assert len(tokens) == 2
        assert len({page.headers["sse-bridge-run"] for page in pages[::2]}) == 1
        for page in pages:
            page.leave()


@pytest.mark.parametrize("key", ["x" * 100_000, " ", "é", "\x00", "k.1", "../k"])
async def test_keys_may_hold_anything(key: str) -> None:
    """They are only compared."""

    async def odd(request: Request) -> str:
        return key

    async with site(key=odd, grace=0) as it:
        pages = [it.open() for _ in range(2)]
        assert len(await heads(pages)) == 1
        for page in pages:
            page.leave()


async def test_a_key_of_a_refused_run_is_free_again() -> None:
    """Each request that waited for the answer gets the refusal, and the next one starts anew."""
    refused = ScriptedWork(answers=False, refusal=UpstreamRefused("Busy.", code="busy", status=503))
    async with site(refused, ScriptedWork(), ScriptedWork(), finished("a"), commit_after=None, key=feed_key) as it:
        pages = [
            it.open("GET", x_feed="k"),
            it.open("POST", x_feed="k"),
            it.open("POST", x_feed="k", prefer="respond-async"),
        ]
        await wait_all_tasks_blocked()
        refused.answer()
        for page in pages:
            await page.until(lambda: page.ended)  # noqa: B023
        await wait_all_tasks_blocked()
        again = await it.answer(x_feed="k")

    assert [page.status for page in pages] == [503] * 3
    assert lines(again) == ["a", "exit"]


async def test_a_deleted_run_has_lost_its_key() -> None:
    """Its feed starts anew, even while the old command is being ended."""
    old, new = ScriptedWork(outcome="hang"), finished("b")
    async with site(old, new, key=feed_key, cancel_timeout=5, within=60) as it:
        first = it.open(x_feed="k")
        (run,) = await heads([first])
        it.open("DELETE", f"/{run}")
        await wait_all_tasks_blocked()
        again = await it.answer(x_feed="k")

    assert lines(again) == ["b", "exit"]
    assert first.objects[-1]["code"] == "cancelled"


async def test_a_feed_that_ends_while_the_application_is_asked_starts_anew() -> None:
    """The fault: the viewer got the end of the run that it had not seen."""

    async def may(request: Request, run: object) -> bool:
        await anyio.sleep(1)
        return True

    async with site(ScriptedWork(), finished("b"), key=feed_key, authorize=may, grace=0) as it:
        first = it.open(x_feed="k")
        await first.until(lambda: first.content)
        second = it.open(x_feed="k")
        await anyio.sleep(0.5)
        first.leave()
        await second.until(lambda: second.ended)

    assert lines(second) == ["b", "exit"]
