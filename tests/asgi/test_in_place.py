"""What arrives in a callback of the event loop is sent there, in the place of the viewer's task.

Servers and middleware find what they would find in the task.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from sse_bridge.asgi.messages import Message, Outbox, Send
from sse_bridge.upstream.base import Room, Take
from tests.support.asgi import Page
from tests.support.site import Site, site
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

USER: ContextVar[str] = ContextVar("USER", default="nobody")
COUNT: ContextVar[int] = ContextVar("COUNT", default=0)


class Transported(ScriptedWork):
    """Work whose chunks arrive in callbacks of the event loop."""

    take: Take

    async def push(self, take: Take, room: Room) -> None:
        self.take = take
        await super().push(take, room)

    async def bring(self, *lines: str) -> None:
        """Lines arrive, each in a callback of its own."""
        for line in lines:
            asyncio.get_running_loop().call_soon(self.take, stdout(line))
            await asyncio.sleep(0)

    def end(self) -> None:
        self.feed(exit_frame(0))
        self.finish()


class Recorder(Page):
    """A page whose server notes where `send` runs."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[Any] | None] = []

    async def send(self, message: Message) -> None:
        self.tasks.append(asyncio.current_task())
        self.sent.append(message)
        self._changed.notify()
        if self.ended:
            self.leave()


def cancelling(it: Site, page: Recorder, word: bytes) -> Send:
    """The page's `send`, which cancels the site's runs once it sends `word`."""

    async def send(message: Message) -> None:
        await page.send(message)
        if word in message.get("body", b""):
            for run in list(it.bridge._host._store.runs):
                run.cancel()

    return send


async def opened(it: Site, page: Page) -> Page:
    it.visit(page)
    await page.until(lambda: page.content)
    await asyncio.sleep(0)
    return page


def has(page: Page, count: int) -> bool:
    return len(lines_of(page)) == count


def lines_of(page: Page) -> list[str]:
    return [event["line"] for event in page.objects if event["type"] == "stdout"]


async def test_a_line_is_sent_in_the_callback_that_brings_it(anyio_backend: str) -> None:
    """As the viewer's task, which also sends the head and the end."""
    work, page = Transported(), Recorder()
    async with site(work) as it:
        await opened(it, page)
        sent: list[int] = []

        def bring() -> None:
            work.take(stdout("a"))
            sent.append(len(page.sent))

        before = len(page.sent)
        asyncio.get_running_loop().call_soon(bring)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        work.end()

    assert sent == [before + 1]
    assert lines_of(page) == ["a"]
    assert len(set(page.tasks)) == 1
    assert None not in page.tasks


async def test_context_variables_are_those_of_the_response(anyio_backend: str) -> None:
    """`send` reads what the application has set before the bridge, and what it has itself set at the line before."""
    work, page, seen = Transported(), Page(), []
    async with site(work) as it:

        async def send(message: Message) -> None:
            seen.append((USER.get(), COUNT.get()))
            COUNT.set(COUNT.get() + 1)
            await page.send(message)  # which waits, so half of it runs in the task

        async def app() -> None:
            USER.set("ada")
            await it.bridge(page.scope, page.receive, send)

        it.tasks.start_soon(app)
        await page.until(lambda: page.content)
        await work.bring("a", "b", "c")
        await page.until(lambda: len(lines_of(page)) == 3)
        work.end()

    assert lines_of(page) == ["a", "b", "c"]
    assert seen == [("ada", number) for number in range(len(seen))]


class Passing(BaseHTTPMiddleware):
    """Starlette's middleware that hands each message to another task."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


async def test_middleware_that_hands_messages_to_another_task(anyio_backend: str) -> None:
    """Each `send` waits for it there."""
    work, page = Transported(), Page()
    async with site(work) as it:
        app = Passing(it.bridge)
        it.tasks.start_soon(app, page.scope, page.receive, page.send)
        await page.until(lambda: page.content)
        await work.bring(*"abcdefgh")
        await page.until(lambda: len(lines_of(page)) == 8)
        work.end()

    assert lines_of(page) == list("abcdefgh")


@contextmanager
def task_factory() -> Iterator[None]:
    """The application's own, from before tasks had contexts of their own."""
    loop = asyncio.get_running_loop()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop)

    loop.set_task_factory(make)  # type: ignore[arg-type]
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def test_a_task_factory_of_the_application_may_know_no_contexts(anyio_backend: str) -> None:
    """Then the task is woken for each line."""
    work, page = Transported(), Page()
    with task_factory():
        async with site(work) as it:
            await opened(it, page)
            await work.bring("a", "b")
            await page.until(lambda: len(lines_of(page)) == 2)
            work.end()

    assert lines_of(page) == ["a", "b"]


