"""Servers that say `http.disconnect` once, and applications that take it.

The kind of fault: the one message that a client has left was consumed by a function of the application's, so the bridge
waited for it without end, and a command ran with no viewer left.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from sse_bridge import Block, SSEBridge
from sse_bridge.asgi.messages import Message
from tests.support.asgi import Page, lines
from tests.support.site import site, visit
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class SaysItOnce(Page):
    """A page whose server says once that it has left, as hypercorn and daphne do."""

    gone = False
    said = False

    def leave(self) -> None:
        self.gone = True
        super().leave()

    async def receive(self) -> Message:
        # What is there already is given to a caller that is cancelled, too, as by a queue.
        with anyio.CancelScope(shield=self.gone):
            message = await super().receive()
        if message["type"] == "http.disconnect":
            if self.said:
                await anyio.sleep_forever()
            self.said = True
        return message


class HalfABody(SaysItOnce):
    """A page that leaves in the middle of its request's body."""

    async def receive(self) -> Message:
        message = await super().receive()
        return {**message, "more_body": True} if message["type"] == "http.request" else message


Consume = Callable[[Request], Awaitable[object]]


async def asks(request: Request) -> None:
    while not await request.is_disconnected():  # noqa: ASYNC110 (as applications write it)
        await anyio.sleep(0.1)


async def asks_with_another_request(request: Request) -> None:
    await asks(Request(request.scope, request.receive))


async def reads_on(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def reads_the_body_first(request: Request) -> None:
    await request.body()
    await asks(request)


async def lets_a_task_listen(request: Request) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reads_on, request)
        await reads_on(request)


async def asks_and_is_cancelled(request: Request) -> None:
    with anyio.move_on_after(0.5):
        await reads_on(request)
    await asks(request)


CONSUMERS = [
    asks,
    asks_with_another_request,
    reads_on,
    reads_the_body_first,
    lets_a_task_listen,
    asks_and_is_cancelled,
]


def functions(name: str, consume: Consume, answer: object) -> dict[str, Any]:
    """One function of the application's, which consumes the message."""

    async def function(request: Request, *more: object) -> Any:
        if "consume" in request.headers:
            await consume(request)
        return answer

    return {name: function}


