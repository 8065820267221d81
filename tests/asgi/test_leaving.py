"""Viewers that leave, or fail, and what becomes of the run."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from sse_bridge import SSEBridge
from sse_bridge.errors import UpstreamRefused
from tests.support.asgi import Page, lines
from tests.support.site import site, visit, visiting
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# -- the viewer leaves


async def test_a_viewer_that_leaves_a_silent_script_ends_it_at_once() -> None:
    """The run waits for its next line, and heartbeats are off. The disconnect itself ends it."""
    work = ScriptedWork()
    async with visiting(work, heartbeat=None) as page:
        work.feed(stdout("a"))
        await page.until(lambda: page.events)
        before = anyio.current_time()
        page.leave()
        await work.closed.wait()
        assert anyio.current_time() == before

    assert work.cancels == 1
    assert not page.ended


async def test_a_viewer_that_leaves_before_the_upstream_has_answered_ends_the_work() -> None:
    """The upstream may have started it already."""
    work = ScriptedWork(answers=False)
    async with visiting(work) as page:
        await work.started.wait()
        page.leave()

    assert work.closed.is_set()
    assert work.cancels == 1
    assert page.is_dismissed


def behind(layers: int, app: ASGIApp) -> ASGIApp:
    """The application behind middleware that answers `receive` through tasks of its own."""

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    for _ in range(layers):
        app = BaseHTTPMiddleware(app, dispatch=dispatch)
    return app


@pytest.mark.parametrize("reads_body", [False, True])
@pytest.mark.parametrize("pieces", [[b""], [b"{}", b""]], ids=["uvicorn", "hypercorn"])
@pytest.mark.parametrize("layers", range(6))
@pytest.mark.filterwarnings(  # Starlette before 1.8 leaves its own generator to the garbage collector
    "ignore:Exception ignored in. <async_generator object Request.stream:pytest.PytestUnraisableExceptionWarning",
    "ignore:Async generator .starlette.requests.Request.stream:ResourceWarning",
)
async def test_a_viewer_that_left_during_resolve_starts_no_work(
    layers: int, pieces: list[bytes], reads_body: bool
) -> None:
    """However many middlewares hand the messages of `receive` on, and however many messages come before the last.

    The kind of fault: a client left before its response had begun, and the middleware in front, which got none, raised.
    """
    work, page = ScriptedWork(), Page("POST", pieces=pieces)

    async def resolve(request: Request) -> ScriptedWork:
        if reads_body:
            await request.body()
        page.leave()
        return work

    app = behind(layers, SSEBridge(None, resolve, grace=0))
    with anyio.fail_after(10):
        await app(page.scope, page.receive, page.send)

    assert not work.started.is_set()
    assert page.is_dismissed


# -- the viewer's connection fails


@pytest.mark.parametrize("at", ["start", "body"])
async def test_a_send_that_raises_oserror_means_that_the_viewer_has_left(at: str) -> None:
    """Servers of ASGI HTTP 2.4 raise it, some of them instead of a message in `receive`."""
    work = ScriptedWork()
    async with visiting(work) as page:
        if at == "start":
            page.broken = OSError("gone")
        else:
            await page.until(lambda: page.content)
            page.broken = OSError("gone")
            work.feed(stdout("a"))

    assert work.cancels == 1


@pytest.mark.parametrize("at", ["start", "body"])
async def test_a_send_that_hangs_ends_the_viewer_after_send_timeout(at: str, caplog: pytest.LogCaptureFixture) -> None:
    """A script that prints on is ended all the same. The timeout covers the head as well."""
    work = ScriptedWork()
    with caplog.at_level(logging.ERROR):
        async with site(work, send_timeout=5, grace=0, heartbeat=None) as it:
            page = it.open()
            if at == "body":
                await page.until(lambda: page.content)
            page.stall()
            before = anyio.current_time()
            work.feed(*[stdout("a")] * 100)
            await work.closed.wait()
            assert 5 <= anyio.current_time() - before < 10.5

    assert work.cancels == 1
    assert it.bridge.statistics().viewers_stalled == 1
    assert not caplog.records


async def test_without_send_timeout_a_send_may_hang() -> None:
    """The viewer takes its lines whenever it reads on."""
    work = ScriptedWork()
    async with visiting(work, send_timeout=None, within=2000) as page:
        await page.until(lambda: page.content)
        page.stall()
        work.feed(stdout("a"), exit_frame())
        work.finish()
        await anyio.sleep(1000)
        page.resume()

    assert lines(page) == ["a", "exit"]


async def test_a_refusal_that_hangs_ends_the_viewer_after_send_timeout() -> None:
    """The timeout covers whole responses, too."""
    work = ScriptedWork(refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with site(work, send_timeout=5, within=20) as it:
        it.open().stall()

    assert it.bridge.statistics().viewers_stalled == 1


# -- the request that hosts the run is cancelled


async def test_a_server_that_cancels_the_request_gets_the_work_ended() -> None:
    """The run has a task of its own, so its grace period begins as if the viewer had left."""
    work, page = ScriptedWork(), Page()

    async def resolve(request: Request) -> ScriptedWork:
        return work

    bridge = SSEBridge(None, resolve, grace=5)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge, page.scope, page.receive, page.send)
        await page.until(lambda: page.content)
        tasks.cancel_scope.cancel()
    assert work.cancels == 0
    await anyio.sleep(5.1)

    assert work.cancels == 1
    assert work.closed.is_set()


async def test_followers_keep_the_run_when_the_request_that_started_it_is_cancelled() -> None:
    """daphne cancels a request ten seconds after its client has left."""
    work, host = ScriptedWork(), Page()
    async with site(work) as it:
        async with anyio.create_task_group() as server:
            server.start_soon(it.bridge, host.scope, host.receive, host.send)
            await host.until(lambda: host.content)
            other = it.open(path=f"/{host.headers['sse-bridge-run']}")
            await other.until(lambda: other.content)
            server.cancel_scope.cancel()
        work.feed(stdout("a"), exit_frame())
        work.finish()
        await other.until(lambda: other.ended)

    assert [said["type"] for said in other.objects] == ["stdout", "exit"]
    assert work.cancels == 0


# -- something fails that should not


async def test_a_bug_of_the_bridge_leaves_it_as_it_is() -> None:
    """The host's handlers see the exception itself rather than a group. The work is ended first."""
    work = ScriptedWork()
    work.fail(ZeroDivisionError("a bug"))

    async def resolve(request: Request) -> ScriptedWork:
        return work

    with pytest.raises(ZeroDivisionError, match="a bug"):
        await visit(SSEBridge(None, resolve))

    assert work.cancels == 1