@pytest.mark.parametrize("line", ["a line", "the exit"])
async def test_a_send_may_end_the_run_that_it_sends_from(anyio_backend: str, line: str) -> None:
    """In the midst of the callback that brings a line, or the run's own end. It ends once."""
    work, page = Transported(), Recorder()
    async with site(work) as it:
        it.tasks.start_soon(it.bridge, page.scope, page.receive, cancelling(it, page, b'"a"'))
        await page.until(lambda: page.content)
        chunk = stdout("a") + (exit_frame(3) if line == "the exit" else b"")
        asyncio.get_running_loop().call_soon(work.take, chunk)
        await page.until(lambda: page.ended)

    assert page.objects[0]["line"] == "a"
    assert page.objects[-1]["type"] == ("exit" if line == "the exit" else "error")
    statistics = it.bridge.statistics()
    assert sum(statistics.runs_ended.values()) == 1
    assert statistics.frames_in == len(page.objects)


async def test_a_send_of_the_last_frame_may_cancel_its_run(anyio_backend: str) -> None:
    """Which ends in the clock's callback, because its time is up. It is counted once."""
    work, page = Transported(), Recorder()
    async with site(work, max_run_time=0.05) as it:
        it.tasks.start_soon(it.bridge, page.scope, page.receive, cancelling(it, page, b'"error"'))
        await page.until(lambda: page.content)
        await work.bring("a", "b")
        await page.until(lambda: page.ended)

    statistics = it.bridge.statistics()
    assert statistics.frames_in == len(page.objects) == 3
    assert sum(statistics.runs_ended.values()) == 1


class Session:
    """What an application keeps for one request."""


async def test_a_run_that_is_kept_holds_nothing_of_its_last_viewers_request(anyio_backend: str) -> None:
    """Neither the context of its task nor its `send`."""
    session: ContextVar[Session | None] = ContextVar("session", default=None)
    work, page = Transported(), Page()
    async with site(work, keep=60.0) as it:
        first, token = await it.started()
        page.scope.update(path=f"/{token}", raw_path=f"/{token}".encode())
        held = Session()
        gone = weakref.ref(held)

        async def app(held: Session) -> None:
            session.set(held)
            await it.bridge(page.scope, page.receive, page.send)

        it.tasks.start_soon(app, held)
        del held
        await page.until(lambda: page.content)
        await work.bring("a")
        first.leave()
        await rounds_to_end()
        work.end()
        await page.until(lambda: page.ended)
        await rounds_to_end()
        gc.collect()

        assert it.bridge.statistics().runs_ended["exit_zero"] == 1
        assert gone() is None


async def test_a_run_that_goes_on_without_viewers_holds_nothing_of_the_last_ones_request(anyio_backend: str) -> None:
    """It keeps the viewer's place, and may wait for it."""
    work, page, held = Transported(), Page(), Session()
    gone = weakref.ref(held)
    async with site(work, grace=None) as it:
        first, token = await it.started()
        path = f"/{token}"
        scope = {**page.scope, "path": path, "raw_path": path.encode(), "session": held}
        answered = asyncio.Event()

        async def app(scope: dict[str, Any]) -> None:
            await it.bridge(scope, page.receive, page.send)
            answered.set()

        it.tasks.start_soon(app, scope)
        del held, scope
        await page.until(lambda: page.content)
        first.leave()
        await rounds_to_end()
        page.leave()
        await answered.wait()
        await rounds_to_end()
        gc.collect()

        assert not sum(it.bridge.statistics().runs_ended.values())
        assert gone() is None
        work.end()


async def rounds_to_end() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_viewer_leaves_while_a_send_waits_that_began_in_a_callback(anyio_backend: str) -> None:
    """The run is told, as always."""
    work, page = Transported(), Page()
    async with site(work, grace=0) as it:
        await opened(it, page)
        page.stall()
        await work.bring("a")
        page.leave()
        await work.closed.wait()

    assert work.cancels == 1


async def test_many_viewers_of_one_run(anyio_backend: str) -> None:
    """Each gets each line, whether its server takes it at once, later, or not at all."""
    work = Transported()
    async with site(work) as it:
        first, token = await it.started()
        pages = [first]
        for number in range(40):
            page: Page = Recorder() if number % 2 else Page()
            page.scope.update(path=f"/{token}", raw_path=f"/{token}".encode())
            pages.append(await opened(it, page))
        lines = [str(number) for number in range(30)]
        await work.bring(*lines)
        for page in pages:
            await page.until(partial(has, page, len(lines)))
        work.end()

    assert all(lines_of(page) == lines for page in pages)


async def test_an_outbox_steps_aside_once_a_response_has_begun(anyio_backend: str) -> None:
    """It has nothing more to remember. A `send` of another kind is left alone."""
    page = Page()
    outbox = Outbox(page.send)
    assert Outbox.behind(outbox.send) == outbox.send

    await outbox.send({"type": "http.response.start", "status": 200, "headers": []})

    assert Outbox.behind(outbox.send) == page.send
    assert Outbox.behind(page.send) == page.send
