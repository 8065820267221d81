"""The last `send` of a response.

The fault: a server that closes the connection behind the last body reports that the client has left while this `send`
goes on, and so had its own closing cancelled: the connection stayed open, and a proxy took the body for truncated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from sse_bridge.asgi.messages import Message
from sse_bridge.errors import UpstreamRefused
from tests.support.asgi import Page
from tests.support.site import Site, site
from tests.support.work import ScriptedWork, exit_frame, finished, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class Closing(Page):
    """A page whose server closes the connection behind the last body, as hypercorn's trio worker does.

    Args:
        takes: seconds from the report that the client has left until the connection is closed.
    """

    def __init__(self, takes: float = 0.1, **request: Any) -> None:
        super().__init__(**request)
        self.is_closed = False
        self._takes = takes

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.leave()
            await anyio.sleep(self._takes)
            self.is_closed = True


async def exits(it: Site, work: ScriptedWork) -> None:
    work.feed(exit_frame())


async def ends_without_an_exit(it: Site, work: ScriptedWork) -> None:
    work.finish()


async def is_stopped(it: Site, work: ScriptedWork) -> None:
    await it.bridge.shutdown()


async def takes_too_long(it: Site, work: ScriptedWork) -> None:
    await anyio.sleep(20)


@pytest.mark.parametrize("happens", [exits, ends_without_an_exit, is_stopped, takes_too_long])
@pytest.mark.parametrize("dialect", ["typed", "verbatim"])
async def test_a_stream_is_closed_by_its_server(
    happens: Callable[[Site, ScriptedWork], Awaitable[None]], dialect: str
) -> None:
    """However the stream has ended."""
    work, page = ScriptedWork(), Closing()
    async with site(work, dialect=dialect, ids=True, max_viewer_time=15, grace=1, within=60) as it:
        it.visit(page)
        work.feed(stdout("a"))
        await page.until(lambda: page.content)
        await happens(it, work)

    assert page.is_closed


@pytest.mark.parametrize("refusals", ["status", "frame"])
@pytest.mark.parametrize("comes", ["at once", "late"])
async def test_a_refusal_is_closed_by_its_server(refusals: str, comes: str) -> None:
    """It is the last body, too."""
    refused = UpstreamRefused("No.", code="not_found", status=404)
    work, page = ScriptedWork(refusal=refused, answers=comes == "at once"), Closing()
    async with site(work, refusals=refusals) as it:
        it.visit(page)
        await anyio.sleep(1)
        work.answer()

    assert page.is_closed


async def test_a_late_viewer_of_a_run_that_is_over_is_closed_by_its_server() -> None:
    """Its whole stream is there from the start."""
    async with site(finished("a", "b")) as it:
        first = await it.answer()
        page = Closing(path="/" + first.headers["sse-bridge-run"])
        it.visit(page)

    assert page.is_closed


@pytest.mark.parametrize("send_timeout", [30.0, None])
async def test_a_server_that_never_closes_is_left_after_a_second(send_timeout: float | None) -> None:
    """Else the request would hang with it."""
    page = Closing(takes=10_000)
    async with site(finished("a"), send_timeout=send_timeout, within=100) as it:
        it.visit(page)
        await page.until(lambda: page.ended)
        before = anyio.current_time()

    assert anyio.current_time() - before == pytest.approx(1, abs=0.5)
    assert not page.is_closed
