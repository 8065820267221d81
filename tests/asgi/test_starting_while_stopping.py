"""Requests that come before, while and after the server begins to stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from starlette.requests import Request

from sse_bridge import Block, SSEBridge
from tests.support.asgi import Page
from tests.support.site import STOPPED, Site, never, retry_of, site, visit
from tests.support.work import ScriptedWork, SlowToEnd

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def test_new_requests_are_refused() -> None:
    """A browser that comes back too early is told to wait for the next process."""
    bridge = SSEBridge(None, never)
    await bridge.shutdown()
    await bridge.shutdown()

    for page in (Page(), Page("DELETE", "/" + "a" * 16), Page(headers={"last-event-id": "a" * 16 + ".1"})):
        await visit(bridge, page)
        assert page.status == 503
        assert page.headers["retry-after"] == "2"
        assert page.error["message"] == "The server is stopping."


async def test_before_the_upstreams_answer_a_stop_is_an_http_error() -> None:
    """The viewer gets 503, and when to come back. The work may have started, and is ended."""
    work = ScriptedWork(answers=False)
    async with site(work) as it:
        page = it.open()
        await work.started.wait()
        await it.bridge.shutdown()

    assert page.status == 503
    assert page.headers["retry-after"] == "2"
    assert page.error["code"] == "server_stopped"
    assert work.cancels == 1


async def test_that_error_waits_until_the_work_has_ended() -> None:
    """A response of this kind may be the server's last one, too."""
    work = SlowToEnd(answers=False)
    async with site(work) as it:
        page = it.open()
        await work.started.wait()
        it.tasks.start_soon(it.bridge.shutdown)
        await anyio.sleep(3)
        assert page.sent == []
        work.let_end.set()

    assert page.status == 503


async def test_an_application_that_answers_in_time_starts_no_work() -> None:
    """The stop came first."""
    answer = anyio.Event()
    work = ScriptedWork()

    async def resolve(request: Request) -> ScriptedWork:
        await answer.wait()
        return work

    async with site(resolve=resolve) as it:
        page = it.open()
        await wait_all_tasks_blocked()
        it.tasks.start_soon(it.bridge.shutdown)
        await wait_all_tasks_blocked()
        answer.set()

    assert page.status == 503
    assert not work.started.is_set()


def stops(it: Site) -> Callable[[Request], Awaitable[Block]]:
    """Chooses a policy, and stops the bridge as soon as this task waits."""

    async def choose(request: Request) -> Block:
        if "stop" in request.headers:
            it.tasks.start_soon(it.bridge.shutdown)
        return Block()

    return choose


async def test_a_stop_just_before_the_run_starts_no_work() -> None:
    """It comes after the application's answers, and before the upstream is asked."""
    work = ScriptedWork()
    async with site() as it:

        async def resolve(request: Request) -> ScriptedWork:
            return work

        it.bridge = SSEBridge(None, resolve, policy=stops(it))
        page = it.open(stop="yes")

    assert page.status == 503
    assert not work.started.is_set()


async def test_a_viewer_that_comes_in_the_same_moment_is_told() -> None:
    """The stop comes after the application's answers, and before the viewer is written to."""
    async with site() as it:

        async def resolve(request: Request) -> ScriptedWork:
            return ScriptedWork()

        it.bridge = SSEBridge(None, resolve, policy=stops(it))
        _, run = await it.started()
        other = it.open(path=f"/{run}", stop="yes")

    assert other.objects == [STOPPED]
    retry_of(other)
