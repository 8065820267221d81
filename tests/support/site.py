"""A bridge without a server, and the pages that visit it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.requests import Request

from sse_bridge import SSEBridge
from tests.support.asgi import Page
from tests.support.work import ScriptedWork

STOPPED = {"type": "error", "code": "server_stopped", "message": "The server is stopping."}


class Site:
    """A bridge, the works that it starts in order, and the pages that visit it."""

    def __init__(self, *works: ScriptedWork, **options: Any) -> None:
        self.starts = 0
        self._works = iter(works)
        self.bridge = SSEBridge(None, self._resolve, **options)
        self.tasks: Any = None

    def _resolve(self, request: Request) -> ScriptedWork:
        self.starts += 1
        return next(self._works, None) or ScriptedWork()

    def open(self, method: str = "GET", path: str = "/", seen: str | None = None, **headers: str) -> Page:
        """Sends a page's request in a task of its own."""
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        page = Page(method, path, headers=extra if seen is None else {"Last-Event-ID": seen, **extra})
        self.tasks.start_soon(self.bridge, page.scope, page.receive, page.send)
        return page

    async def answer(self, method: str = "GET", path: str = "/", seen: str | None = None, **headers: str) -> Page:
        """Sends a page's request and waits for the whole response."""
        page = self.open(method, path, seen, **headers)
        await page.until(lambda: page.ended)
        return page


@asynccontextmanager
async def site(*works: ScriptedWork, **options: Any) -> AsyncGenerator[Site]:
    """A site. When the block ends, its requests must end by themselves within the timeout."""
    made = Site(*works, **options)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as made.tasks:
            yield made


@asynccontextmanager
async def visiting(work: ScriptedWork, page: Page | None = None, **options: Any) -> AsyncGenerator[Page]:
    """A page that visits a bridge; the request must end by itself."""
    page = page or Page()
    bridge = SSEBridge(None, lambda request: work, **{"grace": 0, **options})
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            yield page


async def visit(bridge: SSEBridge, page: Page | None = None) -> Page:
    """The same for a request that is answered at once."""
    page = page or Page()
    with anyio.fail_after(10):
        await bridge(page.scope, page.receive, page.send)
    return page


def never(request: Request) -> ScriptedWork:
    raise AssertionError("this request must not start anything")


class Scene:
    """A bridge whose requests end by themselves, and the pages that visit it."""

    def __init__(self, tasks: Any, work: ScriptedWork | Callable[[Request], Any], **options: Any) -> None:
        self.bridge = SSEBridge(None, work if callable(work) else lambda request: work, **options)
        self._tasks = tasks

    def visit(self, page: Page | None = None) -> Page:
        page = page or Page()
        self._tasks.start_soon(self.bridge, page.scope, page.receive, page.send)
        return page


def retry_of(page: Page) -> int:
    found = re.search(rb"\n\nretry: (\d+)\n\n\Z", page.content)
    assert found is not None, page.content
    return int(found[1])