@pytest.mark.parametrize("consume", CONSUMERS)
@pytest.mark.parametrize("name", ["resolve", "policy", "rate", "identify", "key"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_viewer_that_leaves_meanwhile_starts_no_work(name: str, consume: Consume, method: str) -> None:
    """The request ends with an empty response, which its server drops."""
    work = ScriptedWork()
    answer = {"resolve": work, "policy": Block()}.get(name)
    page = SaysItOnce(method, headers={"Consume": "1"})
    async with site(work, **functions(name, consume, answer)) as it:
        it.visit(page)
        await anyio.sleep(1)
        page.leave()

    assert not work.started.is_set()
    assert page.is_dismissed
    assert it.bridge.statistics().runs == ()


@pytest.mark.parametrize("consume", CONSUMERS)
@pytest.mark.parametrize("name", ["authorize", "policy", "rate", "identify"])
@pytest.mark.parametrize("how", ["follows", "resumes"])
async def test_a_viewer_that_leaves_meanwhile_counts_no_longer(name: str, consume: Consume, how: str) -> None:
    """The run ends after its grace period, although heartbeats are off."""
    work = ScriptedWork()
    answer = {"authorize": True, "policy": Block()}.get(name)
    async with site(work, heartbeat=None, grace=10, within=50, **functions(name, consume, answer)) as it:
        first, token = await it.started()
        headers = {"Consume": "1", **({"Last-Event-ID": token + ".0"} if how == "resumes" else {})}
        page = SaysItOnce("GET", f"/{token}" if how == "follows" else "/", headers=headers)
        it.visit(page)
        await anyio.sleep(1)
        page.leave()
        await anyio.sleep(1)
        assert [len(run.viewers) for run in it.bridge.statistics().runs] == [1]
        first.leave()
        before = anyio.current_time()
        await work.closed.wait()
        assert anyio.current_time() == pytest.approx(before + 10, abs=0.1)

    assert work.cancels == 1


@pytest.mark.parametrize("consume", [one for one in CONSUMERS if one is not reads_the_body_first])
@pytest.mark.parametrize("seconds", [0.0, 0.05, 3.0])
async def test_a_task_of_the_application_may_listen_along(consume: Consume, seconds: float) -> None:
    """Whichever of the two gets the message, both hear of it at once."""
    work, heard, within = ScriptedWork(), anyio.Event(), anyio.Event()

    async def listen(request: Request) -> None:
        within.set()
        await consume(request)
        heard.set()

    async def resolve(request: Request) -> ScriptedWork:
        it.tasks.start_soon(listen, request)
        return work

    async with site(resolve=resolve, heartbeat=None, grace=0) as it:
        page = SaysItOnce()
        it.visit(page)
        await page.until(lambda: page.content)
        await within.wait()
        work.feed(stdout("a"))
        await page.until(lambda: page.events)
        await anyio.sleep(seconds)
        page.leave()
        await work.closed.wait()
        await heard.wait()

    assert lines(page) == ["a"]
    assert work.cancels == 1


async def test_a_body_is_still_read_by_the_application() -> None:
    """The application gets every message that comes before."""
    work, bodies = ScriptedWork(), []
    work.feed(exit_frame())
    work.finish()

    async def resolve(request: Request) -> ScriptedWork:
        bodies.append(await request.body())
        return work

    page = await visit(SSEBridge(None, resolve), SaysItOnce("POST", pieces=[b"a", b"b", b""]))

    assert (bodies, lines(page)) == ([b"ab"], ["exit"])


# -- a client that leaves while its body is read


async def reads(request: Request) -> None:
    await request.body()


async def reads_json(request: Request) -> None:
    await request.json()


async def streams(request: Request) -> None:
    async for _ in request.stream():
        pass


async def reads_in_a_task(request: Request) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reads, request)


async def reads_in_tasks(request: Request) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reads, Request(request.scope, request.receive))
        tasks.start_soon(reads_in_a_task, Request(request.scope, request.receive))


async def refuses_then(request: Request) -> None:
    try:
        await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "Where is the body?") from None


@pytest.mark.parametrize("read", [reads, reads_json, streams, reads_in_a_task, reads_in_tasks, refuses_then])
@pytest.mark.parametrize("name", ["resolve", "policy", "rate", "identify", "key"])
async def test_a_client_that_leaves_in_its_body_causes_silence(
    name: str, read: Consume, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback, no answer, no run. Its server may say by an `OSError` that the client is gone."""
    work = ScriptedWork()
    answer = {"resolve": work, "policy": Block()}.get(name)
    page = HalfABody("POST", pieces=[b"half"], headers={"Consume": "1"})
    page.broken = OSError("gone")
    with caplog.at_level(logging.INFO):
        async with site(work, **functions(name, read, answer)) as it:
            it.visit(page)
            await anyio.sleep(1)
            page.leave()

    assert not work.started.is_set()
    assert page.sent == []
    assert not caplog.records


async def test_an_exception_beside_the_leaving_is_heard() -> None:
    """Something else went wrong, too."""

    async def resolve(request: Request) -> ScriptedWork:
        async def fails() -> None:
            try:
                await request.body()
            finally:
                raise LookupError("no database")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reads, Request(request.scope, request.receive))
            tasks.start_soon(fails)
        raise AssertionError

    page = HalfABody("POST", pieces=[b"half"])
    page.leave()
    with pytest.raises(ExceptionGroup) as raised:
        await visit(SSEBridge(None, resolve), page)

    assert raised.group_contains(LookupError)


async def test_a_disconnect_of_another_request_is_no_silence() -> None:
    """Only this client's leaving explains why there is no answer."""

    async def resolve(request: Request) -> ScriptedWork:
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        await visit(SSEBridge(None, resolve))
