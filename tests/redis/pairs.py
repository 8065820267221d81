"""Two bridges of one event loop, which share a Redis as two workers would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.requests import Request

from sse_bridge import RedisStore, SSEBridge
from tests.support.asgi import Page
from tests.support.work import ScriptedWork, exit_frame

__all__ = ["PATIENCE", "Two", "until"]

PATIENCE = 20.0


class Two:
    """The bridge that reads a run, and one that may follow it.

    Args:
        url: see `RedisStore`.
        prefix: see `RedisStore`.
        settings: others of `RedisStore`.
    """

    def __init__(self, url: Any, prefix: str, **settings: Any) -> None:
        self.work = ScriptedWork()
        self.prefix = prefix

        async def resolve(request: Request) -> ScriptedWork:
            return self.work

        self.owner, self.other = (
            SSEBridge(resolve=resolve, store=RedisStore(url, lease=2.0, prefix=prefix, **settings), grace=60.0)
            for _ in range(2)
        )
        self._tasks: Any = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[str, Page]]:
        """The owner has a run with one viewer. Gives its token, too."""
        page, work = Page(), self.work
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self.owner, page.scope, page.receive, page.send)
            await page.until(lambda: page.content)
            yield page.headers["sse-bridge-run"], page
            work.feed(exit_frame())
            work.finish()
        for bridge in (self.owner, self.other):
            await bridge.shutdown()

    def follow(self, token: str) -> Page:
        """Follows the run on the other bridge."""
        return self.ask(Page(path=f"/{token}"))

    def ask(self, page: Page) -> Page:
        """Sends a request to the other bridge."""
        self._tasks.start_soon(self.other, page.scope, page.receive, page.send)
        return page


async def until(condition: Callable[[], object]) -> None:
    """Waits for a condition."""
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (a count wakes no task)
            await anyio.sleep(0.01)