class Odd(Page):
    """A page behind a middleware with a bug."""

    async def send(self, message: Any) -> None:
        if b'"line"' in message.get("body", b""):
            raise ZeroDivisionError("a middleware's bug")
        await super().send(message)


async def test_a_bug_behind_the_first_viewer_leaves_the_run_to_the_others() -> None:
    """The exception gets out of its own request, although that request started the run."""
    work = ScriptedWork()
    outcome: list[BaseException] = []
    async with site(work) as it:
        odd = Odd()

        async def visit_and_note() -> None:
            try:
                await it.bridge(odd.scope, odd.receive, odd.send)
            except ZeroDivisionError as error:
                outcome.append(error)

        it.tasks.start_soon(visit_and_note)
        await odd.until(lambda: odd.content)
        other = it.open(path="/" + odd.headers["sse-bridge-run"])
        await other.until(lambda: other.content)
        work.feed(stdout("a"))
        await other.until(lambda: other.events)
        assert len(outcome) == 1
        work.feed(exit_frame())
        work.finish()

    assert lines(other) == ["a", "exit"]
    assert work.cancels == 0


@pytest.mark.parametrize("where", ["send", "receive"])
async def test_a_bug_behind_one_follower_leaves_the_run_to_the_others(where: str) -> None:
    """The exception gets out of the follower's own request."""
    work = ScriptedWork()
    async with site(work) as it:
        first, run = await it.started()

        async def fail(*message: Any) -> Any:
            raise ZeroDivisionError("a bug")

        bad = Page(path=f"/{run}")
        receive, send = (fail, bad.send) if where == "receive" else (bad.receive, fail)
        with pytest.raises(ZeroDivisionError):
            await it.bridge(bad.scope, receive, send)
        work.feed(stdout("a"), exit_frame())
        work.finish()

    assert lines(first) == ["a", "exit"]


async def test_a_viewer_whose_request_was_cancelled_leaves_the_run() -> None:
    """A follower that is cancelled before it is written to counts as gone."""
    work = ScriptedWork()
    async with site(work) as it:
        first, run = await it.started()
        other = Page(path=f"/{run}")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await it.bridge(other.scope, other.receive, other.send)
        await wait_all_tasks_blocked()
        assert it.bridge.statistics().viewers == 1
        work.feed(exit_frame())
        work.finish()

    assert first.ended
