"""Viewers that leave, or fail, and what becomes of the run."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.requests import Request

from sse_bridge import SSEBridge
from tests.support.asgi import Page, lines
from tests.support.site import site, visit, visiting
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


async def test_a_viewer_that_leaves_a_silent_script_ends_it_on_the_very_event(anyio_backend: str) -> None:
    """Not at the next line, and not at the next heartbeat."""
    work = ScriptedWork()
    async with visiting(work, heartbeat=None) as page:
        work.feed(stdout("a"))
        await page.until(lambda: page.events)
        page.leave()
        await work.closed.wait()

    assert work.cancels == 1
    assert not page.ended


async def test_a_viewer_that_leaves_before_the_upstream_has_answered_ends_it_too(anyio_backend: str) -> None:
    """Half of what is left running elsewhere is left running here."""
    work = ScriptedWork(answers=False)
    async with visiting(work) as page:
        await work.started.wait()
        page.leave()

    assert work.closed.is_set()
    assert work.cancels == 1
    assert page.sent == []


async def test_a_viewer_that_left_while_we_resolved_starts_nothing(anyio_backend: str) -> None:
    """`resolve` may take its time."""
    work, page = ScriptedWork(), Page()

    async def resolve(request: Request) -> ScriptedWork:
        page.leave()
        return work

    await visit(SSEBridge(None, resolve), page)

    assert not work.started.is_set()
    assert page.sent == []


@pytest.mark.parametrize("at", ["start", "body"])
async def test_a_send_that_raises_is_a_viewer_that_left(anyio_backend: str, at: str) -> None:
    """Servers of ASGI HTTP 2.4 say it that way, and not always through `receive`."""
    work = ScriptedWork()
    async with visiting(work) as page:
        if at == "start":
            page.broken = OSError("gone")
        else:
            await page.until(lambda: page.content)
            page.broken = OSError("gone")
            work.feed(stdout("a"))

    assert work.cancels == 1


async def test_a_send_that_hangs_is_a_viewer_that_left(anyio_backend: str) -> None:
    """After `send_timeout`; a script that prints on is ended all the same."""
    work = ScriptedWork()
    async with visiting(work, send_timeout=0.05) as page:
        await page.until(lambda: page.content)
        page.stall()
        work.feed(*[stdout("a")] * 100)

    assert work.cancels == 1


async def test_a_server_that_cancels_the_request_still_gets_the_work_cancelled(anyio_backend: str) -> None:
    """hypercorn does this when it stops."""
    work, page = ScriptedWork(), Page()
    bridge = SSEBridge(None, lambda request: work)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge, page.scope, page.receive, page.send)
        await page.until(lambda: page.content)
        tasks.cancel_scope.cancel()

    assert work.cancels == 1
    assert work.closed.is_set()


async def test_a_viewer_that_takes_not_even_the_head_is_stalled(anyio_backend: str, caplog: Any) -> None:
    """`send_timeout` covers every message."""
    work = ScriptedWork()
    with caplog.at_level(logging.ERROR):
        async with site(work, send_timeout=0.05, grace=0) as it:
            page = it.open()
            page.stall()
            await work.closed.wait()

    assert it.bridge.statistics().viewers_stalled == 1


async def test_what_fails_for_the_first_viewer_is_its_own(anyio_backend: str, caplog: Any) -> None:
    """An odd exception from its `send` gets out, once the run that its request hosts is over; others go on."""

    class Odd(Page):
        async def send(self, message: Any) -> None:
            if message.get("body", b"").endswith(b"}\n\n"):
                raise ZeroDivisionError("a middleware's bug")
            await super().send(message)

    work = ScriptedWork()
    outcome: list[BaseException] = []
    async with site(work) as it:
        odd = Odd()

        async def visit() -> None:
            try:
                await it.bridge(odd.scope, odd.receive, odd.send)
            except ZeroDivisionError as error:
                outcome.append(error)

        it.tasks.start_soon(visit)
        await odd.until(lambda: odd.content)
        other = it.open(path="/" + odd.headers["sse-bridge-run"])
        await other.until(lambda: other.content)
        work.feed(stdout("a"))
        await other.until(lambda: other.events)
        assert not outcome
        work.feed(exit_frame())
        work.finish()

    assert lines(other) == ["a", "exit"]
    assert len(outcome) == 1
    assert work.cancels == 0


async def test_a_bug_behind_one_viewer_is_that_viewers_alone(anyio_backend: str) -> None:
    """It gets out of its own request, and the run goes on for the others."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.open()
        await first.until(lambda: first.content)

        async def send(message: Any) -> None:
            raise ZeroDivisionError("a bug")

        bad = Page(path=f"/{first.headers['sse-bridge-run']}")
        with pytest.raises(ZeroDivisionError):
            await it.bridge(bad.scope, bad.receive, send)
        work.feed(stdout("a"), exit_frame())
        work.finish()

    assert lines(first) == ["a", "exit"]


async def test_viewers_elsewhere_are_told_when_the_request_that_hosts_their_run_is_ended(anyio_backend: str) -> None:
    """A server that stops cancels requests: the run ends cleanly, and nobody waits for ever."""
    work, host = ScriptedWork(), Page()
    async with site(work) as it:
        async with anyio.create_task_group() as server:
            server.start_soon(it.bridge, host.scope, host.receive, host.send)
            await host.until(lambda: host.content)
            other = it.open(path=f"/{host.headers['sse-bridge-run']}")
            await other.until(lambda: other.content)
            server.cancel_scope.cancel()
        await other.until(lambda: other.ended)

    assert [said["code"] for said in other.objects] == ["bridge_failed"]
    assert work.cancels == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio runs tasks in random order
async def test_who_attached_to_a_run_that_never_began_is_told(anyio_backend: str) -> None:
    """The request that would have hosted it was cancelled first; the other one with its key does not wait for ever."""
    work = ScriptedWork()

    async def resolve(request: Request) -> ScriptedWork:
        return work

    bridge = SSEBridge(None, resolve)
    host, other = (Page("POST", headers={"Idempotency-Key": "k"}) for _ in range(2))
    hosting = anyio.CancelScope()

    async def visit() -> None:
        with hosting:
            await bridge(host.scope, host.receive, host.send)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit)
            tasks.start_soon(bridge, other.scope, other.receive, other.send)
            while bridge.statistics().viewers < 2:
                await anyio.lowlevel.checkpoint()
            hosting.cancel()

    assert not work.started.is_set()
    assert other.error["code"] == "cancelled"
