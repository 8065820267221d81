"""`POST` requests that carry an idempotency key."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked
from starlette.requests import Request

from sse_bridge import Block, SSEBridge
from sse_bridge.errors import (
    UpstreamError,
    UpstreamMisbehaved,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tests.support.asgi import lines
from tests.support.site import site
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


async def test_a_repeated_key_attaches_to_the_run_it_started(anyio_backend: str) -> None:
    """A client that sends its `POST` again gets the same run from its beginning. Another key starts another run."""
    works = [ScriptedWork(), ScriptedWork()]
    async with site(*works) as it:
        first = it.open("POST", idempotency_key="k1")
        works[0].feed(stdout("a"))
        await first.until(lambda: first.events)
        other = it.open("POST", idempotency_key="k2")
        await other.until(lambda: other.content)
        again = it.open("POST", idempotency_key="k1")
        await again.until(lambda: again.events)
        for work in works:
            work.feed(exit_frame())
            work.finish()

    assert lines(first) == lines(again) == ["a", "exit"]
    assert first.headers["sse-bridge-run"] == again.headers["sse-bridge-run"] != other.headers["sse-bridge-run"]
    assert not any(work.cancels for work in works)


async def test_two_requests_with_one_key_at_the_same_time_start_one_run(anyio_backend: str) -> None:
    """The first to get its source starts it, however long `resolve` takes."""
    works, gate = [ScriptedWork(), ScriptedWork()], anyio.Event()
    resolved = iter(works)

    async def resolve(request: Request) -> ScriptedWork:
        work = next(resolved)
        await gate.wait()
        return work

    async with site() as it:
        it.bridge = SSEBridge(None, resolve)
        pages = [it.open("POST", idempotency_key="k") for _ in range(2)]
        await wait_all_tasks_blocked()
        gate.set()
        for work in works:
            work.feed(exit_frame())
            work.finish()
        for page in pages:
            await page.until(lambda: page.ended)  # noqa: B023

    assert sorted(work.started.is_set() for work in works) == [False, True]
    assert [lines(page) for page in pages] == [["exit"], ["exit"]]


async def test_a_key_whose_request_was_refused_may_be_used_again(anyio_backend: str) -> None:
    """The refused run is forgotten."""
    refused = ScriptedWork(refusal=UpstreamRefused("Busy.", code="not_ready", status=503, started_nothing=True))
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with site(refused, work) as it:
        first = await it.answer("POST", idempotency_key="k")
        await wait_all_tasks_blocked()
        second = await it.answer("POST", idempotency_key="k")

    assert (first.status, second.status) == (503, 200)


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamUnreachable("It broke before the answer."),
        UpstreamTimeout("The answer took too long."),
        UpstreamMisbehaved("No event stream."),
        UpstreamRefused("It failed.", upstream_status=500),
    ],
)
async def test_a_key_whose_request_may_have_had_an_effect_sends_no_other(
    anyio_backend: str, failure: UpstreamError
) -> None:
    """The upstream may have acted on the first request, though it gave no stream. The same key gets the same answer.

    The scripted work has nothing to cancel, like an `EventStream` that is a `POST`.
    """
    failed, other = ScriptedWork(refusal=failure), ScriptedWork()
    async with site(failed, other) as it:
        first = await it.answer("POST", idempotency_key="k")
        await wait_all_tasks_blocked()
        second = await it.answer("POST", idempotency_key="k")

    assert first.status == second.status in (502, 504)
    assert not other.started.is_set()


@pytest.mark.parametrize(("method", "key"), [("GET", "k"), ("POST", "")])
async def test_only_a_post_with_a_key_is_repeated(anyio_backend: str, method: str, key: str) -> None:
    """Two `GET`s with the same key are two visits, and so are two `POST`s with an empty one."""
    works = [ScriptedWork(), ScriptedWork()]
    for work in works:
        work.feed(exit_frame())
        work.finish()
    async with site(*works) as it:
        pages = [await it.answer(method, idempotency_key=key) for _ in works]

    assert len({page.headers["sse-bridge-run"] for page in pages}) == 2


async def test_a_second_viewer_of_a_refused_run_gets_the_refusal(anyio_backend: str) -> None:
    """It waits for the same answer of the upstream."""
    work = ScriptedWork(answers=False, refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with site(work, work, commit_after=None) as it:
        pages = [it.open("POST", idempotency_key="k") for _ in range(2)]
        await wait_all_tasks_blocked()
        work.answer()

    assert [page.status for page in pages] == [404, 404]


async def test_one_key_starts_one_run_however_long_choosing_takes(anyio_backend: str) -> None:
    """The key is looked up after the last wait for the application."""

    async def choose(request: Request) -> Block:
        for _ in range(int(request.headers["wait"])):
            await anyio.lowlevel.checkpoint()
        return Block()

    work, other = ScriptedWork(), ScriptedWork()
    async with site(work, other, policy=choose) as it:
        pages = [it.open("POST", idempotency_key="k", wait=wait) for wait in ("20", "30")]
        for page in pages:
            await page.until(lambda: page.content)  # noqa: B023
        for one in (work, other):
            one.feed(exit_frame())
            one.finish()

    assert len({page.headers["sse-bridge-run"] for page in pages}) == 1
    assert [work.started.is_set(), other.started.is_set()].count(True) == 1
