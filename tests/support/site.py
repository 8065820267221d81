"""A bridge driven directly, and the pages that visit it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.requests import Request

from sse_bridge import SSEBridge
from tests.support.asgi import Page
from tests.support.work import ScriptedWork

__all__ = ["STOPPED", "Site", "never", "retry_of", "site", "visit", "visiting"]

#: The terminal frame of a run that ends because the server stops.
STOPPED = {"type": "error", "code": "server_stopped", "message": "The server is stopping."}

#: An async function: a sync one runs in a thread, which tests in virtual time cannot wait for.
AsyncResolve = Callable[[Request], Awaitable[ScriptedWork]]


class Site:
    """A bridge, and the pages that visit it.

    Args:
        works: what the bridge starts, in this order; further requests start fresh ones.
        resolve: replaces the site's own `resolve`, which hands out the works.
        options: of the bridge.
    """

    def __init__(self, *works: ScriptedWork, resolve: AsyncResolve | None = None, **options: Any) -> None:
        self.starts = 0
        self._works = iter(works)
        self.bridge = SSEBridge(None, resolve or self._resolve, **options)
        self.tasks: Any = None

    async def _resolve(self, request: Request) -> ScriptedWork:
        self.starts += 1
        return next(self._works, None) or ScriptedWork()

    def visit(self, page: Page) -> Page:
        """Sends the page's request in a task of its own."""
        self.tasks.start_soon(self.bridge, page.scope, page.receive, page.send)
        return page

    def open(self, method: str = "GET", path: str = "/", seen: str | None = None, **headers: str) -> Page:
        """Sends a new page's request. `seen` is its `Last-Event-ID`; underscores in header names stand for hyphens."""
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.visit(Page(method, path, headers=extra if seen is None else {"Last-Event-ID": seen, **extra}))

    async def answer(self, method: str = "GET", path: str = "/", seen: str | None = None, **headers: str) -> Page:
        """Sends a new page's request and waits for the whole response."""
        page = self.open(method, path, seen, **headers)
        await page.until(lambda: page.ended)
        return page

    async def started(self, **headers: str) -> tuple[Page, str]:
        """Sends a new page's request and waits for the head. Returns the page and the token of its run."""
        page = self.open(**headers)
        await page.until(lambda: page.content)
        return page, page.headers["sse-bridge-run"]


@asynccontextmanager
async def site(*works: ScriptedWork, within: float = 10, **options: Any) -> AsyncGenerator[Site]:
    """A site. When the block ends, its requests must end by themselves. All of it may take `within` seconds."""
    made = Site(*works, **options)
    with anyio.fail_after(within):
        async with anyio.create_task_group() as made.tasks:
            yield made


@asynccontextmanager
async def visiting(work: ScriptedWork, page: Page | None = None, **options: Any) -> AsyncGenerator[Page]:
    """A page that visits a site with a grace period of zero. The request must end by itself."""
    async with site(work, **{"grace": 0, **options}) as it:
        yield it.visit(page or Page())


async def visit(bridge: SSEBridge, page: Page | None = None) -> Page:
    """Sends a page's request and waits for its end, in the same task."""
    page = page or Page()
    with anyio.fail_after(10):
        await bridge(page.scope, page.receive, page.send)
    return page


def never(request: Request) -> ScriptedWork:
    """A `resolve` that fails the test when it is called."""
    raise AssertionError("this request must not start anything")


def retry_of(page: Page) -> int:
    """The milliseconds after which the page was told to come back, when its stream ended."""
    found = re.search(rb"\n\nretry: (\d+)\n\Z", page.content)
    assert found is not None, page.content
    return int(found[1])
